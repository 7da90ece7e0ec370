"""RUN/results.json: one entry a protocol."""

from __future__ import annotations

import fcntl
import json
import re
from pathlib import Path
from typing import Any

from sslfast._files import write_text

FILE = "results.json"
LOCK = ".results.lock"


def read_results(run: str | Path) -> dict[str, dict[str, Any]]:
    """All results of a run, by protocol; empty if there are none yet.

    Raises:
        ValueError: the file is damaged.
    """
    path = Path(run) / FILE
    if not path.exists():
        return {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it and evaluate again") from error
    if not isinstance(results, dict) or not all(isinstance(entry, dict) for entry in results.values()):
        raise ValueError(f"{path} does not hold results by protocol; remove it and evaluate again")
    return results


def merge_result(run: str | Path, name: str, result: dict[str, Any]) -> Path:
    """Set one protocol's entry of RUN/results.json and keep the others; returns the file.

    Two processes may do so at the same time, and whoever reads sees the old file or the new one, never half of one.

    Raises:
        ValueError: the file there is damaged (it is left alone), or `result` holds what JSON does not have.
    """
    run = Path(run)
    with open(run / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        text = json.dumps({**read_results(run), name: result}, indent=2, allow_nan=False)
        # A row of numbers stays on one line.
        text = re.sub(r"\[[\s\d.,eE+-]+\]", lambda row: re.sub(r"\s+", " ", row[0]), text)
        write_text(run / FILE, text + "\n")
    return run / FILE
