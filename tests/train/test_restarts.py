from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import dying
import pytest
from toys import TINY, assert_same, flags

from sslfast.checkpoint import CHECKPOINT, load_checkpoint

CONFIG = dataclasses.replace(TINY, batch_size=128, epochs=3, checkpoint_every=2)  # 15 steps


@pytest.mark.long
def test_torchrun_begins_dead_ranks_again_and_the_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for name, steps in (("whole", ""), ("run", "3,9")):
        command = ["pretrain", "simclr", *flags(CONFIG), "--output", str(tmp_path / name), "--resume", "auto"]
        done = subprocess.run(
            [*torchrun, "--max-restarts", "2", dying.__file__, str(tmp_path), steps, *command],
            env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert [(tmp_path / step).exists() for step in ("3", "9")] == [True, True]
    assert_same(*(load_checkpoint(tmp_path / name / CHECKPOINT) for name in ("whole", "run")))
    weights = [(tmp_path / name / "exported" / "backbone.safetensors").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]
