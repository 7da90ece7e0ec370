"""Several processes compute what one does with all their images."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import plain_views
import pytest
import torch
from toys import flags

from sslfast.augment.presets import PRESETS
from sslfast.checkpoint import load_checkpoint
from sslfast.config import ImageConfig
from sslfast.methods import MoCo, SimCLR
from sslfast.train import pretrain

# A network without BatchNorm, whose statistics are each process's own. 5 steps: rounding grows with every one.
PLAIN = {
    "data": "digits", "backbone": "test_vit", "image_size": 16, "preset": "plain", "epochs": 1, "batch_size": 256,
    "learning_rate": 0.2, "warmup_epochs": 0.2, "knn_every": 0, "accelerator": "cpu", "workers": 0,
}  # fmt: skip
CONFIGS = {
    "simclr": SimCLR.Config(**PLAIN, projection_layers=1, temperature=0.2),
    "moco": MoCo.Config(**PLAIN, queue_size=512, key_momentum=0.9),
}


def torchrun(config: ImageConfig, run: Path) -> dict[str, torch.Tensor]:
    """The state of the method after `sslfast pretrain` in two processes, each with half the batch."""
    half = dataclasses.replace(config, batch_size=config.batch_size // 2)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        *launcher,
        plain_views.__file__,
        "pretrain",
        config.method,
        *flags(half),
        "--output",
        str(run),
        "--download",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    state = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert (state["step"], len(state["rng"])) == (5, 2)
    return state["method"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param("simclr", marks=pytest.mark.long), "moco"])
def test_two_processes_train_as_one(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for preset, value in plain_views.PLAIN.items():
        monkeypatch.setitem(PRESETS, preset, value)
    config = CONFIGS[name]
    pretrain(config, tmp_path / "one")
    one = load_checkpoint(tmp_path / "one" / "checkpoints" / "last.ckpt")["method"]
    two = torchrun(config, tmp_path / "two")
    if name == "moco":  # a batch's keys come in the order of the ranks, which take every other image
        assert two["queue.pointer"] == one["queue.pointer"] == 256
        batches = one["queue.keys"].view(2, 128, 2, -1)
        one["queue.keys"] = batches.transpose(1, 2).reshape(512, -1)
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=2e-6, msg=lambda text, key=key: f"{key}: {text}")
