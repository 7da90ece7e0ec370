from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "mae.py"
TINY = ["--data", "digits", "--batch-size", "256", "--lr", "4e-3", "--warmup-epochs", "0.4"]
TINY += ["--width", "64", "--depth", "2", "--decoder-width", "32", "--decoder-depth", "1"]


def output(*command: str | Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


def losses(text: str) -> list[float]:
    assert re.search(r"kNN accuracy \d+\.\d+%", text)
    return [float(loss) for loss in re.findall(r"epoch \d+: loss (\S+),", text)]


def test_it_learns_the_digits() -> None:
    first, second = losses(output(sys.executable, SCRIPT, *TINY, "--epochs", "2"))
    assert second < 0.95 * first


@pytest.mark.slow
def test_two_processes_divide_the_batch() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    first, second = losses(output(*torchrun, SCRIPT, *TINY, "--epochs", "2"))
    assert second < 0.95 * first
