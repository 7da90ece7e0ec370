"""Dataclasses from command lines, by tyro, with errors of one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from sslfast._extras import require
from sslfast._words import nearest

Parsed = TypeVar("Parsed")


class UsageError(Exception):
    """The command line asks for something that does not exist or does not fit."""


def parse(kind: type[Parsed], arguments: Sequence[str], *, command: str, about: str, default: Any = None) -> Parsed:
    """An instance of the dataclass `kind` from command line arguments; fields of fields are flags of their own.

    Raises:
        UsageError: the arguments do not fit; one line.
        SystemExit: 0, after --help has been printed.
    """
    tyro = require("tyro", extra="train")
    options = {} if default is None else {"default": default}
    markers = (tyro.conf.OmitArgPrefixes,)
    prog = f"sslfast {command}"
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(kind, args=list(arguments), prog=prog, description=about, config=markers, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
    message = one_line(complaint.getvalue())
    if choice := re.search(r"invalid choice '(.*?)'.*\((.*?)\)", message):
        message += nearest(choice[1], re.findall(r"'(.*?)'", choice[2]))
    raise UsageError(f"{message} (see {prog} --help)")


def one_line(box: str) -> str:
    """The message of a box that tyro draws around an error: its first paragraph, and the options it proposes."""
    paragraphs: list[list[str]] = [[]]
    for line in (line.strip("│╭╮╰╯ ") for line in box.splitlines()):
        if line.startswith("─") or set(line) == {"-"}:  # a rule, also where the terminal has ASCII only
            paragraphs.append([])
        elif line:
            paragraphs[-1].append(line)
    title, *paragraphs = paragraphs
    message = re.sub(r"^Error parsing (?:training|run): ", "", " ".join(paragraphs[0] if paragraphs else title))
    for paragraph in paragraphs[1:]:
        if paragraph[:1] == ["Perhaps you meant:"]:
            proposed = [line.split()[0] for line in paragraph if line.startswith("--")]
            message += f"; perhaps {' or '.join(proposed)}"
    return message
