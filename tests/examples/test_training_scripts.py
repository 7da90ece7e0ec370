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
# Options with which a few epochs of the digits are telling.
SCRIPTS = {
    "simclr": ["--epochs", "1", "--learning-rate", "0.1"],
    "moco": ["--epochs", "1", "--learning-rate", "0.1", "--queue", "256", "--bn-splits", "4"],
    "byol": ["--epochs", "1"],
    "simsiam": ["--epochs", "1"],
    "mae": ["--epochs", "2", "--learning-rate", "4e-3", "--warmup-epochs", "0.4", "--width", "64", "--depth", "2",
            "--decoder-width", "32", "--decoder-depth", "1"],
}  # fmt: skip


def run(name: str, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher, str(EXAMPLES / f"{name}.py"), "--data", "digits", *SCRIPTS[name], *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)


def check_learned(name: str, done: subprocess.CompletedProcess) -> None:
    """MAE by its loss, the others by a vote of neighbours; one process speaks for all."""
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"epoch \d/\d: loss (-?[\d.]+)", done.stdout)]
    (accuracy,) = re.findall(r"kNN accuracy (\S+)%", done.stdout)
    if name == "mae":
        first, last = losses
        assert last < 0.95 * first
    else:
        assert len(losses) == 1
        assert float(accuracy) > 50  # of ten classes


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_learns_the_digits_and_writes_its_network(name: str, tmp_path: Path) -> None:
    weights = tmp_path / "backbone.pt"
    check_learned(name, run(name, "--batch-size", "128", "--output", str(weights)))
    assert all(tensor.isfinite().all() for tensor in torch.load(weights).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_trains_in_two_processes(name: str) -> None:
    check_learned(name, run(name, "--batch-size", "256", launcher=TORCHRUN))


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_short_and_names_a_wrong_batch(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 200
    done = run(name, "--batch-size", "2000")
    assert done.returncode == 1
    assert re.search(r"--batch-size must be at most \d+, the images, got 2000", done.stderr)
