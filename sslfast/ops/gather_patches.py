"""The visible patches of a batch of images, read and normalised in one pass."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu import gather_patches as cpu
from sslfast.ops.autograd import differentiable
from sslfast.ops.checks import FLOATS, Statistics
from sslfast.ops.layout import require
from sslfast.ops.patches import check_images, check_keep, indices_checked, require_patches, scale_and_offset
from sslfast.ops.registry import define_op, lazily


def gather_patches(
    images: Tensor,
    keep: Tensor,
    patch_size: int,
    *,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The kept patches of every image as rows. With P = patch_size it equals

        x = images / 255 if images.dtype == torch.uint8 else images
        x = ((x - mean) / std).unflatten(3, (-1, P)).unflatten(2, (-1, P))  # (B, C, H/P, P, W/P, P)
        patches = x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B, L, P * P * C)
        torch.gather(patches, 1, keep[:, :, None].expand(-1, -1, P * P * C)).to(dtype)

    with mean and std a channel, computed in float32 (float64 for float64 images or result), but reads the kept patches
    only. A linear layer on the rows is the patch embedding: with the weight (D, C, P, P) of a convolution of kernel
    and stride P it is `F.linear(rows, weight.permute(0, 2, 3, 1).flatten(1), bias)`.

    Args:
        images: (B, C, H, W) uint8, float32, bfloat16, float16, or float64 through the reference; any strides. H and W
            are multiples of patch_size.
        keep: (B, K) int64 in [0, L), L = H * W / P^2, on the same device. Patches count in row-major order. What is
            out of range raises on the CPU and gives NaN on CUDA.
        patch_size: pixels of a patch in each direction, P.
        mean, std: a number, or C of them, one a channel; both or neither. They are those of images in [0, 1] for uint8.
        dtype: of the result; by default that of the images, and float32 for uint8.

    Returns:
        (B, K, P * P * C), elements in (row, column, channel) order. Differentiable with respect to images.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype, device or range, or is empty.

    Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377
    """
    patch_size = check_images("gather_patches", images, patch_size)
    check_keep("gather_patches", keep, images.shape[0], like=images)
    if dtype not in (None, *FLOATS):
        raise TypeError(f"gather_patches: dtype must be one of {', '.join(map(str, FLOATS))}, got {dtype}")
    scale, offset = scale_and_offset("gather_patches", images, mean, std)
    dtype = dtype or (images.dtype if images.is_floating_point() else torch.float32)
    if torch.float64 in (images.dtype, dtype):  # every tensor, for the reference in both directions
        return _gather_patches(images.double(), keep, patch_size, scale, offset, torch.float64).to(dtype)
    return _gather_patches(images, keep, patch_size, scale, offset, dtype)


def _gradient(wanted, grad, args, _):
    images = args.images
    return (_backward(grad, args.keep, *images.shape[1:], args.patch_size, args.scale, images.dtype),)


def _require_backward(grad, keep, channels, height, width, p, scale, dtype):
    elements = require_patches("gather_patches", channels, height, width, p, scale, scale)
    require("gather_patches", "grad", f"of {elements} elements a patch", grad.shape[2] == elements, grad.shape[2])


_below_image = indices_checked(
    "gather_patches", "keep", lambda images, keep, p, *_: (images.shape[2] // p) * (images.shape[3] // p)
)
_below_number = indices_checked(
    "gather_patches", "keep", lambda grad, keep, channels, height, width, p, *_: (height // p) * (width // p)
)

_forward = define_op(
    "gather_patches_forward(Tensor images, Tensor keep, SymInt patch_size, float[] scale, float[] offset,"
    " ScalarType dtype) -> Tensor",
    fake=lambda images, keep, p, scale, offset, dtype: images.new_empty(
        *keep.shape, p * p * images.shape[1], dtype=dtype
    ),
    reference=_below_image(reference.gather_patches_forward),
    cpu=_below_image(cpu.forward),
    cuda=lazily("sslfast.kernels.triton.gather_patches", "forward"),
    layout={"images": "B C H W: image", "keep": "B K: int64"},
    requires=lambda images, keep, p, scale, offset, dtype: require_patches(
        "gather_patches", images.shape[1], images.shape[2], images.shape[3], p, scale, offset
    ),
)
_backward = define_op(
    "gather_patches_backward(Tensor grad, Tensor keep, SymInt channels, SymInt height, SymInt width,"
    " SymInt patch_size, float[] scale, ScalarType dtype) -> Tensor",
    fake=lambda grad, keep, channels, height, width, p, scale, dtype: grad.new_empty(
        grad.shape[0], channels, height, width, dtype=dtype
    ),
    reference=_below_number(reference.gather_patches_backward),
    cpu=_below_number(cpu.backward),
    cuda=lazily("sslfast.kernels.triton.gather_patches", "backward"),
    layout={"grad": "B K E: float", "keep": "B K: int64"},
    requires=_require_backward,
)
_gather_patches = differentiable(
    "gather_patches(Tensor images, Tensor keep, SymInt patch_size, float[] scale, float[] offset, ScalarType dtype)"
    " -> Tensor",
    value=lambda args: (_forward(*args), ()),
    gradient=_gradient,
    formula=lambda args: reference.gather_patches_forward(*args),
    leaves=1,
    linear=True,
)
