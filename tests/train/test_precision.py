"""`precision` bf16-true: trained weights in bfloat16, everything that small updates would be lost of in float32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small import shrink, small_config
from toys import assert_resumes_exactly

from sslfast.checkpoint import CHECKPOINT, load_checkpoint
from sslfast.evaluate import Run
from sslfast.methods import METHODS
from sslfast.train import pretrain
from sslfast.train.launch import launch
from sslfast.train.loop import Training


def losses(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("name", METHODS)
def test_bf16_true_trains_and_resumes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)
    config = small_config(name, tmp_path, precision="bf16-true", log_every=1, knn_every=2)
    assert_resumes_exactly(config, tmp_path, step=5)
    run = tmp_path / "whole"

    method = Training(launch(config), config, tmp_path / "new").method
    trained = {key for key, parameter in method.named_parameters() if parameter.requires_grad and parameter.ndim >= 2}
    state = load_checkpoint(run / CHECKPOINT)
    for key, tensor in state["method"].items():
        if tensor.is_floating_point():
            assert tensor.dtype == (torch.bfloat16 if key in trained else torch.float32), key
            assert tensor.isfinite().all(), key
    assert trained

    # What is exported is float32 to whoever reads it, and what is evaluated.
    backbone = Run(run).backbone()
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    assert state["knn_accuracy"] is not None

    mixed = tmp_path / "mixed"
    pretrain(small_config(name, tmp_path, precision="bf16-mixed", log_every=1), mixed)
    assert losses(run)[0] == pytest.approx(losses(mixed)[0], rel=0.05, abs=0.02)
