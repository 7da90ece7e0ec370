"""The masked autoencoder's loss, with its target taken from the image on the way."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu import masked_patch_loss as cpu
from sslfast.ops.autograd import differentiable
from sslfast.ops.checks import FLOATS, Statistics
from sslfast.ops.layout import require
from sslfast.ops.patches import as_mask, check_images, check_tensor, require_patches, scale_and_offset
from sslfast.ops.registry import define_op, lazily


def masked_patch_loss(
    pred: Tensor,
    images: Tensor,
    mask: Tensor,
    patch_size: int,
    *,
    norm_pix: bool = True,
    mean: Statistics | None = None,
    std: Statistics | None = None,
) -> Tensor:
    """Mean squared error between predicted and true pixels of the masked patches. With P = patch_size it equals

        x = images / 255 if images.dtype == torch.uint8 else images
        x = ((x - mean) / std).unflatten(3, (-1, P)).unflatten(2, (-1, P))  # (B, C, H/P, P, W/P, P)
        target = x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)  # (B, L, P * P * C)
        if norm_pix:
            target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6) ** 0.5
        ((pred - target) ** 2).mean(2)[mask].mean()

    computed in float32, but the target is never in memory, and only masked patches are read.

    Args:
        pred: (B, L, P * P * C) float32, bfloat16, float16, or float64 through the reference; elements in (row, column,
            channel) order.
        images: (B, C, H, W) uint8 or any of these dtypes (float64 with float64 pred only), any strides; H and W are
            multiples of patch_size, L = H * W / P^2. They get no gradient and must not require it.
        mask: (B, L) bool, or 0 and 1 of any dtype; True or 1 = masked. Without any masked patch the loss is NaN. Other
            numbers raise on the CPU, and on CUDA and under torch.compile all but 0 count as 1.
        patch_size: pixels of a patch in each direction, P.
        norm_pix: normalise every target patch by its own mean and unbiased variance.
        mean, std: a number, or C of them, one a channel; both or neither. They are those of images in [0, 1] for uint8.

    Returns:
        0-dim float32 (float64 for float64 pred). Differentiable with respect to pred.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype, device or range, is empty, images require
            grad, or norm_pix is asked of patches of one element.

    Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377
    """
    op = "masked_patch_loss"
    check_tensor(op, "pred", pred, "(B, L, P * P * C)", FLOATS, like=pred)
    patch_size = check_images(op, images, patch_size)
    check_tensor(op, "images", images, "(B, C, H, W)", (torch.uint8, *FLOATS), like=pred)
    mask = as_mask(op, mask, like=pred)
    batch, channels, height, width = images.shape
    elements = patch_size * patch_size * channels
    wanted = batch, (height // patch_size) * (width // patch_size), elements
    if pred.shape != wanted:
        raise ValueError(f"{op}: pred must have shape {wanted}, one row a patch of images, got {tuple(pred.shape)}")
    if mask.shape != wanted[:2]:
        raise ValueError(f"{op}: mask must have shape {wanted[:2]}, got {tuple(mask.shape)}")
    if images.dtype == torch.float64 and pred.dtype != torch.float64:
        raise TypeError(f"{op}: images of float64 go with pred of float64 only, got pred of {pred.dtype}")
    if images.requires_grad:
        raise ValueError(f"{op}: images must not require grad, they are the target; pass images.detach()")
    if norm_pix and elements == 1:
        raise ValueError(f"{op}: norm_pix must be False for patches of one element, they have no variance")
    scale, offset = scale_and_offset(op, images, mean, std)
    if norm_pix and offset:  # a shift that all channels share is none after it, and may be far more than the pixels
        middle = (min(offset) + max(offset)) / 2
        offset = [x - middle for x in offset]
    return _masked_patch_loss(pred, images, mask, patch_size, bool(norm_pix), scale, offset)


class _Saved(NamedTuple):
    """Of the target patches: mean and 1/deviation of each, (B, L), or (0, 0) without norm_pix; how many are masked."""

    mean: Tensor
    rstd: Tensor
    masked: Tensor


def _value(args):
    loss, *saved = _forward(*args)
    return loss, saved


def _gradient(wanted, grad, args, saved):
    pred, images, mask, *options = args
    return (_backward(grad, pred, images, mask, *saved, *options),)


def _fake_forward(pred, images, mask, patch_size, norm_pix, scale, offset):
    exact = torch.promote_types(pred.dtype, torch.float32)
    shape = mask.shape if norm_pix else (0, 0)
    return tuple(pred.new_empty(size, dtype=exact) for size in ((), shape, shape, ()))


def _require(pred, images, mask, p, norm_pix, scale, offset):
    _, channels, height, width = images.shape
    elements = require_patches("masked_patch_loss", channels, height, width, p, scale, offset)
    wanted = (height // p) * (width // p), elements
    good = tuple(pred.shape[1:]) == wanted
    require("masked_patch_loss", "pred", f"{wanted} behind the batch", good, tuple(pred.shape))


def _require_backward(grad, pred, images, mask, mean, rstd, count, p, norm_pix, scale, offset):
    _require(pred, images, mask, p, norm_pix, scale, offset)
    wanted = tuple(mask.shape) if norm_pix else (0, 0)
    for name, x in (("mean", mean), ("rstd", rstd)):
        require("masked_patch_loss", name, str(wanted), tuple(x.shape) == wanted, tuple(x.shape))


_forward = define_op(
    "masked_patch_loss_forward(Tensor pred, Tensor images, Tensor mask, SymInt patch_size, bool norm_pix,"
    " float[] scale, float[] offset) -> (Tensor loss, Tensor mean, Tensor rstd, Tensor count)",
    fake=_fake_forward,
    reference=reference.masked_patch_loss_forward,
    cpu=cpu.forward,
    cuda=lazily("sslfast.kernels.triton.masked_patch_loss", "forward"),
    layout={"pred": "B L E: float", "images": "B C H W: image", "mask": "B L: bool"},
    requires=_require,
)
_backward = define_op(
    "masked_patch_loss_backward(Tensor grad, Tensor pred, Tensor images, Tensor mask, Tensor mean, Tensor rstd,"
    " Tensor count, SymInt patch_size, bool norm_pix, float[] scale, float[] offset) -> Tensor",
    fake=lambda grad, pred, *_: torch.empty_like(pred, memory_format=torch.contiguous_format),
    reference=reference.masked_patch_loss_backward,
    cpu=cpu.backward,
    cuda=lazily("sslfast.kernels.triton.masked_patch_loss", "backward"),
    layout={
        "grad": ": exact pred",
        "pred": "B L E: float",
        "images": "B C H W: image",
        "mask": "B L: bool",
        "mean": "...: exact pred",
        "rstd": "...: exact pred",
        "count": ": exact pred",
    },
    requires=_require_backward,
)
_masked_patch_loss = differentiable(
    "masked_patch_loss(Tensor pred, Tensor images, Tensor mask, SymInt patch_size, bool norm_pix, float[] scale,"
    " float[] offset) -> Tensor",
    value=_value,
    gradient=_gradient,
    formula=lambda args: reference.masked_patch_loss_forward(*args)[0],
    leaves=1,
    saved=_Saved,
)
