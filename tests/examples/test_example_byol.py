from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "byol.py"
OPTIONS = ["--data", "digits", "--epochs", "2", "--batch-size", "128"]


def run(*command: str | Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_loss_falls_and_digits_are_found(processes: int) -> None:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    output = run(*start, SCRIPT, *OPTIONS)
    first, last = map(float, re.findall(r"loss (\S+)", output))
    assert last < first
    assert float(re.search(r"kNN accuracy (\S+)%", output).group(1)) > 50
