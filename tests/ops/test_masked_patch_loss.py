"""ops.masked_patch_loss against the reference in float64: values, gradient, layouts, contracts."""

from __future__ import annotations

import patches
import pytest
import torch
from patches import HALVES_AND_SINGLE, patch_mask, photographs, randn
from torch._subclasses.fake_tensor import FakeTensorMode

from sslfast import ops
from sslfast.compat.mae import random_masking
from sslfast.kernels import reference_mae as reference
from sslfast.ops.patches import scale_and_offset

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHAPES = [  # B, C, H, W, P, K
    (1, 2, 1, 1, 1, 0),
    (3, 3, 6, 9, 3, 2),
    (2, 3, 32, 48, 16, 2),
    (2, 4, 14, 7, 7, 1),
    (2, 2, 8, 5, 1, 10),
    (1, 17, 8, 8, 4, 3),
    (2, 3, 64, 64, 32, 1),
]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def losses(images, mask, p, norm_pix=True, mean=None, std=None):
    """The op and its reference on these images, functions of pred alone."""
    scale, offset = scale_and_offset("", images, mean, std)

    def expected(pred):
        x = images.double() if pred.dtype == torch.float64 else images
        return reference.masked_patch_loss_forward(pred, x, mask, p, norm_pix, scale, offset)[0]

    return lambda pred: ops.masked_patch_loss(pred, images, mask, p, norm_pix=norm_pix, mean=mean, std=std), expected


def predictions(images, p, dtype=torch.float32, seed=3):
    b, c, h, w = images.shape
    return randn(b, h // p * (w // p), p * p * c, device=images.device, dtype=dtype, seed=seed)


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("b", "c", "h", "w", "p", "k"), SHAPES)
def test_value_and_gradient_ragged_shapes(b, c, h, w, p, k, dtype, norm_pix, device):
    mask = patch_mask(b, h // p * (w // p), k, device).mask
    for image_dtype in (torch.uint8, dtype):
        images = photographs(b, c, h, w, device=device, dtype=image_dtype)
        op, expected = losses(images, mask, p, norm_pix)
        patches.assert_meets_the_bar(op, expected, dtype, pred=predictions(images, p, dtype))


def test_more_than_the_caches_hold(device):
    """The gradient is written past them; its rows begin at addresses that no register divides."""
    images, mask = photographs(5, 3, 405, 405, device=device), patch_mask(5, 6561, 1500, device).mask
    op, expected = losses(images, mask, 5)
    patches.assert_meets_the_bar(op, expected, torch.float32, pred=predictions(images, 5))


@pytest.mark.parametrize("norm_pix", [True, False])
@pytest.mark.parametrize("image_dtype", [torch.uint8, *HALVES_AND_SINGLE], ids=str)
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_dtypes_of_prediction_and_images(dtype, image_dtype, norm_pix, device):
    images, mask = photographs(3, 3, 16, 24, device=device, dtype=image_dtype), patch_mask(3, 6, 2, device).mask
    op, expected = losses(images, mask, 8, norm_pix, MEAN, STD)
    patches.assert_meets_the_bar(op, expected, dtype, pred=predictions(images, 8, dtype))


@pytest.mark.parametrize("norm_pix", [True, False])
def test_float64_gradcheck(norm_pix):
    images, mask = photographs(2, 3, 4, 6, dtype=torch.float64), patch_mask(2, 6, 2).mask
    op, _ = losses(images, mask, 2, norm_pix, MEAN, STD)
    assert torch.autograd.gradcheck(op, predictions(images, 2, torch.float64).requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("norm_pix", [True, False])
def test_is_the_formula_of_the_docstring(norm_pix, dtype, device):
    p = 4
    images, mask = photographs(2, 3, 8, 12, device=device, dtype=torch.uint8), patch_mask(2, 6, 2, device).mask
    pred = predictions(images, p, dtype)
    mean, std = (torch.tensor(x, device=device, dtype=torch.float64)[:, None, None] for x in (MEAN, STD))
    x = ((images.double() / 255 - mean) / std).unflatten(3, (-1, p)).unflatten(2, (-1, p))
    target = x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    if norm_pix:
        target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6) ** 0.5
    expected = ((pred - target) ** 2).mean(2)[mask].mean()
    actual = ops.masked_patch_loss(pred, images, mask, p, norm_pix=norm_pix, mean=MEAN, std=STD)
    assert actual.dtype == dtype
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6 if dtype == torch.float32 else 1e-13, atol=0)


def test_flat_and_nearly_flat_patches(device):
    """A variance near zero: eps rules, and a difference of large numbers must not."""
    images = torch.full((2, 3, 16, 16), 0.7, device=device)
    images[1] += 1e-3 * randn(3, 16, 16, device=device)
    mask = torch.ones(2, 4, dtype=torch.bool, device=device)
    op, expected = losses(images, mask, 8)
    patches.assert_meets_the_bar(op, expected, torch.float32, pred=predictions(images, 8))
    target = reference.patchify(images[:1], 8) * 0
    assert op(torch.cat([target, target]))  # finite
    assert ops.masked_patch_loss(target, images[:1], mask[:1], 8) < 1e-6


@pytest.mark.parametrize("level", [300.0, 1e4])
def test_large_levels_do_not_cancel(level, device):
    images = level + photographs(2, 3, 16, 16, device=device)
    op, expected = losses(images, torch.ones(2, 4, dtype=torch.bool, device=device), 8)
    patches.assert_meets_the_bar(op, expected, torch.float32, pred=predictions(images, 8))


@pytest.mark.parametrize("level", [1.0, 1e6, 1e30])
def test_a_mean_far_from_the_pixels_does_not_cancel(level, device):
    """With norm_pix what all channels share is no matter; what they do not share is."""
    images, mask = photographs(2, 3, 32, 32, device=device), patch_mask(2, 16, 5, device=device).mask
    pred = predictions(images, 8).requires_grad_()
    results = []
    for mean in (0.0, level, [level] * 3):
        loss = ops.masked_patch_loss(pred, images, mask, 8, mean=mean, std=0.25)
        results.append((loss, *torch.autograd.grad(loss, pred)))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-6, atol=1e-9)
    apart = ops.masked_patch_loss(pred, images, mask, 8, mean=[0.0, 0.5, 1.0], std=0.25)
    assert (apart - results[0][0]).abs() > 1e-3


def test_only_masked_patches_are_read(device):
    images, mask = photographs(2, 3, 8, 8, device=device), patch_mask(2, 4, 2, device).mask
    pred = predictions(images, 4)
    loss = ops.masked_patch_loss(pred, images, mask, 4)
    kept = ~mask[:, :, None]
    spoilt = reference.unpatchify(reference.patchify(images, 4).masked_fill(kept, float("nan")), 3, 8, 8, 4)
    pred = pred.masked_fill(kept, float("nan")).requires_grad_()
    result = ops.masked_patch_loss(pred, spoilt, mask, 4)
    assert torch.equal(result, loss)
    result.backward()
    assert torch.equal(pred.grad == 0, kept.expand_as(pred))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8, torch.int64], ids=str)
def test_masks_of_any_dtype(dtype, device):
    images, mask = photographs(2, 3, 8, 12, device=device), patch_mask(2, 6, 2, device).mask
    pred = predictions(images, 4).requires_grad_()
    found = [ops.masked_patch_loss(pred, images, x, 4) for x in (mask, mask.to(dtype))]
    assert torch.equal(*found)
    assert torch.equal(*(torch.autograd.grad(loss, pred)[0] for loss in found))


def test_the_mask_of_facebookresearch_goes_in(device):
    images = photographs(2, 3, 8, 12, device=device)
    _, mask, _ = random_masking(randn(2, 6, 5, device=device), 0.5)
    loss = ops.masked_patch_loss(predictions(images, 4), images, mask, 4)
    assert torch.equal(loss, ops.masked_patch_loss(predictions(images, 4), images, mask.bool(), 4))


@pytest.mark.parametrize("transform", [torch.compile(fullgraph=True, backend="aot_eager"), torch.func.grad])
def test_masks_of_numbers_in_what_is_traced(transform):
    images, mask = photographs(2, 3, 8, 8), patch_mask(2, 4, 2).mask
    pred = predictions(images, 4)

    def loss(pred, mask):
        return ops.masked_patch_loss(pred, images, mask, 4)

    assert torch.equal(transform(loss)(pred, mask.float()), transform(loss)(pred, mask))


def test_a_mask_of_numbers_without_values():
    with FakeTensorMode():
        assert ops.masked_patch_loss(torch.empty(2, 4, 48), torch.empty(2, 3, 8, 8), torch.empty(2, 4), 4).shape == ()


@pytest.mark.parametrize("norm_pix", [True, False])
def test_no_masked_patch_gives_nan(norm_pix, device):
    images = photographs(2, 3, 8, 8, device=device)
    pred = predictions(images, 4).requires_grad_()
    loss = ops.masked_patch_loss(pred, images, torch.zeros(2, 4, dtype=torch.bool, device=device), 4, norm_pix=norm_pix)
    assert loss.isnan()
    loss.backward()
    assert (pred.grad == 0).all()


def test_nan_in_nan_out(device):
    images, mask = photographs(2, 3, 8, 8, device=device), torch.ones(2, 4, dtype=torch.bool, device=device)
    pred = predictions(images, 4)
    for norm_pix in (True, False):
        images[1, 0, 2, 2] = float("nan")
        assert ops.masked_patch_loss(pred, images, mask, 4, norm_pix=norm_pix).isnan()
        images[1, 0, 2, 2] = 0
        spoilt = pred.clone()
        spoilt[0, 0, 0] = float("nan")
        assert ops.masked_patch_loss(spoilt, images, mask, 4, norm_pix=norm_pix).isnan()


@pytest.mark.parametrize("image_dtype", [torch.uint8, torch.float32, torch.bfloat16], ids=str)
def test_any_strides(image_dtype, device):
    images, mask = photographs(2, 3, 8, 12, device=device, dtype=image_dtype), patch_mask(2, 6, 2, device).mask
    pred = predictions(images, 4)
    expected = ops.masked_patch_loss(pred, images, mask, 4, mean=MEAN, std=STD)
    for x in (
        images.to(memory_format=torch.channels_last),
        images.mT.contiguous().mT,
        torch.stack([images, images], dim=-1)[..., 1],
    ):
        for y in (pred, pred.mT.contiguous().mT, torch.stack([pred, pred], dim=-1)[..., 1]):
            actual = ops.masked_patch_loss(y, x, mask.T.contiguous().T, 4, mean=MEAN, std=STD)
            assert torch.equal(actual, expected)


def test_gradient_of_a_prediction_with_any_strides(device):
    images, mask = photographs(2, 3, 8, 12, device=device), patch_mask(2, 6, 2, device).mask
    op, _ = losses(images, mask, 4)
    pred = predictions(images, 4)
    wide = torch.stack([pred, pred], dim=-1).requires_grad_()
    (expected,) = torch.autograd.grad(op(pred.requires_grad_()), pred)
    (actual,) = torch.autograd.grad(op(wide[..., 0]), wide)
    assert torch.equal(actual[..., 0], expected)


def test_gradient_is_scaled_by_what_comes_in(device):
    images, mask = photographs(2, 3, 8, 12, device=device), patch_mask(2, 6, 2, device).mask
    op, _ = losses(images, mask, 4)
    pred = predictions(images, 4).requires_grad_()
    (once,) = torch.autograd.grad(op(pred), pred)
    (scaled,) = torch.autograd.grad(-1024 * op(pred), pred)
    assert torch.equal(scaled, -1024 * once)


def test_deterministic(device):
    images, mask = photographs(9, 3, 32, 32, device=device), patch_mask(9, 16, 4, device).mask
    op, _ = losses(images, mask, 8)
    patches.assert_repeats(op, pred=predictions(images, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_loss_is_float32_and_as_exact_under_autocast(dtype, device):
    images, mask = photographs(2, 3, 8, 8, device=device), patch_mask(2, 4, 2, device).mask
    op, _ = losses(images, mask, 4)
    pred = predictions(images, 4, dtype)
    with torch.autocast(device, torch.bfloat16):
        inside = op(pred)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, op(pred))


def test_opcheck(device):
    forward, backward = torch.ops.sslfast.masked_patch_loss_forward, torch.ops.sslfast.masked_patch_loss_backward
    mask = patch_mask(2, 4, 2, device).mask
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        images = photographs(2, 3, 8, 8, device=device, dtype=torch.uint8)
        pred = predictions(images, 4, dtype)
        for norm_pix in (True, False):
            target = 4, norm_pix, [1 / 255] * 3, [0.0] * 3
            loss, mean, rstd, count = forward(pred, images, mask, *target)
            torch.library.opcheck(forward.default, (pred, images, mask, *target))
            torch.library.opcheck(backward.default, (loss.clone(), pred, images, mask, mean, rstd, count, *target))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend, device):
    images, mask = photographs(2, 3, 8, 8, device=device), patch_mask(2, 4, 2, device).mask
    op, _ = losses(images, mask, 4, mean=MEAN, std=STD)
    patches.assert_compiles(lambda pred: op(pred.square()).exp(), backend, pred=predictions(images, 4))


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    images, mask = photographs(2, 3, 8, 8, device="cuda"), patch_mask(2, 4, 2, "cuda").mask
    op, _ = losses(images, mask, 4)
    patches.assert_captured(op, pred=predictions(images, 4))


Y, X, MASK = torch.ones(2, 6, 12), torch.ones(2, 3, 4, 6), torch.ones(2, 6, dtype=torch.bool)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        (([1.0], X, MASK, 2), {}, TypeError, r"pred must be a tensor \(B, L, P \* P \* C\), got list"),
        ((Y.int(), X, MASK, 2), {}, TypeError, "pred must be float32.*int32"),
        ((Y[0], X, MASK, 2), {}, ValueError, r"pred must be \(B, L, P \* P \* C\) and not empty, got shape \(6, 12\)"),
        ((Y[:, :, :9], X, MASK, 2), {}, ValueError, r"pred must have shape \(2, 6, 12\), .* got \(2, 6, 9\)"),
        ((Y, X.int(), MASK, 2), {}, TypeError, "images must be uint8, float32.*int32"),
        ((Y, X[0], MASK, 2), {}, ValueError, r"images must be \(B, C, H, W\)"),
        ((Y, X.to("meta"), MASK, 2), {}, ValueError, "images must be on cpu, as the other arguments, got meta"),
        ((Y, X.double(), MASK, 2), {}, TypeError, "images of float64 go with pred of float64 only"),
        ((Y, X.clone().requires_grad_(), MASK, 2), {}, ValueError, "images must not require grad"),
        ((Y, X, MASK.to(torch.complex64), 2), {}, TypeError, "mask must be float32, .* or int64, got torch.complex64"),
        ((Y, X, 0.5 * MASK, 2), {}, ValueError, "mask must hold 0 and 1 only, got 0.5 to 0.5"),
        ((Y, X, MASK[:, :5], 2), {}, ValueError, r"mask must have shape \(2, 6\), got \(2, 5\)"),
        ((Y, X, MASK.to("meta"), 2), {}, ValueError, "mask must be on cpu"),
        ((Y, X, MASK, 4), {}, ValueError, "patch_size must be at least 1 and divide the 4x6 pixels"),
        ((Y, X, MASK, 2), {"std": 1}, ValueError, "mean and std go together"),
        ((Y[:, :1, :1], X[:, :1, :1, :1], MASK[:, :1], 1), {}, ValueError, "norm_pix must be False for patches of one"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=f"masked_patch_loss: {message}"):
        ops.masked_patch_loss(*arguments, **keywords)
