"""ops.gather_patches against the reference in float64: values, gradients, layouts, contracts."""

from __future__ import annotations

import patches
import pytest
import torch
from numerics import assert_as_accurate
from patches import EVERY_FLOAT, HALVES_AND_SINGLE, patch_mask, photographs, randn

from sslfast import ops
from sslfast.kernels import reference_mae as reference
from sslfast.ops.patches import scale_and_offset

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SHAPES = [  # B, C, H, W, P, K
    (1, 1, 1, 1, 1, 1),
    (3, 3, 6, 9, 3, 2),
    (2, 3, 32, 48, 16, 5),
    (2, 4, 14, 7, 7, 2),
    (2, 2, 8, 5, 1, 40),
    (1, 17, 8, 8, 4, 3),
    (2, 3, 64, 64, 32, 1),
]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def normalisation(channels):
    return {"mean": [0.1 * (c + 1) for c in range(channels)], "std": [0.2 + 0.05 * c for c in range(channels)]}


def expected_patches(images, keep, p, mean=None, std=None, dtype=None):
    """The formula of the docstring with the reference's patchify."""
    x = images / 255 if images.dtype == torch.uint8 else images.to(torch.promote_types(images.dtype, torch.float32))
    if mean is not None:
        mean, std = (x.new_tensor(values)[:, None, None] for values in (mean, std))
        x = (x - mean) / std
    rows = reference.gather_tokens_forward(reference.patchify(x, p), keep)
    return rows.to(dtype or (images.dtype if images.is_floating_point() else torch.float32))


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("b", "c", "h", "w", "p", "k"), SHAPES)
def test_values_and_gradients_of_float_images(b, c, h, w, p, k, dtype, device):
    images, keep = photographs(b, c, h, w, device=device, dtype=dtype), patch_mask(b, h // p * (w // p), k, device).keep
    for norm in ({}, normalisation(c)):
        patches.assert_meets_the_bar(
            lambda images, n=norm: ops.gather_patches(images, keep, p, **n),
            lambda images, n=norm: expected_patches(images, keep, p, **n),
            dtype,
            images=images,
        )


@pytest.mark.parametrize("dtype", EVERY_FLOAT, ids=str)
@pytest.mark.parametrize(("b", "c", "h", "w", "p", "k"), SHAPES)
def test_values_of_uint8_images(b, c, h, w, p, k, dtype, device):
    images = photographs(b, c, h, w, device=device, dtype=torch.uint8)
    keep = patch_mask(b, h // p * (w // p), k, device).keep
    for norm in ({}, normalisation(c)):
        exact = expected_patches(images.double() / 255, keep, p, **norm)
        eager = expected_patches(images, keep, p, **norm, dtype=dtype)
        assert_as_accurate(ops.gather_patches(images, keep, p, **norm, dtype=dtype), eager, exact)
    assert ops.gather_patches(images, keep, p).dtype == torch.float32


@pytest.mark.parametrize("dtype", EVERY_FLOAT, ids=str)
@pytest.mark.parametrize("image_dtype", HALVES_AND_SINGLE, ids=str)
def test_dtypes_of_images_and_result(image_dtype, dtype, device):
    keep = patch_mask(2, 8, 3, device).keep
    images = photographs(2, 3, 8, 16, device=device, dtype=image_dtype)
    patches.assert_meets_the_bar(
        lambda images: ops.gather_patches(images, keep, 4, mean=MEAN, std=STD, dtype=dtype),
        lambda images: expected_patches(images, keep, 4, MEAN, STD, dtype),
        max(dtype, image_dtype, key=lambda x: torch.finfo(x).eps),
        images=images,
    )


def test_float64_gradcheck():
    keep = patch_mask(2, 6, 3).keep
    images = photographs(2, 3, 4, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.gather_patches(x, keep, 2, mean=MEAN, std=STD), images)


def test_is_the_patch_embedding_of_a_convolution(device):
    images, keep = photographs(2, 3, 8, 12, device=device), patch_mask(2, 6, 2, device).keep
    embed = torch.nn.Conv2d(3, 10, 4, stride=4, device=device)
    full = embed(images).flatten(2).mT  # (B, L, D)
    weight = embed.weight.permute(0, 2, 3, 1).flatten(1)
    visible = torch.nn.functional.linear(ops.gather_patches(images, keep, 4), weight, embed.bias)
    torch.testing.assert_close(visible, ops.gather_tokens(full, keep), rtol=1e-4, atol=1e-5)


def test_order_of_patches_and_elements(device):
    """An independent spelling: pixel by pixel."""
    images = photographs(1, 2, 6, 9, device=device)
    rows = ops.gather_patches(images, torch.tensor([[2, 4]], device=device), 3)
    for k, (top, left) in enumerate(((0, 6), (3, 3))):
        elements = [images[0, c, top + y, left + x] for y in range(3) for x in range(3) for c in range(2)]
        assert torch.equal(rows[0, k], torch.stack(elements))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bfloat16], ids=str)
def test_any_strides(dtype, device):
    images, keep = photographs(2, 3, 8, 12, device=device, dtype=dtype), patch_mask(2, 6, 3, device).keep
    expected = ops.gather_patches(images, keep, 4, mean=MEAN, std=STD)
    larger = photographs(2, 4, 10, 14, device=device, dtype=dtype)
    larger[:, 1:, 1:-1, 1:-1] = images
    for alike in (
        images.to(memory_format=torch.channels_last),
        images.mT.contiguous().mT,
        images.permute(1, 3, 2, 0).contiguous().permute(3, 0, 2, 1),
        larger[:, 1:, 1:-1, 1:-1],
        torch.stack([images, images], dim=-1)[..., 1],
    ):
        assert torch.equal(ops.gather_patches(alike, keep, 4, mean=MEAN, std=STD), expected)
    flat = images[:, :1, :1, :1].expand(2, 3, 8, 12)
    assert torch.equal(ops.gather_patches(flat, keep, 4), ops.gather_patches(flat.contiguous(), keep, 4))


def test_gradients_of_any_strides(device):
    images = photographs(2, 3, 8, 12, device=device).requires_grad_()
    result = ops.gather_patches(images, patch_mask(2, 6, 3, device).keep, 4)
    grad = randn(2, 48, 3, device=device).mT
    (strided,) = torch.autograd.grad(result, images, grad, retain_graph=True)
    (expected,) = torch.autograd.grad(result, images, grad.contiguous(), retain_graph=True)
    assert torch.equal(strided, expected)
    (ones,) = torch.autograd.grad(result.sum(), images)
    assert ones.sum() == result.numel()


def test_one_number_for_all_channels(device):
    images, keep = photographs(2, 3, 8, 12, device=device, dtype=torch.uint8), patch_mask(2, 6, 3, device).keep
    assert torch.equal(
        ops.gather_patches(images, keep, 4, mean=0.5, std=1),
        ops.gather_patches(images, keep, 4, mean=[0.5] * 3, std=(1, 1, 1)),
    )


def test_nan_stays_where_it_is(device):
    images, keep = photographs(1, 3, 4, 4, device=device), torch.tensor([[3, 1]], device=device)
    images[0, 2, 3, 2] = float("nan")
    nan = ops.gather_patches(images, keep, 2, mean=MEAN, std=STD).isnan()
    assert nan.sum() == 1
    assert nan[0, 0, 8]


@pytest.mark.parametrize("wrong", [-1, 6])
def test_indices_out_of_range(wrong, device):
    images, keep = photographs(2, 3, 4, 6, device=device), patch_mask(2, 6, 2, device).keep
    keep[1, 0] = wrong
    if device == "cpu":
        with pytest.raises(ValueError, match=r"gather_patches: keep must hold indices in \[0, 6\), got"):
            ops.gather_patches(images, keep, 2)
        with pytest.raises(ValueError, match="gather_patches: keep must hold"):
            torch.ops.sslfast.gather_patches_backward(torch.ones(2, 2, 12), keep, 3, 4, 6, 2, [], torch.float32)
        return
    images.requires_grad_()
    result = ops.gather_patches(images, keep, 2)
    assert result[1, 0].isnan().all()
    assert result.isnan().sum() == 12
    result.sum().backward()
    assert images.grad.sum() == 36


def test_deterministic(device):
    keep = patch_mask(9, 16, 4, device).keep
    patches.assert_repeats(
        lambda images: ops.gather_patches(images, keep, 8, mean=MEAN, std=STD),
        images=photographs(9, 3, 32, 32, device=device),
    )


def test_autocast_changes_nothing(device):
    images, keep = photographs(2, 3, 4, 6, device=device), patch_mask(2, 6, 2, device).keep
    with torch.autocast(device, torch.bfloat16):
        inside = ops.gather_patches(images, keep, 2, mean=MEAN, std=STD)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ops.gather_patches(images, keep, 2, mean=MEAN, std=STD))


def test_opcheck(device):
    keep = patch_mask(2, 6, 2, device).keep
    forward, backward = torch.ops.sslfast.gather_patches_forward, torch.ops.sslfast.gather_patches_backward
    for dtype in (torch.uint8, torch.float32, torch.bfloat16, torch.float64):
        images = photographs(2, 3, 4, 6, device=device, dtype=dtype)
        result = torch.float32 if dtype == torch.uint8 else dtype
        for scale, offset in (([], []), ([1.0] * 3, [0.5] * 3)):
            torch.library.opcheck(forward.default, (images, keep, 2, scale, offset, result))
            grad = randn(2, 2, 12, device=device, dtype=result)
            torch.library.opcheck(backward.default, (grad, keep, 3, 4, 6, 2, scale, result))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend, device):
    keep = patch_mask(2, 6, 2, device).keep
    images = photographs(2, 3, 4, 6, device=device)
    patches.assert_compiles(
        lambda images: ops.gather_patches(images.square(), keep, 2, mean=MEAN, std=STD).exp(), backend, images=images
    )


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    keep = patch_mask(2, 6, 2, "cuda").keep
    patches.assert_captured(
        lambda images: ops.gather_patches(images, keep, 2, mean=MEAN, std=STD),
        images=photographs(2, 3, 4, 6, device="cuda"),
    )


def test_scale_and_offset():
    floats, bytes_ = torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1, dtype=torch.uint8)
    assert scale_and_offset("op", floats, None, None) == ([], [])
    assert scale_and_offset("op", bytes_, None, None) == ([1 / 255] * 2, [0.0] * 2)
    assert scale_and_offset("op", floats, [1, 2], 0.5) == ([2.0, 2.0], [-2.0, -4.0])
    assert scale_and_offset("op", bytes_, 0.5, [1, 2]) == ([1 / 255, 1 / 510], [-0.5, -0.25])


X, KEEP = torch.ones(2, 3, 4, 6), torch.zeros(2, 1, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        (([1.0], KEEP, 2), {}, TypeError, r"images must be a tensor \(B, C, H, W\), got list"),
        ((X.int(), KEEP, 2), {}, TypeError, "images must be uint8, float32, bfloat16, float16 or float64.*int32"),
        ((X[0], KEEP, 2), {}, ValueError, r"images must be \(B, C, H, W\) and not empty, got shape \(3, 4, 6\)"),
        ((X[:, :0], KEEP, 2), {}, ValueError, r"images must be .* not empty, got shape \(2, 0, 4, 6\)"),
        ((X, KEEP, 4), {}, ValueError, "patch_size must be at least 1 and divide the 4x6 pixels of images, got 4"),
        ((X, KEEP, 0), {}, ValueError, "patch_size must be at least 1"),
        ((X, KEEP, 2.0), {}, TypeError, "patch_size must be an int, got float"),
        ((X, KEEP.int(), 2), {}, TypeError, "keep must be int64, got torch.int32"),
        ((X, KEEP[:1], 2), {}, ValueError, "keep must have a batch of 2"),
        ((X, KEEP.to("meta"), 2), {}, ValueError, "keep must be on cpu"),
        ((X, KEEP, 2), {"dtype": torch.int32}, TypeError, "dtype must be one of torch.float32.*int32"),
        ((X, KEEP, 2), {"mean": 0.5}, ValueError, "mean and std go together, got only mean"),
        ((X, KEEP, 2), {"std": 0.5}, ValueError, "mean and std go together, got only std"),
        (
            (X, KEEP, 2),
            {"mean": [0.5], "std": 1},
            ValueError,
            "mean must be a number or 3 numbers, one a channel, got 1",
        ),
        ((X, KEEP, 2), {"mean": 0.5, "std": 0}, ValueError, "std must be at least 1.2e-38 and finite, got 0"),
        ((X, KEEP, 2), {"mean": 0.5, "std": 1e-300}, ValueError, "std must be at least 1.2e-38 and finite, got 1e-300"),
        ((X, KEEP, 2), {"mean": float("inf"), "std": 1}, ValueError, "mean must be finite, got inf"),
        (
            (X, KEEP, 2),
            {"mean": torch.ones(3, 1), "std": 1},
            TypeError,
            "mean must be a number or 3 numbers, one a channel, got list",
        ),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=f"gather_patches: {message}"):
        ops.gather_patches(*arguments, **keywords)
