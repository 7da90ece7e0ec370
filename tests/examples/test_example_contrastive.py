from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SHORT = {"simclr": ["--learning-rate", "0.1"], "moco": ["--queue", "256", "--learning-rate", "0.1", "--bn-splits", "4"]}


def run(name: str, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    command = [sys.executable, *launcher, str(EXAMPLES / f"{name}.py"), "--data", "digits", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


def results(done: subprocess.CompletedProcess) -> tuple[list[float], float]:
    """Losses, an epoch each, and the kNN accuracy in percent."""
    assert done.returncode == 0, done.stderr
    (accuracy,) = re.findall(r"kNN accuracy (\S+)%", done.stdout)  # one process speaks for all
    return [float(loss) for loss in re.findall(r"loss (\S+)", done.stdout)], float(accuracy)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_script_trains_on_the_digits(name: str, tmp_path: Path) -> None:
    options = [*SHORT[name], "--epochs", "1", "--batch-size", "128", "--output", str(tmp_path / "backbone.pt")]
    losses, accuracy = results(run(name, *options))
    assert len(losses) == 1
    assert losses[0] < 5.52  # log(2 · 128 - 1) without a clue; MoCo's queue of 256 starts with easy negatives
    assert accuracy > 60
    assert torch.load(tmp_path / "backbone.pt")["conv1.weight"].shape == (64, 1, 3, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_script_trains_in_two_processes(name: str) -> None:
    losses, accuracy = results(run(name, *SHORT[name], "--epochs", "1", "--batch-size", "256", launcher=(*TORCHRUN,)))
    assert len(losses) == 1
    assert accuracy > 50


@pytest.mark.parametrize("name", SHORT)
def test_script_is_short_and_names_a_wrong_batch(name: str) -> None:
    assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 200
    done = run(name, "--batch-size", "2000")
    assert done.returncode == 1
    assert "--batch-size must be at most 1437, the images, got 2000" in done.stderr
