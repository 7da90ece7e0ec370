"""Wrong words are answered with the nearest right ones."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, words: Iterable[str], *, most: int = 1) -> str:
    """ "; did you mean X?" for up to `most` of `words` that are similar, "" if none is."""
    found = difflib.get_close_matches(word, list(words), n=most)
    return f"; did you mean {', '.join(found)}?" if found else ""
