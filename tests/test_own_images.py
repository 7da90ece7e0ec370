"""A folder of one's own through every command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslfast.cli import main

QUICK = ["--image-size", "8", "--batch-size", "8", "--epochs", "1", "--warmup-epochs", "0", "--backbone", "resnet20",
         "--precision", "32", "--no-compile", "--accelerator", "cpu", "--workers", "0"]  # fmt: skip


def fill(root: Path, *folders: str, count: int = 12) -> None:
    rng = np.random.default_rng(0)
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(rng.integers(256, size=(9, 9, 3), dtype=np.uint8)).save(root / folder / f"{i}.png")


def run(*arguments: str) -> None:
    assert main(list(arguments)) == 0


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("sslfast: error: ")
    return error


def test_without_labels_all_images_are_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, "pictures/2021", "pictures/2022/05")
    monkeypatch.chdir(tmp_path)
    run("pretrain", "simclr", "--data", "folder:pictures", "--output", "run", *QUICK, "--knn-every", "1")
    assert capsys.readouterr().out.endswith("next      sslfast report run\n")
    log = (tmp_path / "run" / "train.log").read_text()
    assert "24 training images; no labels: kNN and what else needs labels is left out" in log
    assert "knn_accuracy" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert "has no labels" in refused(capsys, "evaluate", str(tmp_path / "run"), "--protocol", "knn")
    run("report", str(tmp_path / "run"))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Not shown" in page
    assert "sslfast evaluate" not in page  # without labels or a test split
    run("evaluate", str(tmp_path / "run"), "--protocol", "knn", "--data", "photos", "--limit", "50")


def test_every_command_finds_the_data_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "pictures", "cat", "dog")
    monkeypatch.chdir(tmp_path / "pictures")
    pretrain = ["pretrain", "simclr", *QUICK]
    run(*pretrain, "--data", "folder:.", "--output", "runs/one")
    run("evaluate", "runs/one", "--protocol", "knn", "linear")  # the run is no image
    run(*pretrain, "--data", "folder:.", "--output", "runs/one", "--resume")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    one = str(tmp_path / "pictures" / "runs" / "one")
    run("evaluate", one, "--protocol", "knn")
    run("report", one)
    run(*pretrain, "--data", f"folder:{tmp_path / 'pictures'}", "--output", one, "--resume")
    assert "Not shown: the images" not in Path(one, "report.html").read_text()
    assert json.loads(Path(one, "config.json").read_text())["data"] == f"folder:{tmp_path / 'pictures'}"
    assert f"did you mean folder:{tmp_path}?" in refused(capsys, *pretrain, "--data", str(tmp_path))


def test_names_in_any_letters_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = os.fsdecode(b"caf\xe9")  # Latin-1
    folder = tmp_path / odd
    fill(folder, "猫", "кот $x$", os.fsdecode(b"\xff<b>"))
    os.rename(folder / "猫" / "0.png", folder / "猫" / os.fsdecode(b"\xfe.png"))
    monkeypatch.chdir(tmp_path)
    options = ["--data", f"folder:{odd}", "--skip-corrupt"]
    (folder / "猫" / os.fsdecode(b"\xfd.png")).write_bytes(b"no image")
    run("pretrain", "simclr", *QUICK, *options, "--output", f"runs/{odd}")
    run("evaluate", f"runs/{odd}", "--protocol", "knn", "linear")
    run("report", f"runs/{odd}")
    run("compare", f"runs/{odd}", f"runs/{odd}", "--output", "a.csv", "a.md", "a.png")
    run("show-views", *options, "--output", "views.png")
    run("show-views", *options)
    assert "猫" in Path("runs", odd, "report.html").read_text(encoding="utf-8")
