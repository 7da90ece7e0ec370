from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
# Options that make an epoch of the digits telling, and the least kNN accuracy in percent after it.
SCRIPTS = {
    "simclr": (["--learning-rate", "0.1"], 60),
    "moco": (["--learning-rate", "0.1", "--queue", "256", "--bn-splits", "4"], 60),
    "byol": ([], 60),
    "simsiam": ([], 60),
    "mae": (["--learning-rate", "4e-3", "--warmup-epochs", "0.4", "--width", "64", "--depth", "2",
             "--decoder-width", "32", "--decoder-depth", "1"], 30),
}  # fmt: skip


def run(name: str, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher, str(EXAMPLES / f"{name}.py"), "--data", "digits", *SCRIPTS[name][0], *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


def results(done: subprocess.CompletedProcess) -> tuple[float, float]:
    """The loss of the only epoch, and the kNN accuracy in percent; one process speaks for all."""
    assert done.returncode == 0, done.stderr
    (loss,) = re.findall(r"epoch 1/1: loss (-?[\d.]+)", done.stdout)
    (accuracy,) = re.findall(r"kNN accuracy (\S+)%", done.stdout)
    return float(loss), float(accuracy)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_learns_the_digits_and_writes_its_network(name: str, tmp_path: Path) -> None:
    weights = tmp_path / "backbone.pt"
    loss, accuracy = results(run(name, "--epochs", "1", "--batch-size", "128", "--output", str(weights)))
    assert loss == loss
    assert accuracy > SCRIPTS[name][1]
    assert all(tensor.isfinite().all() for tensor in torch.load(weights).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_trains_in_two_processes(name: str) -> None:
    _, accuracy = results(run(name, "--epochs", "1", "--batch-size", "256", launcher=TORCHRUN))
    assert accuracy > SCRIPTS[name][1] - 10


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_short_and_names_a_wrong_batch(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 200
    done = run(name, "--batch-size", "2000")
    assert done.returncode == 1
    assert re.search(r"--batch-size must be at most \d+, the images, got 2000", done.stderr)
