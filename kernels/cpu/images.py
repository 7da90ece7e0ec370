"""Images as the C++ kernels take them."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels import pair_table

TYPES = pair_table.TYPES | {torch.uint8: 3}  # the types of csrc/cpu/rows.h


def described(images: Tensor, patch_size: int, scale: list[float], offset: list[float]) -> _C.Images:
    """Where (B, C, H, W) images lie, and how a pixel is read: x·scale + offset, or x itself."""
    channels = images.shape[1]
    scale, offset = (scale, offset) if scale else ([1.0] * channels, [-0.0] * channels)  # -0 keeps the sign of zeros
    return _C.Images(
        images.data_ptr(),
        TYPES[images.dtype],
        images.stride(),
        images.shape,
        patch_size,
        scale * patch_size,
        offset * patch_size,
    )
