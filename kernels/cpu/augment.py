"""Augmentation on the CPU: one C++ pass over each image, threads over images, a view's planes staying in cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.memory import empty

JITTERS = ("brightness", "contrast", "saturation", "hue")
SOURCES = {torch.uint8: 0, torch.uint16: 1, torch.float32: 2}
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def augment(
    images: Tensor,
    sizes: Tensor | None,
    crop: Tensor,
    flip: Tensor,
    jitter: Tensor,
    order: Tensor,
    grayscale: Tensor,
    blur: Tensor,
    solarize: Tensor,
    size: Sequence[int],
    steps: Sequence[str],
    bicubic: bool,
    mode: str,
    blur_radius: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    batch, channels = images.shape[:2]
    views = empty(batch, channels, *size, dtype=dtype)
    if "grayscale" not in steps:
        grayscale = torch.zeros_like(grayscale)
    if "solarize" not in steps:
        solarize = torch.full_like(solarize, torch.inf)
    scale = [1 / s for s in std] or [1.0] * channels
    offset = [-m / s for m, s in zip(mean, std)] or [0.0] * channels
    if images.dtype not in SOURCES:
        images = images.float()
    images, sizes = images.contiguous(), None if sizes is None else sizes.contiguous()
    rows = [x.contiguous() for x in (crop, flip, jitter, order, grayscale, blur, solarize)]
    _C.augment(
        images.data_ptr(),
        SOURCES[images.dtype],
        *images.shape,
        0 if sizes is None else sizes.data_ptr(),
        [row.data_ptr() for row in rows],
        *size,
        [name in steps for name in JITTERS],
        bicubic,
        mode == "simclr",
        blur_radius if "blur" in steps else 0,
        scale,
        offset,
        TYPES[dtype],
        views.data_ptr(),
    )
    return views
