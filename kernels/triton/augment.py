"""Augmentation on the GPU: a program takes blocks of rows of the views, all steps of which stay in its registers.

Up to three launches, of which each passes over the views that do not need it: sums of what the contrast takes as its
gray, made from the source up to that step; the views without blur; those with blur. No view is stored but finished.
Device memory: the crop read once, or twice with contrast, and the view written once. A resampling is separable: rows
of the source are added up to a strip, from which a pixel takes columns; cubic and not shrinking, C channels, that is
4·C multiplications for each column of the crop and 4·C a pixel. A block of a blurred view is made with the rows that
the blur needs around it, blurred across as it is made and then downwards, 2·C·(2·radius + 1) multiplications a pixel.
What goes from thread to thread goes through a scratch of the program's own: its size depends on the chip and the
shapes, not on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslfast.kernels.triton.augment_kernels import augment_blur_kernel, augment_mean_kernel, augment_sharp_kernel
from sslfast.kernels.triton.patches import compact
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2

JITTERS = ("brightness", "contrast", "saturation", "hue")  # the first two of them without colours
PIXELS = 2048  # of a view at a time
THREAD = 8  # of them in a thread
BLOCK = 64  # rows of a view at most that a program makes with one set of weights
PROGRAMS = 2  # on a multiprocessor


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _taps(source: int, target: int, bicubic: bool, antialias: bool) -> int:
    """So many pixels of the source, or a few less, go into one of the target; rounded up, for fewer compilations."""
    taps = (4 if bicubic else 2) * (max(1, source / target) if antialias else 1)
    return 4 * cdiv(int(taps) + 2, 4)


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
    images = compact(images)
    batch, channels, height, width = images.shape
    h, w = size
    simclr, radius = mode == "simclr", blur_radius if "blur" in steps else 0
    blocks = cdiv(h, BLOCK)
    block = cdiv(h, blocks)
    lanes = max(16, next_power_of_2(w))
    rows = min(max(1, PIXELS // lanes), next_power_of_2(block))
    down = max(16, next_power_of_2(block + 2 * radius))
    stride = max(256 * cdiv(width, 256) + 32, lanes)  # the widths of padded batches share their compilations
    row_taps, column_taps = _taps(height, h, bicubic, not simclr), _taps(width, w, bicubic, not simclr)
    room = (1 + column_taps) * lanes + (1 + row_taps) * down + channels * rows * stride
    taps = max(16, next_power_of_2(radius + 1))
    room += taps + channels * (block + 2 * radius) * w if radius else 0
    room = 16 * cdiv(room, 16)
    warps = max(1, min(32, rows * lanes // THREAD // 32))
    programs = min(batch * blocks, PROGRAMS * _multiprocessors(images.device))

    scratch = torch.empty(programs, room, dtype=torch.float32, device=images.device)
    sums = torch.empty(batch, channels if simclr else 1, blocks, dtype=torch.float32, device=images.device)
    views = torch.empty(batch, channels, h, w, dtype=dtype, device=images.device)
    sizes, crop, flip, jitter, order, grayscale, blur, solarize = (
        x if x is None else x.contiguous() for x in (sizes, crop, flip, jitter, order, grayscale, blur, solarize)
    )
    source = images, *images.stride(), height, width, sizes, crop, flip, jitter, order
    work = scratch, room, batch * blocks
    constants = {
        "h": h,
        "w": w,
        "C": channels,
        "JITTERS": sum(1 << k for k, name in enumerate(JITTERS[: channels + 1]) if name in steps),
        "BICUBIC": bicubic,
        "SIMCLR": simclr,
        "BLOCK": block,
        "ROWS": rows,
        "LANES": lanes,
        "DOWN": down,
        "STRIDE": stride,
        "ROW_TAPS": row_taps,
        "COLUMN_TAPS": column_taps,
        "num_warps": warps,
        "maxnreg": 65536 // max(512, 32 * warps),
    }
    finish = {
        "SCALE": tuple(([1 / s for s in std] or [1.0]) * 3)[:3],
        "OFFSET": tuple(([-m / s for m, s in zip(mean, std)] or [0.0]) * 3)[:3],
        "GRAYSCALE": "grayscale" in steps,
        "SOLARIZE": "solarize" in steps,
        "RADIUS": radius,
        "PARTS": next_power_of_2(blocks),
    }
    with torch.cuda.device_of(images):
        if "contrast" in steps:
            augment_mean_kernel[(programs,)](*source, sums, *work, **constants)
        outputs = *source, grayscale, blur, solarize, views, sums, *work
        augment_sharp_kernel[(programs,)](*outputs, **finish, **constants)
        if radius:
            augment_blur_kernel[(programs,)](*outputs, TAPS=taps, **finish, **constants)
    return views
