"""One process at a time trains in a run folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
from pathlib import Path
from types import TracebackType

LOCK = ".run.lock"
LOGGER = logging.getLogger("sslfast")
_held: set[int] = set()


def _close_in_child() -> None:
    """A forked child, like a process that reads images, must not keep the lock when its parent has died."""
    for descriptor in _held:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


class RunLock:
    """A context in which no other process trains in the folder `run`, which is made if it is not there.

    The operating system lets go of the lock when the process ends, however it ends. At the end of the context the
    folder is removed again if it was made here and nothing was written to it.

    Raises:
        FileExistsError: another process is training there; names it. OSError: the folder cannot be made.
    """

    def __init__(self, run: Path) -> None:
        self.run, self.path = run, run / LOCK

    def __enter__(self) -> RunLock:
        self.made = not self.run.exists()
        if not (self.made or self.run.is_dir()):
            raise NotADirectoryError(f"{self.run} is not a folder")
        self.run.mkdir(parents=True, exist_ok=True)
        while True:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(self.descriptor, 1000, 0).decode(errors="replace")
                os.close(self.descriptor)
                raise FileExistsError(f"{self.run} is being trained by another process{_told(holder)}") from None
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                    raise
                LOGGER.warning("%s is on a file system without locks: do not train there twice at once", self.run)
            if self.held():
                break
            os.close(self.descriptor)  # of a file that its last holder was about to remove
        _held.add(self.descriptor)
        holder = json.dumps({"process": os.getpid(), "host": platform.node()}).encode()
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, holder, 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.held():
            self.path.unlink()
            if self.made and not any(self.run.iterdir()):
                self.run.rmdir()
        _held.discard(self.descriptor)
        os.close(self.descriptor)

    def held(self) -> bool:
        """Whether the file that is locked is the one in the folder, which somebody may have removed or replaced."""
        try:
            return os.path.samestat(os.fstat(self.descriptor), os.stat(self.path))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raise FileNotFoundError if the folder is no longer the one that was locked."""
        if not self.held():
            raise FileNotFoundError(f"{self.run} was removed or replaced while it was being trained")


def _told(holder: str) -> str:
    """Who holds the lock, as far as it has said so."""
    try:
        return " ({process} on {host})".format(**json.loads(holder))
    except (ValueError, KeyError, TypeError):
        return ""
