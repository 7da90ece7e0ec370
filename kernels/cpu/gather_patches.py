"""The visible patches on the CPU: read, normalised and interleaved by C++ SIMD loops, rows in parallel."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu.images import TYPES, described
from sslfast.kernels.cpu.memory import empty


def forward(
    images: Tensor, keep: Tensor, patch_size: int, scale: list[float], offset: list[float], dtype: torch.dtype
) -> Tensor:
    keep = keep.contiguous()
    patches = empty(*keep.shape, patch_size * patch_size * images.shape[1], dtype=dtype)
    _C.gather_patches(
        described(images, patch_size, scale, offset), keep.data_ptr(), keep.shape[1], TYPES[dtype], patches.data_ptr()
    )
    return patches


def backward(
    grad: Tensor,
    keep: Tensor,
    channels: int,
    height: int,
    width: int,
    patch_size: int,
    scale: list[float],
    dtype: torch.dtype,
) -> Tensor:
    grad, keep = grad.float().contiguous(), keep.contiguous()
    dimages = empty(len(grad), channels, height, width, dtype=dtype)
    distinct = _C.gather_patches_backward(
        grad.data_ptr(),
        described(dimages, patch_size, scale, scale),
        keep.data_ptr(),
        keep.shape[1],
        TYPES[dtype],
        dimages.data_ptr(),
    )
    if distinct:
        return dimages
    return reference.gather_patches_backward(grad, keep, channels, height, width, patch_size, scale, dtype)
