"""The progress bar: rich's on a terminal, a picture below the cell in a notebook, none anywhere else."""

from __future__ import annotations

import html
import time
from typing import Any

from sslfast._extras import require

OFTEN = 0.2  # seconds between two pictures of a notebook's bar


class TerminalBar:
    """Steps done of `total`, on a terminal, below what is logged."""

    def __init__(self, console: Any, total: int, step: int) -> None:
        rich = require("rich.progress", extra="train")
        columns = [
            rich.TextColumn("{task.description}"),
            rich.BarColumn(),
            rich.MofNCompleteColumn(),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[status]}"),
        ]
        self._bar = rich.Progress(*columns, console=console)
        self._task = self._bar.add_task("step", total=total, completed=step, status="")
        self._bar.start()

    def advance(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def status(self, text: str) -> None:
        self._bar.update(self._task, status=text)

    def stop(self) -> None:
        self._bar.stop()


class NotebookBar:
    """The same in a notebook, which draws HTML; it needs no widgets."""

    def __init__(self, total: int, step: int) -> None:
        self._display = require("IPython.display", extra="train")
        self.total, self.step, self.text = total, step, ""
        self._drawn = time.monotonic()
        self._handle = self._display.display(self._picture(), display_id=True)

    def advance(self, step: int) -> None:
        self.step = step
        if step == self.total or time.monotonic() - self._drawn > OFTEN:
            self._draw()

    def status(self, text: str) -> None:
        self.text = text

    def stop(self) -> None:
        self._draw()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        self._handle.update(self._picture())

    def _picture(self) -> Any:
        bar = f'<progress value="{self.step}" max="{self.total}" style="width: 20em"></progress>'
        return self._display.HTML(f"step {bar} {self.step}/{self.total} {html.escape(self.text)}")


def progress_bar(console: Any, total: int, step: int) -> TerminalBar | NotebookBar | None:
    """The bar that suits where `console` writes to; `step` steps are done already."""
    if console.is_jupyter:
        return NotebookBar(total, step)
    return TerminalBar(console, total, step) if console.is_terminal else None
