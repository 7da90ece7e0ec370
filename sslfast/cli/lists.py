"""`sslfast recipes` and `sslfast info`."""

from __future__ import annotations

from collections.abc import Sequence

from sslfast.cli.parse import UsageError

RECIPES_ABOUT = "List the recipes, or those of all these words, and of one alone, or by its name, every setting."


def recipes(arguments: Sequence[str]) -> int:
    """Run `sslfast recipes`; returns the exit code."""
    from sslfast.cli.pretrain import table

    if any(word.startswith("-") for word in arguments):
        _no_options("recipes", arguments, RECIPES_ABOUT, words=" [WORD …]")
    print(table(arguments))
    return 0


def info(arguments: Sequence[str]) -> int:
    """Run `sslfast info`; returns the exit code."""
    from sslfast import _info

    _no_options("info", arguments, "Show versions, devices, which backend serves each op, and what was compiled.")
    print(_info.info())
    return 0


def _no_options(command: str, arguments: Sequence[str], about: str, words: str = "") -> None:
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: sslfast {command}{words}\n\n{about}")
        raise SystemExit(0)
    if arguments:
        raise UsageError(f"{command} takes no options, got {' '.join(arguments)}")
