"""The Triton kernels of the masked-autoencoder ops, compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import pytest
import torch
from patches import OFFSET, SCALE

triton = pytest.importorskip("triton")

from triton_compile import assert_fits, recorded_launches  # noqa: E402

from sslfast.kernels.triton import gather_patches, gather_tokens, masked_patch_loss, restore_tokens  # noqa: E402


def launches(monkeypatch, dtype, image_dtype, size, p):
    """Of every op, forward and backward, for images of this size."""
    b, n, k, d = 64, (size // p) ** 2, (size // p) ** 2 // 4, 768
    constants = (SCALE, OFFSET) if image_dtype == torch.uint8 else ([], [])
    keep, restore = torch.empty(b, k, dtype=torch.int64), torch.empty(b, n, dtype=torch.int64)
    images, mask = torch.empty(b, 3, size, size, dtype=image_dtype), torch.empty(b, n, dtype=torch.bool)
    few, many, parameters = torch.empty(b, k, d, dtype=dtype), torch.empty(b, n, d, dtype=dtype), torch.empty(n, d)
    pred = torch.empty(b, n, p * p * 3, dtype=dtype)
    saved = torch.empty(b, n), torch.empty(b, n), torch.empty(())
    everything = []
    for function, *arguments in (
        (gather_tokens.forward, many, keep),
        (gather_tokens.backward, few, keep, n),
        (gather_patches.forward, images, keep, p, *constants, dtype),
        (gather_patches.backward, pred[:, :k], keep, 3, size, size, p, constants[0], dtype),
        (restore_tokens.forward, few, restore, parameters[0], parameters),
        (restore_tokens.backward, many, restore, k, True),
        (masked_patch_loss.forward, pred, images, mask, p, True, *constants),
        (masked_patch_loss.backward, saved[2], pred, images, mask, *saved, p, True, *constants),
    ):
        launched, _ = recorded_launches(monkeypatch, function, *arguments)
        assert len(launched) <= 3
        everything += launched
    return everything


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("capability", "dtype", "image_dtype", "size", "p"),
    [
        (80, torch.bfloat16, torch.uint8, 224, 16),
        (90, torch.bfloat16, torch.uint8, 224, 16),
        (100, torch.bfloat16, torch.uint8, 224, 16),
        (90, torch.float32, torch.float32, 224, 14),
        pytest.param(80, torch.float32, torch.float32, 224, 16, marks=SLOW),
        pytest.param(90, torch.float16, torch.float16, 224, 32, marks=SLOW),
        pytest.param(90, torch.float32, torch.uint8, 96, 8, marks=SLOW),
        pytest.param(100, torch.float32, torch.bfloat16, 224, 56, marks=SLOW),
    ],
)
def test_compile_without_spills(capability, dtype, image_dtype, size, p, monkeypatch):
    for launch in launches(monkeypatch, dtype, image_dtype, size, p):
        assert_fits(launch, capability)
