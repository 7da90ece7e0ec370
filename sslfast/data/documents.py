"""Documents of text by name, and their split into training and test passages."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from pathlib import Path

from sslfast._words import nearest

FILE = "text:"
TITLE = re.compile(r"[ \t]*= ([^=\n].*?) =[ \t]*")  # of a document; ` = = X = = ` is one of its sections
RULE = re.compile(r"[*=~+-]{3,}")  # underlines of headings, lines of tables
FOLDS, HELD_OUT = 5, 2  # of every five blocks, or documents, the third is for testing
FEW = 0.1  # share of documents with a test block below which whole documents are held out
SPACELESS = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # Chinese characters and Japanese syllables
# A word; of what is written without spaces a character of these, or 40 of another kind, as of a sequence.
WORD = re.compile(rf"[{SPACELESS}]\s*|[^\s{SPACELESS}]{{1,40}}\s*")


def read_documents(name: str) -> dict[str, str]:
    """The documents of a text by name, each one line.

    Args:
        name: `docs`, the 79 or so topics of the language reference that ships with Python (`pydoc_data.topics`), or
            `text:FILE`. Lines ` = Title = ` begin and name FILE's documents, as in WikiText; ` = = Section = = ` is
            text like any other. Without a title, blank lines separate documents, which are numbered.

    Topics contain one another: a paragraph that several have is left to the shortest of them, so that no test passage
    is in the training split under another name; a topic with nothing of its own is left out.

    Raises:
        ValueError: an unknown name; a file that is not UTF-8 or has no words in it.
        FileNotFoundError, IsADirectoryError: FILE is not there, or no file.
    """
    if name == "docs":
        return _topics()
    if not name.startswith(FILE) or name == FILE:
        raise ValueError(f"data must be docs or text:FILE, got {name!r}{nearest(name, ['docs'])}")
    path = Path(os.path.expanduser(name.removeprefix(FILE)))
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; text: wants one file")
    if not path.is_file():
        raise FileNotFoundError(f"there is no text file {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: byte {error.start} cannot be read") from error
    documents = _documents(text)
    if not documents:
        raise ValueError(f"{path} has no words in it")
    return documents


def short(documents: dict[str, str], *, block: int) -> bool:
    """Whether fewer than a tenth of the documents have the three blocks of which one is for testing."""
    long = sum(len(WORD.findall(text)) > HELD_OUT * block for text in documents.values())
    return long < FEW * len(documents)


def split_documents(documents: dict[str, str], split: str, *, block: int) -> Iterator[tuple[str, str]]:
    """The stretches of text that belong to a split, each with the name of its document.

    A document is cut into equal blocks of at most `block` words. The third of every five is for testing, so that a
    document of three blocks or more is in both splits, and a shorter one only in training; adjacent blocks of one
    split are one stretch. Of `short` documents, such as reviews, the third of every five is for testing as a whole.
    """
    if short(documents, block=block):
        for number, (name, text) in enumerate(documents.items()):
            if (number % FOLDS == HELD_OUT) == (split == "test"):
                yield name, text
        return
    for name, text in documents.items():
        words = WORD.findall(text)
        count = math.ceil(len(words) / block)
        bounds = [len(words) * k // count for k in range(count + 1)]
        blocks = [words[start:end] for start, end in pairwise(bounds)]
        for held_out, group in groupby(enumerate(blocks), lambda item: item[0] % FOLDS == HELD_OUT):
            if held_out == (split == "test"):
                yield name, "".join(word for _, words in group for word in words).rstrip()


def _topics() -> dict[str, str]:
    from pydoc_data.topics import topics

    seen: set[str] = set()
    own: dict[str, str] = {}
    for name, text in sorted(topics.items(), key=lambda topic: (len(topic[1]), topic[0])):
        paragraphs = [_one_line(RULE.sub(" ", paragraph)) for paragraph in re.split(r"\n\s*\n", text)]
        own[name] = _one_line(" ".join(p for p in dict.fromkeys(paragraphs) if p not in seen))
        seen.update(paragraphs)
    return {name: own[name] for name in sorted(own) if own[name]}


def _documents(text: str) -> dict[str, str]:
    lines = text.splitlines()
    titles = [TITLE.fullmatch(line) for line in lines]
    parts: list[tuple[str | None, list[str]]] = [(None, [])]
    if any(titles):
        for line, title in zip(lines, titles):
            if title:
                parts.append((title[1], []))
            else:
                parts[-1][1].append(line)
    else:
        for line in lines:
            if line.strip():
                parts[-1][1].append(line)
            else:
                parts.append((None, []))
    found = [(title, content) for title, part in parts if (content := _one_line(" ".join(part)))]
    return dict(zip(_names([title for title, _ in found]), (content for _, content in found), strict=True))


def _names(titles: Sequence[str | None]) -> list[str]:
    """A name for each, no two the same."""
    names: dict[str, None] = {}
    for number, title in enumerate(titles, 1):
        name = title or f"document {number}"
        while name in names:
            name = f"{name} ({number})"
        names[name] = None
    return list(names)


def _one_line(text: str) -> str:
    return " ".join(text.split())
