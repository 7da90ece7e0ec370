"""What the masked-autoencoder ops share: checks of tokens, images and indices; normalisation as x·scale + offset."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslfast.ops.checks import (
    FLOATS,
    INTEGERS,
    Statistics,
    as_int,
    check_dense,
    check_range,
    check_statistics,
    is_readable,
)
from sslfast.ops.layout import require


def check_tensor(op: str, name: str, x: Tensor, shape: str, dtypes: Sequence[torch.dtype], like: Tensor) -> None:
    """x is a non-empty tensor with the dimensions that `shape` names, of one of the dtypes, on the device of `like`."""
    check_dense(op, name, x, f" {shape}")
    if x.dtype not in dtypes:
        raise TypeError(f"{op}: {name} must be {_either(dtypes)}, got {x.dtype}")
    if x.dim() != shape.count(",") + 1 or 0 in x.shape:
        raise ValueError(f"{op}: {name} must be {shape} and not empty, got shape {tuple(x.shape)}")
    if x.device != like.device:
        raise ValueError(f"{op}: {name} must be on {like.device}, as the other arguments, got {x.device}")


def check_batch(op: str, name: str, x: Tensor, batch: int) -> None:
    if x.shape[0] != batch:
        raise ValueError(f"{op}: {name} must have a batch of {batch}, got shape {tuple(x.shape)}")


def check_images(op: str, images: Tensor, patch_size: int) -> int:
    """The patch size, once images (B, C, H, W) are found to be made of such patches."""
    check_tensor(op, "images", images, "(B, C, H, W)", (torch.uint8, *FLOATS), like=images)
    patch_size = as_int(op, "patch_size", patch_size)
    height, width = images.shape[2:]
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"{op}: patch_size must be at least 1 and divide the {height}x{width} pixels of images, got {patch_size}"
        )
    return patch_size


def require_patches(
    op: str, channels: int, height: int, width: int, patch_size: int, scale: Sequence[float], offset: Sequence[float]
) -> int:
    """What the kernels rely on besides the layout of images; the elements of a patch."""
    fits = patch_size >= 1 and height % patch_size == 0 and width % patch_size == 0
    require(op, "patch_size", f"a divisor of {height} and {width}", fits, patch_size)
    numbers = {len(scale), len(offset)}
    require(op, "scale and offset", f"{channels} numbers each or none", numbers in ({0}, {channels}), numbers)
    return patch_size * patch_size * channels


def check_keep(op: str, keep: Tensor, batch: int, like: Tensor) -> None:
    check_tensor(op, "keep", keep, "(B, K)", (torch.int64,), like)
    check_batch(op, "keep", keep, batch)


def as_mask(op: str, mask: Tensor, like: Tensor) -> Tensor:
    """The mask (B, L) as bool, from 0 and 1 of any dtype."""
    check_tensor(op, "mask", mask, "(B, L)", (*FLOATS, *INTEGERS), like)
    if mask.dtype == torch.bool:
        return mask
    if is_readable(mask) and not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"{op}: mask must hold 0 and 1 only, got {mask.amin()} to {mask.amax()}")
    return mask != 0


def scale_and_offset(
    op: str, images: Tensor, mean: Statistics | None, std: Statistics | None
) -> tuple[list[float], list[float]]:
    """(x − mean)/std, of x/255 where images are uint8, as x·scale + offset of a channel; empty where it is x itself."""
    channels, whole = images.shape[1], 255.0 if images.dtype == torch.uint8 else 1.0
    means, stds = check_statistics(op, mean, std, channels)
    if not means:
        return ([1 / whole] * channels, [0.0] * channels) if whole != 1 else ([], [])
    return [1 / (whole * s) for s in stds], [-m / s for m, s in zip(means, stds)]


def indices_checked(op: str, name: str, limit: Callable[..., int]) -> Callable[[Callable], Callable]:
    """For kernels whose second argument holds indices below `limit` of the arguments: on the CPU, others raise."""

    def decorate(kernel: Callable) -> Callable:
        @functools.wraps(kernel)
        def run(first, indices, *rest):
            check_range(op, name, indices, limit(first, indices, *rest))
            return kernel(first, indices, *rest)

        return run

    return decorate


def _either(dtypes: Sequence[torch.dtype]) -> str:
    *names, last = (str(dtype).removeprefix("torch.") for dtype in dtypes)
    return f"{', '.join(names)} or {last}" if names else last
