"""What loggers that may be on another machine have in common: they begin or say why not, and fail without harm."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sslfast._files import write_text

LOGGER = logging.getLogger("sslfast")
FILE = "logger.json"  # in the run folder: the logger's name and its id of the run


class Service:
    """A logger whose failures end no training: the first one is a warning, and so is the end; nothing follows it.

    Args:
        name: what it is called.
        begin: makes the logger from the run's folder, its configuration and the id of the run to go on in, if any.
        run: the run folder, where the id is kept.
        config: what the logger shows beside the curves.
        resumed: whether to go on in the run that is there.

    Raises:
        ValueError: it cannot begin.
    """

    def __init__(
        self, name: str, begin: Callable[..., Any], run: Path, *, config: dict[str, Any], resumed: bool
    ) -> None:
        self.name, self.failed = name, ""
        known = _read(run / FILE) if resumed else {}
        try:
            self._logger = begin(run, config, known.get(name))
        except Exception as error:  # these packages raise what they like
            raise ValueError(f"logger {name} cannot begin: {_words(error)}") from error
        write_text(run / FILE, json.dumps({**known, name: self._logger.id}) + "\n")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._try(lambda: self._logger.metrics(values, step), step)

    def flush(self) -> None:
        """They send by themselves."""

    def close(self, *, failed: bool) -> None:
        self._try(lambda: self._logger.close(failed=failed), None)
        if self.failed:
            LOGGER.warning("logger %s is not complete (%s); metrics.jsonl is", self.name, self.failed)

    def _try(self, call: Callable[[], None], step: int | None) -> None:
        if self.failed:
            return
        try:
            call()
        except Exception as error:
            self.failed = f"at step {step}: {_words(error)}" if step else f"at its end: {_words(error)}"
            LOGGER.warning("logger %s failed %s; training goes on without it", self.name, self.failed)


def _read(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}); remove it to go on in a new run of the logger") from error


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
