"""Every op is measured, by peers that all compute the same."""

from __future__ import annotations

import math

import pytest
import torch

from benchmarks import cases as c
from benchmarks.calls import GATE
from benchmarks.cases.momentum import parameter_shapes
from benchmarks.measure import Settings, gate
from benchmarks.peers import EXACT, PEERS, version
from sslfast import ops

NO_FUNCTIONS = {"PatchMask"}


def test_every_op_has_a_case_on_every_device():
    for device in ("cpu", "cuda"):
        measured = {name for case in c.CASES if case.device == device for name in (case.op, *case.covers)}
        assert set(ops.__all__) - NO_FUNCTIONS <= measured


def test_every_task_has_peers_a_gate_and_one_tiny_case():
    assert set(c.OPS) == set(PEERS) == set(EXACT)
    for op in c.OPS:
        assert {"eager", "sslfast"} <= set(PEERS[op])
        for device in ("cpu", "cuda"):
            assert sum(case.overhead for case in c.cases(op, device)) == 1
            names = [case.name for case in c.cases(op, device)]
            assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", c.CASES, ids=lambda case: f"{case.device} {case.op} {case.name}")
def test_work_is_counted(case):
    assert math.isfinite(case.bytes)
    assert case.bytes > 0
    assert case.flops >= 0
    softmax_and_sigmoid = ("nt_xent", "nt_xent_views", "info_nce", "clip_loss", "siglip_loss", "sup_con")
    assert (case.flops > 0) == (case.op in (*softmax_and_sigmoid, "patch_embed"))


def test_counts_by_hand():
    (ema,) = (case for case in c.cases("ema_update_", "cpu") if case.name == "ResNet-50 bfloat16")
    assert ema.bytes == 10 * 25_557_032
    assert c.nt_xent("cpu", 4, 3).flops == 4 * 16 * 3
    gathered = c.gather_tokens("cpu", 2, 8, 16)  # 2 of 8 tokens kept
    kept = 2 * 2 * 16 * 4
    assert gathered.bytes == 3 * kept + 2 * 8 * 16 * 4 + 2 * (2 * 2 * 8)


def test_parameter_counts():
    for model, count in (("ResNet-50", 25_557_032), ("ViT-L/16", 303_301_632), ("two layers", 4_160)):
        assert sum(shape.numel() for shape in parameter_shapes(model)) == count


def test_inputs_are_fresh_and_the_same():
    case = c.masking("cpu", 2, 16, 4)
    first, second = case.inputs("cpu"), case.inputs("cpu")
    for name, x in first.items():
        assert torch.equal(x, second[name])
        assert x.data_ptr() != second[name].data_ptr()
    assert [name for name, x in first.items() if x.requires_grad] == ["tokens"]


TINY = [
    *c.tiny("cpu"),
    c.info_nce_in_batch("cpu", 16, 16),
    c.info_nce_hard_negatives("cpu", 16, 16),
    c.restore_tokens("cpu", 2, 16, 8, learnt=True),
    c.masked_patch_loss("cpu", 2, pixels=torch.uint8, image=32),
]
HALF = [
    c.nt_xent("cpu", 32, 16, torch.bfloat16),
    c.nt_xent_views("cpu", 3, 10, 16, torch.bfloat16),
    c.info_nce("cpu", 16, 64, 16, torch.bfloat16),
    c.info_nce_in_batch("cpu", 16, 16, torch.bfloat16),
    c.clip_loss("cpu", 16, 16, torch.bfloat16),
    c.siglip_loss("cpu", 16, 16, torch.bfloat16),
    c.sup_con("cpu", 32, 16, 4, torch.bfloat16),
    c.negative_cosine_similarity("cpu", 16, 16, torch.bfloat16),
    c.ema("cpu", "two layers", torch.bfloat16),
    c.masking("cpu", 2, 16, 16, torch.bfloat16),
    c.gather_tokens("cpu", 2, 16, 16, torch.bfloat16),
    c.restore_tokens("cpu", 2, 16, 16, torch.bfloat16),
    c.masked_patch_loss("cpu", 2, torch.bfloat16, torch.uint8, image=32),
    c.patch_embed("cpu", 1, 16, torch.bfloat16, image=32),
]


@pytest.mark.parametrize("case", TINY + HALF, ids=lambda case: f"{case.op} {case.name}")
def test_every_peer_passes_the_gate(case):
    calls, errors, notes = gate(case, Settings(without=("torch.compile",)))
    assert not notes
    assert set(calls) == set(errors) >= {"eager", "sslfast"}
    assert max(errors.values()) <= GATE[case.dtype]
    assert all(version(name) for name in calls)
