"""Scripts of other libraries train to the same loss curve with the faces of sslfast."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def both_ways(name: str, *options: str) -> tuple[float, float]:
    """How much the loss falls, and how far apart the curves are."""
    command = [sys.executable, str(EXAMPLES / f"drop_in_{name}.py"), "--loss", "both", *options]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    first, last = map(float, re.search(r"sslfast: loss (\S+) -> (\S+)", done.stdout).groups())
    return first - last, float(re.search(r"at most (\S+) apart", done.stdout).group(1))


@pytest.mark.parametrize(
    ("name", "epochs", "falls", "apart"),
    [("ntxent", 2, 0.3, 1e-3), ("ranking", 3, 1, 1e-4), ("siglip", 2, 1, 1e-3), ("sup_con", 2, 0.3, 1e-3)],
)
def test_both_ways_give_the_same_loss_curve(name: str, epochs: int, falls: float, apart: float) -> None:
    found = both_ways(name, "--epochs", str(epochs))
    assert found[0] > falls
    assert found[1] < apart


@pytest.mark.long
@pytest.mark.parametrize("options", [(), ("--mini-batch-size", "16")], ids=["whole", "cached"])
def test_the_trainer_of_sentence_transformers_gives_the_same_loss_curve(options: tuple[str, ...]) -> None:
    """With --mini-batch-size both are the CachedMultipleNegativesRankingLoss, of batches of 64."""
    fallen, apart = both_ways("sentence_transformers", "--steps", "30", *options)
    assert fallen > 0.3
    assert apart < 1e-3
