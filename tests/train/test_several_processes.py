from __future__ import annotations

import copy
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toys import TINY, flags, training

from sslfast.checkpoint import load_checkpoint
from sslfast.data import batches, load_images
from sslfast.ops import nt_xent
from sslfast.train import pretrain
from sslfast.train.launch import epoch_order, view_generator

# One optimizer step of 2 processes x 700 images.
CONFIG = dataclasses.replace(
    TINY, epochs=1, batch_size=700, warmup_epochs=0, learning_rate=0.1, lr_scaling="none", momentum=0.0, log_every=1
)


@pytest.mark.slow
@pytest.mark.parametrize("passes", [pytest.param(1, marks=pytest.mark.long), 2])
def test_two_processes_contrast_the_images_of_both(passes: int, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, batch_size=700 // passes, accumulate=passes)
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*torchrun, "-m", "sslfast", "pretrain", "simclr", *flags(config), "--output", str(run)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("next ") == 1  # one process speaks for both
    assert f"effective batch 1400 = {700 // passes} x {passes} accumulated x 2 devices" in done.stderr

    state = load_checkpoint(run / "checkpoints" / "last.ckpt")
    assert state["step"] == 1
    assert len(state["rng"]) == 2
    assert not torch.equal(state["rng"][0]["views"], state["rng"][1]["views"])

    # The same step by hand: each pass through a copy of the network, whose BatchNorm sees it alone; one loss of all.
    start = training(config, tmp_path).method
    images = load_images("digits", "train")
    order = epoch_order(images, seed=0, epoch=0)
    copies, embeddings = [], []
    for rank in range(2):
        generator = view_generator(0, rank, torch.device("cpu"))
        for _, (_, pixels, _) in zip(range(passes), batches(images, config.batch_size, order=order[rank::2])):
            copies.append(copy.deepcopy(start))
            embeddings.append(copies[-1].embed(copies[-1].views(pixels, generator)))
    loss = nt_xent(*map(torch.cat, zip(*embeddings)), CONFIG.temperature)
    loss.backward()
    gradients = [{name: p.grad for name, p in method.named_parameters()} for method in copies]
    for name, parameter in start.named_parameters():
        decay = CONFIG.weight_decay if parameter.ndim > 1 else 0
        gradient = sum(found[name] for found in gradients) + decay * parameter.detach()
        torch.testing.assert_close(state["method"][name], parameter.detach() - 0.1 * gradient, rtol=1e-4, atol=1e-6)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1]
    assert lines[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)

    with pytest.raises(ValueError, match="processes: 2 -> 1"):
        pretrain(CONFIG, run, resume=True)
