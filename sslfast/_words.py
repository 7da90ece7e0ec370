"""Text for people: the nearest right word to a wrong one, and tables."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


def nearest(word: str, words: Iterable[str], *, most: int = 1) -> str:
    """ "; did you mean X?" for up to `most` of `words` that are similar, "" if none is."""
    found = difflib.get_close_matches(word, list(words), n=most)
    return f"; did you mean {', '.join(found)}?" if found else ""


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A line a row, with the cells of a column below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
