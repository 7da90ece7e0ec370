"""Loggers of other packages: what they are given, one record for a resumed run, and what is said of trouble."""

from __future__ import annotations

import importlib.machinery
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sslfast.cli import main
from sslfast.train.log import RunLog


class StandIn(ModuleType):
    """Weights & Biases as far as it is used here."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__("wandb")
        self.begun: list[dict[str, Any]] = []
        self.points: list[tuple[int, dict[str, float]]] = []
        self.ends: list[int] = []
        self.broken = broken

    def Settings(self, **settings: Any) -> dict[str, Any]:
        return settings

    def init(self, **options: Any) -> SimpleNamespace:
        self.begun.append(options)
        return SimpleNamespace(log=self.log, finish=lambda exit_code: self.ends.append(exit_code))

    def log(self, values: dict[str, float], step: int) -> None:
        if self.broken:
            raise RuntimeError("no space\nleft")
        self.points.append((step, values))


def write(run: Path, logger: str, steps: tuple[int, ...], *, done: int = 0) -> None:
    with RunLog(run, total=4, step=done, config={"logger": logger, "epochs": 2}) as log:
        for step in steps:
            log.metrics({"step": step, "loss": 1.0 / step})


def test_what_a_logger_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    write(tmp_path, "wandb", (1, 2))
    write(tmp_path, "wandb", (3,), done=2)
    first, second = wandb.begun
    assert first["config"] == {"logger": "wandb", "epochs": 2}
    assert (first["name"], first["dir"]) == (tmp_path.name, str(tmp_path))
    assert first["id"] == second["id"] == json.loads((tmp_path / "logger.json").read_text())["wandb"]
    assert wandb.points == [(step, {"loss": 1.0 / step}) for step in (1, 2, 3)]
    assert wandb.ends == [0, 0]
    with pytest.raises(KeyError), RunLog(tmp_path, total=4, config={"logger": "wandb"}):
        raise KeyError("of the training")
    assert wandb.ends == [0, 0, 1]
    assert wandb.begun[2]["id"] != first["id"]  # a run that begins again has a record of its own


def test_a_logger_that_fails_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", StandIn(broken=True))
    write(tmp_path, "wandb", (1, 2, 3))
    said = "warning: logger wandb failed at step 1: no space left; training goes on without it\n"
    assert capsys.readouterr().err.count(said) == 1
    assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 3


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
@pytest.mark.parametrize("there", [False, True], ids=["nothing", "folder"])
def test_a_missing_package_is_named(
    name: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if there:  # a folder of that name, as wandb leaves one where it was used, is no package
        folder = ModuleType(name)
        folder.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        monkeypatch.setitem(sys.modules, name, folder)
    else:
        monkeypatch.setitem(sys.modules, name, None)
    command = ["pretrain", "simclr", "--data", "digits", "--logger", name, "--output", str(tmp_path / "run")]
    assert main(command) == 2
    assert capsys.readouterr().err == f"sslfast: error: logger {name} needs the package {name!r}: pip install {name}\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.long  # needs the extra `loggers`, 160 MB, which only `make test-long` installs
def test_wandb_offline_keeps_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    write(tmp_path, "wandb", (1, 2))
    write(tmp_path, "wandb", (3,), done=2)
    name = json.loads((tmp_path / "logger.json").read_text())["wandb"]
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert [file.name for file in files] == [f"run-{name}.wandb"] * 2
    assert all(b"loss" in file.read_bytes() for file in files)


@pytest.mark.long  # as above
def test_mlflow_offline_keeps_one_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "run").mkdir()
    write(tmp_path / "run", "mlflow", (1, 2, 3))
    write(tmp_path / "run", "mlflow", (3, 4), done=2)
    import mlflow

    client = mlflow.MlflowClient()
    found = client.get_run(json.loads((tmp_path / "run" / "logger.json").read_text())["mlflow"])
    assert found.data.params["epochs"] == "2"
    assert found.info.status == "FINISHED"
    assert [point.step for point in client.get_metric_history(found.info.run_id, "loss")] == [1, 2, 3, 4]
