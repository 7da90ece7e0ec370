"""The Triton kernels of masked_patch_loss, called directly: on a GPU, and on the CPU under Triton's interpreter in a
process of its own."""

from __future__ import annotations

import pytest
import torch
from patches import HALVES_AND_SINGLE, OFFSET, PATCHED, SCALE, check_each, constants, patch_mask, photographs, randn

from sslfast.kernels import reference_mae as reference

pytest.importorskip("triton")

from triton_kernels import DEVICE, compiles, run_interpreted, runs

from sslfast.kernels.triton import masked_patch_loss as kernels

KERNELS = kernels.forward, kernels.backward
REFERENCE = reference.masked_patch_loss_forward, reference.masked_patch_loss_backward


def loss_and_gradient(pred, images, mask, p, norm_pix, scale=(), offset=(), functions=KERNELS):
    forward, backward = functions
    arguments = p, norm_pix, list(scale), list(offset)
    outputs = forward(pred, images, mask, *arguments)
    grad = torch.tensor(1.7, device=DEVICE, dtype=outputs[0].dtype)
    return *outputs, backward(grad, pred, images, mask, *outputs[1:], *arguments)


def check_loss(pred, images, mask, p, norm_pix, scale=(), offset=()):
    rest = mask, p, norm_pix, scale, offset
    actual, eager = (loss_and_gradient(pred, images, *rest, functions=f) for f in (KERNELS, REFERENCE))
    exact = loss_and_gradient(pred.double(), images.double(), *rest, functions=REFERENCE)
    check_each(actual, eager, exact, pred.dtype, "loss", "mean", "rstd", "count", "dpred")


@runs
@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("b", "c", "h", "w", "p", "k"), [*PATCHED[1:], (1, 3, 32, 64, 32, 1)])
def test_masked_patch_loss(b, c, h, w, p, k, dtype, norm_pix):
    n = h // p * (w // p)
    pred, mask = randn(b, n, p * p * c, device=DEVICE, dtype=dtype, seed=3), patch_mask(b, n, k, DEVICE).mask
    if norm_pix:
        images = photographs(b, c, h, w, device=DEVICE, dtype=torch.uint8)
        check_loss(pred, images, mask, p, norm_pix, *constants(c))
    else:
        check_loss(pred, photographs(b, c, h, w, device=DEVICE, dtype=dtype), mask, p, norm_pix)


@runs
def test_masked_patch_loss_of_any_strides():
    images, mask = photographs(2, 3, 8, 12, device=DEVICE), patch_mask(2, 6, 2, DEVICE).mask
    pred = randn(2, 7, 48, device=DEVICE)[:, 1:]
    expected = loss_and_gradient(pred.contiguous(), images, mask, 4, True)
    for p in (pred, pred.mT.contiguous().mT):
        for layout in (images, images.contiguous(memory_format=torch.channels_last)):
            for a, b in zip(loss_and_gradient(p, layout, mask.T.contiguous().T, 4, True), expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@runs
def test_flat_and_bright_patches():
    images = torch.full((2, 3, 16, 16), 0.7, device=DEVICE)
    images[1] = 1e4 + photographs(3, 16, 16, device=DEVICE)
    mask = torch.ones(2, 4, dtype=torch.bool, device=DEVICE)
    check_loss(randn(2, 4, 192, device=DEVICE, seed=3), images, mask, 8, True)
    loss, _, rstd, *_ = loss_and_gradient(torch.zeros(1, 4, 192, device=DEVICE), images[:1], mask[:1], 8, True)
    assert loss == 0
    torch.testing.assert_close(rstd, torch.full_like(rstd, 1e3))


@runs
@pytest.mark.parametrize("norm_pix", [True, False])
def test_only_masked_patches_are_read_and_nan_shows(norm_pix):
    images, mask = photographs(2, 3, 8, 8, device=DEVICE), patch_mask(2, 4, 2, DEVICE).mask
    pred = randn(2, 4, 48, device=DEVICE)
    expected = loss_and_gradient(pred, images, mask, 4, norm_pix)
    spoilt = reference.patchify(images, 4).masked_fill(~mask[:, :, None], float("nan"))
    spoilt = reference.unpatchify(spoilt, 3, 8, 8, 4)
    hidden = pred.masked_fill(~mask[:, :, None], float("nan"))
    for a, b in zip(loss_and_gradient(hidden, spoilt, mask, 4, norm_pix), expected, strict=True):
        assert torch.equal(a, b)
    assert loss_and_gradient(pred, spoilt, mask | True, 4, norm_pix)[0].isnan()
    loss, *_, count, dpred = loss_and_gradient(pred, images, mask & False, 4, norm_pix)
    assert loss.isnan()
    assert count == 0
    assert (dpred == 0).all()


@runs
def test_same_input_same_bits():
    images, mask = photographs(5, 3, 12, 16, device=DEVICE), patch_mask(5, 12, 5, DEVICE).mask
    given = randn(5, 12, 48, device=DEVICE), images, mask, 4, True
    assert all(map(torch.equal, loss_and_gradient(*given), loss_and_gradient(*given)))


@compiles
@pytest.mark.gpu
@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("size", "p"), [(224, 16), (224, 14), (96, 8)])
def test_real_sizes(size, p, dtype):
    n = (size // p) ** 2
    pred, mask = randn(64, n, p * p * 3, device=DEVICE, dtype=dtype), patch_mask(64, n, n // 4, DEVICE).mask
    check_loss(pred, photographs(64, 3, size, size, device=DEVICE, dtype=dtype), mask, p, True)
    check_loss(pred, photographs(64, 3, size, size, device=DEVICE, dtype=torch.uint8), mask, p, True, SCALE, OFFSET)


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)
