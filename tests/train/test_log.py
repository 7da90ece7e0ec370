from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sslfast.train.log import RunLog, truncate_metrics


def steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def board(run: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_a_resumed_run_is_logged_once(tmp_path: Path) -> None:
    with RunLog(tmp_path, total=8) as log:
        for step in (1, 2, 3, 4):
            log.metrics({"step": step, "loss": float(step)})
        log.flush()
    with RunLog(tmp_path, total=8, step=2) as log:
        for step in (3, 4, 5):
            log.metrics({"step": step, "loss": 10.0 + step})
    assert steps(tmp_path) == [1, 2, 3, 4, 5]
    assert board(tmp_path, "loss") == [(1, 1), (2, 2), (3, 13), (4, 14), (5, 15)]


def test_a_line_cut_off_by_a_crash_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    truncate_metrics(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'


def test_lines_go_to_the_file_and_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with RunLog(tmp_path, total=8) as log:
        log.info("hello [bold]there[/bold]")
        log.progress("step 1", brief="1")
        log.warning("careful")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "hello [bold]there[/bold]\nstep 1\nwarning: careful\n"
    written = (tmp_path / "train.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in written] == [
        "INFO hello [bold]there[/bold]",
        "INFO step 1",
        "WARNING careful",
    ]
    assert logging.getLogger("sslfast").handlers == []


def test_a_disabled_log_writes_nothing(tmp_path: Path) -> None:
    with RunLog(tmp_path, total=8, enabled=False) as log:
        log.metrics({"step": 1})
        log.info("hello")
        log.progress("step 1", brief="1")
        log.advance(1)
        log.flush()
    assert list(tmp_path.iterdir()) == []
