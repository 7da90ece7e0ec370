from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import TINY, assert_same, flags, interrupt_at, toy_config, training

from sslfast.checkpoint import load_checkpoint, save_checkpoint
from sslfast.data import FolderImages, folder
from sslfast.train import pretrain
from sslfast.train.folder import write_config
from sslfast.train.stop import StopRequest

# Two epochs of 22 steps; LARS and a learnable temperature have the most state to lose.
CONFIG = dataclasses.replace(
    TINY, optimizer="lars", learnable_temperature=True, checkpoint_every=4, log_every=3, knn_every=1
)


def start(config: object, run: Path, *options: str) -> subprocess.Popen:
    """`sslfast pretrain` in a process of its own, with every field of `config` as a flag."""
    command = [sys.executable, "-m", "sslfast", "pretrain", "simclr", *flags(config), "--output", str(run), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(run: Path) -> list[dict[str, float]]:
    path = run / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def wait_for_step(process: subprocess.Popen, run: Path, step: int) -> None:
    while not any(line["step"] >= step for line in lines(run)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)


def test_killed_and_interrupted_run_has_the_bits_of_an_uninterrupted_one(tmp_path: Path) -> None:
    broken, whole = tmp_path / "broken", tmp_path / "whole"

    process = start(CONFIG, broken)
    wait_for_step(process, broken, 6)
    process.send_signal(signal.SIGINT)
    _, words = process.communicate()
    assert process.returncode == 130
    assert words.splitlines()[-1].endswith(f"continue with: sslfast pretrain --resume {broken}")
    state = load_checkpoint(broken / "checkpoints" / "last.ckpt")
    assert 6 <= state["step"] < 22  # in the middle of the first epoch
    assert f"stopped after step {state['step']} of 44" in words

    process = start(CONFIG, broken, "--resume")
    wait_for_step(process, broken, 27)
    process.kill()
    process.communicate()
    state = load_checkpoint(broken / "checkpoints" / "last.ckpt")
    assert 0 < state["position"] < 22  # in the middle of the second
    assert state["epoch"] == 1

    again = pretrain(CONFIG, broken, resume=True)
    once = pretrain(CONFIG, whole)
    assert again.knn_accuracy == once.knn_accuracy
    states = [load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (broken, whole)]
    assert_same(*states)
    logs = [[{**line, "examples_per_second": None} for line in lines(run)] for run in (broken, whole)]
    assert logs[0] == logs[1]
    files = [(run / "exported" / "backbone.safetensors").read_bytes() for run in (broken, whole)]
    assert files[0] == files[1]


def test_files_streamed_by_workers_resume_in_the_middle_of_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    draw = np.random.default_rng(0)
    for k in range(48):
        path = tmp_path / "images" / "train" / f"class{k % 2}" / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)).save(path)
    shutil.copytree(tmp_path / "images" / "train", tmp_path / "images" / "test")
    config = dataclasses.replace(
        TINY, data=f"folder:{tmp_path / 'images'}", preset="simclr", image_size=16, batch_size=8, workers=2, log_every=1
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    pretrain(config, whole)
    broken.mkdir()
    interrupted = training(config, broken)
    assert isinstance(interrupted.train_set, FolderImages)
    interrupt_at(interrupted, step=8)  # of 12, 6 an epoch
    pretrain(config, broken, resume=True)
    assert_same(*(load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (whole, broken)))


@pytest.mark.usefixtures("toy")
def test_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    config = toy_config()
    pretrain(config, tmp_path)
    before = (tmp_path / "config.json").read_text()
    other = dataclasses.replace(config, seed=3, batch_size=32, log_every=7)
    with pytest.raises(ValueError, match=r"another configuration: batch_size: 64 -> 32; seed: 0 -> 3$"):
        pretrain(other, tmp_path, resume=True)
    assert (tmp_path / "config.json").read_text() == before
    with pytest.raises(ValueError, match="resume"):
        pretrain(config, tmp_path, resume=True, overwrite=True)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("keep", "kept"), [(1, [66]), (3, [31, 44, 66]), ("every", [0, 22, 31, 44, 66])])
def test_as_many_checkpoints_are_kept_as_asked_for(keep: int | str, kept: list[int], tmp_path: Path) -> None:
    """Of three epochs, and of an interruption in the second."""
    config = toy_config(epochs=3, keep_checkpoints=keep)
    interrupt_at(training(config, tmp_path), 30)
    pretrain(config, tmp_path, resume=True)
    assert sorted(load_checkpoint(path)["step"] for path in (tmp_path / "checkpoints").iterdir()) == kept


@pytest.mark.usefixtures("toy")
def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tmp_path: Path) -> None:
    pretrain(toy_config(), tmp_path)
    before = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    assert pretrain(toy_config(log_every=7), tmp_path, resume=True).steps == 22  # log_every may change
    assert_same(load_checkpoint(tmp_path / "checkpoints" / "last.ckpt"), before)


@pytest.mark.usefixtures("toy")
def test_a_checkpoint_that_is_older_than_a_field_is_resumed(tmp_path: Path) -> None:
    pretrain(toy_config(), tmp_path)
    state = load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")
    for name in ("compile", "keep_checkpoints", "deterministic"):
        del state["config"][name]
    save_checkpoint(tmp_path / "checkpoints" / "last.ckpt", state)
    write_config(tmp_path, state["config"])
    with pytest.raises(FileExistsError, match="a finished run of these settings"):
        pretrain(toy_config(), tmp_path)
    with pytest.raises(ValueError, match=r"another configuration: compile: False -> True$"):
        pretrain(toy_config(compile=True), tmp_path, resume=True)
    assert pretrain(toy_config(), tmp_path, resume=True).steps == 22


@pytest.mark.usefixtures("toy")
def test_nothing_to_resume_and_a_damaged_checkpoint_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint to resume from"):
        pretrain(toy_config(), tmp_path / "run", resume=True)
    pretrain(toy_config(), tmp_path / "run")
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged"):
        pretrain(toy_config(), tmp_path / "run", resume=True)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_saves(number: int, tmp_path: Path) -> None:
    interrupt_at(training(toy_config(), tmp_path), 7, number)
    assert load_checkpoint(tmp_path / "checkpoints" / "last.ckpt")["step"] == 8


def test_a_second_signal_acts_as_always() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore it
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
