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
# Options for one epoch of the digits, or two, with which MAE's loss falls.
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


def train(name: str, folder: Path, *options: str, launcher: tuple[str, ...] = ()) -> None:
    """Run a script and look at the network that it writes; one process speaks for all."""
    path = folder / "backbone.pt"
    done = run(name, "--output", str(path), *options, launcher=launcher)
    assert done.returncode == 0, done.stderr
    losses = [float(loss) for loss in re.findall(r"epoch \d/\d: loss (-?[\d.]+)", done.stdout)]
    assert len(losses) == int(SCRIPTS[name][1])
    if name == "mae":
        assert losses[1] < 0.95 * losses[0]
    assert re.search(r"kNN accuracy \d+\.\d+%", done.stdout)
    weights = torch.load(path)
    assert all(tensor.isfinite().all() for tensor in weights.values())
    # The scales of all norms begin as ones, and weight decay leaves them equal: gradients have reached every layer.
    scales = [tensor for key, tensor in weights.items() if key.endswith("weight") and tensor.dim() == 1]
    assert scales
    assert all(scale.std() > 0 for scale in scales)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.long) if name in ("byol", "moco", "simsiam") else name for name in SCRIPTS],
)
def test_script_trains_on_the_digits_and_writes_its_network(name: str, tmp_path: Path) -> None:
    train(name, tmp_path, "--batch-size", "128")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["simclr", *(pytest.param(name, marks=pytest.mark.long) for name in ("moco", "byol", "simsiam", "mae"))]
)
def test_script_trains_in_two_processes(name: str, tmp_path: Path) -> None:
    train(name, tmp_path, "--batch-size", "256", launcher=TORCHRUN)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_short_and_names_a_wrong_batch(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 200
    done = run(name, "--batch-size", "2000")
    assert done.returncode == 1
    assert re.search(r"--batch-size must be at most \d+, the images, got 2000", done.stderr)
