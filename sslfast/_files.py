"""Files that are written whole or not at all, and their names in front of people."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Inside, write the file that is yielded, beside `path`; it takes the place of `path` at the end, on the disk.

    A crash at any moment leaves the old file or the new one, never half of one. An error leaves the old one and nothing
    else; one of the operating system names `path`.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with naming(path):
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the error that is under way says more
            temporary.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too, must survive a power cut
    finally:
        os.close(folder)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Inside, an error of the operating system that names no file, as that of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, in UTF-8 ("?" for what is left of names that are not), whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace", newline="")


def printable(text: str | Path) -> str:
    """The text with � for what Python could not read of a name that is not UTF-8."""
    return str(text).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
