"""Where a run's numbers go: metrics.jsonl, its logger, train.log, and the terminal."""

from __future__ import annotations

import json
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from sslfast._extras import require
from sslfast._files import naming, write_text
from sslfast.train.bar import progress_bar
from sslfast.train.loggers import open_logger

LOGGER = logging.getLogger("sslfast")


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines after `step` and a last line that was cut off in the middle."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    write_text(path, "".join(kept))


class RunLog:
    """Writes a run's log; a context manager. With `enabled=False` (ranks other than 0) it does nothing.

    Args:
        run: the run's folder.
        total: steps of the whole run, for the progress bar.
        step: steps already done; what the files say beyond it is dropped, so that a resumed run is not logged twice.
        config: the run's configuration, as JSON values; its "logger" draws the curves, TensorBoard if it names none.
    """

    def __init__(
        self, run: Path, *, total: int, step: int = 0, enabled: bool = True, config: dict[str, Any] | None = None
    ) -> None:
        self.run, self.total, self.step, self.enabled, self.config = run, total, step, enabled, config or {}
        self._path = run / "metrics.jsonl"

    def __enter__(self) -> RunLog:
        if not self.enabled:
            return self
        truncate_metrics(self._path, self.step)
        console = require("rich.console", extra="train").Console(stderr=True)
        with ExitStack() as opened:  # if one of the files cannot be written, the others are closed
            self._metrics = open(self._path, "a", buffering=1, encoding="utf-8")
            opened.callback(self._metrics.close)
            file = _FileHandler(self.run / "train.log", encoding="utf-8", errors="replace")
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            for handler in (file, _ConsoleHandler(console)):
                LOGGER.addHandler(handler)
                opened.callback(handler.close)
                opened.callback(LOGGER.removeHandler, handler)
            name = self.config.get("logger", "tensorboard")
            self._logger = open_logger(name, self.run, config=self.config, step=self.step)
            self._opened = opened.pop_all()
        self._level = LOGGER.level
        LOGGER.setLevel(logging.INFO)
        self._bar = progress_bar(console, self.total, self.step)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.enabled:
            return
        if self._bar:
            self._bar.stop()
        try:
            with self._opened:
                self._logger.close(failed=error is not None)
        except OSError:
            if error is None:  # else what is left in a buffer has the same trouble, and less to say
                raise
        finally:
            LOGGER.setLevel(self._level)

    def advance(self, step: int) -> None:
        """Move the progress bar to `step`."""
        if self.enabled and self._bar:
            self._bar.advance(step)

    def metrics(self, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl and the same scalars for the logger; `values` has "step"."""
        if not self.enabled:
            return
        with naming(self._path):
            self._metrics.write(json.dumps(values) + "\n")
        self._logger.metrics({name: value for name, value in values.items() if name != "step"}, values["step"])

    def progress(self, text: str, brief: str) -> None:
        """What the last steps were like: a line, or on a terminal, in brief, beside the progress bar."""
        if not self.enabled:
            return
        if self._bar:
            self._bar.status(brief)
        LOGGER.info(text, extra={"on_bar": self._bar is not None})

    def info(self, text: str) -> None:
        """A line for train.log and the terminal."""
        if self.enabled:
            LOGGER.info(text)

    def warning(self, text: str) -> None:
        """The same, as a warning."""
        if self.enabled:
            LOGGER.warning(text)

    def flush(self) -> None:
        """Everything logged so far is on the disk when this returns; called before a checkpoint is written."""
        if self.enabled:
            with naming(self._path):
                self._metrics.flush()
                os.fsync(self._metrics.fileno())
            self._logger.flush()


class _FileHandler(logging.FileHandler):
    """Raises what goes wrong, where logging's prints it and goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        with naming(Path(self.baseFilename)):
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:
        raise


class _ConsoleHandler(logging.Handler):
    """Prints above the progress bar; what the bar shows already is left to it."""

    def __init__(self, console: Any) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "on_bar", False):
            return
        prefix = "warning: " if record.levelno >= logging.WARNING else ""
        self.console.print(prefix + record.getMessage(), markup=False, highlight=False, soft_wrap=True)
