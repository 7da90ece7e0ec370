"""`sslfast compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sslfast._extras import require
from sslfast.cli.parse import UsageError, parse

tyro = require("tyro", extra="train")


@dataclass
class Compare:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """The run folders, evaluated before; what else is named, as by runs/*, is passed over."""
    output: tuple[Path, ...] = (Path("compare.csv"), Path("compare.png"))
    """Files to write: .csv has a row for each result, .md the table, .html a page with it and the curves, .png, .svg or
    .pdf the picture."""


def compare(arguments: Sequence[str]) -> int:
    """Run `sslfast compare`; returns the exit code."""
    about = "One table and one picture of several runs' results, by every protocol, beside their baselines."
    chosen = parse(Compare, arguments, command="compare", about=about)
    from sslfast.report.compare import Comparison

    if not chosen.output:
        raise UsageError("--output wants one or several files")
    for path in chosen.output:
        Comparison.check(path)
    comparison = Comparison(chosen.runs)
    print(comparison.text())
    for path in chosen.output:
        comparison.write(path)
    print(f"written to {', '.join(map(str, chosen.output))}")
    return 0
