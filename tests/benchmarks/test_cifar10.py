"""The table of all methods: trained and judged once, timed, and gone on with where it was stopped."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import cifar10

SCRIPT = Path(cifar10.__file__)
ROW = {
    **dict.fromkeys(cifar10.COLUMNS, "50.00"), "recipe": "simclr-cifar10-cpu", "method": "simclr", "seed": "0",
    "backbone": "resnet20", "epochs": "7", "cpu_minutes": "12.3", "linear": "55.46", "commit": "abc",
}  # fmt: skip


@pytest.mark.long
def test_a_recipe_becomes_a_run_and_a_row_once(tmp_path: Path) -> None:
    command = [sys.executable, SCRIPT, "--only", "simclr", "--data", "digits", "--output", tmp_path / "runs"]
    command += ["--results", tmp_path / "digits.csv", "--", "--epochs", "1", "--knn-every", "0"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (row,) = cifar10.read(tmp_path / "digits.csv")
    run = tmp_path / "runs" / "simclr"
    results = json.loads((run / "results.json").read_text())
    assert row["recipe"] == row["method"] == "simclr"
    assert (row["data"], row["epochs"], row["batch"], row["threads"]) == ("digits", "1", "256", "1")
    for protocol in ("linear", "knn"):
        assert float(row[protocol]) == pytest.approx(100 * results[protocol]["accuracy"], abs=0.01)
        random = 100 * results[protocol]["baselines"]["random_init"]
        assert float(row[f"{protocol}_random"]) == pytest.approx(random, abs=0.01)
    cost = json.loads((run / "cost.json").read_text())
    assert 1 < cost["cpu_seconds"] < 300
    assert float(row["cpu_minutes"]) == pytest.approx(cost["cpu_seconds"] / 60, abs=0.051)
    assert cifar10.recorded([row], "simclr", 0, run)

    for name in ("same", "other"):
        shutil.copytree(run, run.with_name(name))
        (run.with_name(name) / "results.json").unlink()
    config = (run.with_name("other") / "config.json").read_text()
    (run.with_name("other") / "config.json").write_text(config.replace('"seed": 0', '"seed": 1'))
    for name, source in (("other", None), ("same", str(run))):
        cifar10.judge(run.with_name(name), environment)
        again = json.loads((run.with_name(name) / "results.json").read_text())["knn"]
        assert again["accuracy"] == results["knn"]["accuracy"]
        assert again.get("baselines_from") == source

    (run / "results.json").write_text(json.dumps({**results, "knn": {**results["knn"], "limit": 50, "accuracy": 0}}))
    cifar10.judge(run, environment)
    assert json.loads((run / "results.json").read_text())["knn"]["accuracy"] == results["knn"]["accuracy"]
    options = ["--data", "digits", "--seed", "0", "--epochs", "1", "--knn-every", "0"]
    assert cifar10.other_options("simclr", run, [*options, "--workers", "0"]) == ""
    assert cifar10.other_options("simclr", run, [*options, "--momentum", "0.5"]) == "momentum: 0.9 -> 0.5"
    refused = subprocess.run([*command, "--epochs", "3"], env=environment, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "epochs: 1 -> 3" in refused.stderr


def fake_pretrain(monkeypatch: pytest.MonkeyPatch, codes: list[int]) -> list[list[str]]:
    """Stand-ins for the training processes: each takes a second of CPU, leaves what a run would, ends with its code."""
    started: list[list[str]] = []
    clock = iter(range(100))

    def call(command: list[str], env: dict[str, str]) -> int:
        started.append(command)
        folder = Path(command[command.index("--output") + 1])
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text('{"method": "simclr", "data": "", "backbone": "", "seed": 0, "epochs": 1}')
        (folder / "checkpoints" / "last.ckpt").touch()
        return codes.pop(0)

    monkeypatch.setattr(cifar10.subprocess, "call", call)
    monkeypatch.setattr(cifar10, "children", lambda: float(next(clock)))
    return started


def test_the_time_of_an_interrupted_run_is_summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    started = fake_pretrain(monkeypatch, [130, 0])
    with pytest.raises(subprocess.CalledProcessError):
        cifar10.train("simclr", run, ["--data", "digits"], {}, again=False)
    cifar10.train("simclr", run, ["--data", "digits"], {}, again=False)
    assert "--resume" not in started[0]
    assert started[1][-1] == "--resume"
    assert json.loads((run / "cost.json").read_text())["cpu_seconds"] == 2


def test_the_time_of_a_run_before_is_not_that_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pretrain(monkeypatch, [0])
    cifar10.train("simclr", tmp_path, [], {}, again=False)

    def killed(command: list[str], env: dict[str, str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cifar10.subprocess, "call", killed)
    with pytest.raises(KeyboardInterrupt):
        cifar10.train("simclr", tmp_path, [], {}, again=True)
    assert not (tmp_path / "cost.json").exists()


def test_the_time_of_a_killed_run_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    fake_pretrain(monkeypatch, [137, 0, 0])
    with pytest.raises(subprocess.CalledProcessError):
        cifar10.train("simclr", run, [], {}, again=False)
    (run / "cost.json").unlink()  # as if this process had been killed too
    cifar10.train("simclr", run, [], {}, again=False)
    assert not (run / "cost.json").exists()
    cifar10.train("simclr", run, [], {}, again=True)
    assert json.loads((run / "cost.json").read_text())["cpu_seconds"] == 1


def test_rows_belong_to_a_recipe_a_seed_and_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "head", lambda: "abc")
    assert cifar10.recorded([ROW], "simclr-cifar10-cpu", 0, tmp_path)
    assert not cifar10.recorded([ROW], "simclr-cifar10-cpu", 1, tmp_path)
    assert not cifar10.recorded([ROW], "moco-cifar10-cpu", 0, tmp_path)
    (tmp_path / "environment.json").write_text('{"commit": "def0123456789"}')  # what is there was trained by another
    assert not cifar10.recorded([ROW], "simclr-cifar10-cpu", 0, tmp_path)


def test_rows_are_appended_under_one_header(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.csv"
    for seed in "01":
        cifar10.append(path, ROW | {"seed": seed})
    with open(path, newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1"]
    assert cifar10.read(tmp_path / "none.csv") == []


def test_the_table_has_the_last_row_of_each_and_what_was_published() -> None:
    text = cifar10.table([ROW | {"linear": "11.00"}, ROW, ROW | {"seed": "1", "cpu_minutes": ""}])
    lines = text.splitlines()
    assert lines[2].startswith("| simclr-cifar10-cpu | resnet20 | 7 | 12.3 | **55.5** | 50.0 | 50.0 | **50.0** |")
    assert lines[3].startswith("| simclr-cifar10-cpu (seed 1) | resnet20 | 7 | ? |")
    assert "11.0" not in text
    assert "84.8 (200 epochs)" in text
    assert "byol" not in text
