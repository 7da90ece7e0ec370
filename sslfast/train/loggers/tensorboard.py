"""TensorBoard's event files, written where they are asked for.

SummaryWriter has a thread of its own for it, which says what went wrong in a traceback, and to somebody else.
"""

from __future__ import annotations

import itertools
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

from sslfast._extras import require
from sslfast._files import naming

_numbers = itertools.count()  # of the files that this process has begun


class Board:
    """A new event file in `folder`, which is made if it is not there.

    Args:
        folder: what TensorBoard is pointed to.
        purge_step: events of earlier files from this step on are not shown any more; None: all are.

    Raises:
        OSError: it cannot be written; so do the methods.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        self._events = require("tensorboard.compat.proto.event_pb2", extra="train")
        self._scalars = require("torch.utils.tensorboard.summary", extra="train").scalar
        records = require("tensorboard.summary.writer.record_writer", extra="train").RecordWriter
        folder.mkdir(exist_ok=True)
        owner = f"{platform.node()}.{os.getpid()}.{next(_numbers)}"
        self.path = folder / f"events.out.tfevents.{int(time.time()):010d}.{owner}"
        self._file = open(self.path, "wb")  # noqa: SIM115 (closed by `close`)
        self._records = records(self._file)
        step = purge_step or 0
        self._write(step=step, file_version="brain.Event:2")
        if purge_step is not None:
            self._write(step=step, session_log=self._events.SessionLog(status=self._events.SessionLog.START))
        self.flush()

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """A point of each curve, which is in the file when this returns."""
        for name, value in values.items():
            self._write(step=step, summary=self._scalars(name, value))
        self.flush()

    def flush(self) -> None:
        """Everything is in the file when this returns."""
        with naming(self.path):
            self._file.flush()

    def close(self, *, failed: bool = False) -> None:
        del failed  # which an event file has no word for
        with naming(self.path):
            self._file.close()

    def _write(self, **content: object) -> None:
        event = self._events.Event(wall_time=time.time(), **content)
        with naming(self.path):
            self._records.write(event.SerializeToString())
