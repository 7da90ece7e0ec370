"""Ctrl-C and SIGTERM as a wish to stop after the step that is running."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop; its checkpoint is written. `step` of `total` optimizer steps are done."""

    def __init__(self, step: int, total: int) -> None:
        super().__init__(f"stopped after step {step} of {total}; the checkpoint is written")
        self.step, self.total = step, total


class StopRequest:
    """A context in which the first SIGINT or SIGTERM sets `requested`, and a second one acts as always."""

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()
