"""Tests of Triton kernels again, in an interpreter that plugins beside this file make stricter and more like a GPU: a
few here, all by `make test-gpu-emulated`."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("triton")

from triton_kernels import run_interpreted

OPS = Path(__file__).parent / "ops"


@pytest.mark.parametrize(
    ("file", "cases"),
    [
        ("test_nt_xent_triton.py", "test_ragged_shapes and 20-129"),
        ("test_nt_xent_triton.py", "test_temperatures and 0.07-torch.float32"),
        ("test_clip_loss_triton.py", "test_ragged_shapes and 50-60-torch.float32"),
        ("test_siglip_loss_triton.py", "test_ragged_shapes and 40-70-torch.float32"),
        ("test_info_nce_triton.py", "test_temperatures and 0.07 and float32"),
        ("test_info_nce_triton.py", "test_temperatures and 100.0-90"),
    ],
)
def test_dots_on_tensor_cores_without_races(file, cases):
    run_interpreted(OPS / file, "-p", "tensor_core", "-p", "triton_races", "-k", cases)


@pytest.mark.parametrize(
    ("file", "cases"),
    [
        ("test_mae_triton.py", "any_strides"),
        ("test_masked_patch_loss_triton.py", "any_strides"),
        ("test_repeated_indices_triton.py", "float32"),
        ("test_augment_triton.py", "test_blur"),
    ],
)
def test_no_races(file, cases):
    run_interpreted(OPS / file, "-p", "triton_races", "-k", cases)
