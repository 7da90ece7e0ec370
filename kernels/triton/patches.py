"""What the kernels on patches share: their elements, read from the image and rescaled."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


def compact(images: Tensor) -> Tensor:
    """The images, or a copy where one spans 2**31 elements or more: within an image the kernels count in 32 bits."""
    span = sum((size - 1) * stride for size, stride in zip(images.shape[1:], images.stride()[1:]))
    return images if span < 2**31 else images.contiguous()


@triton.jit
def of_channels(channel, VALUES: tl.constexpr):
    """VALUES[channel]."""
    picked = tl.zeros(channel.shape, tl.float32)
    for c in tl.static_range(len(VALUES)):
        picked = tl.where(channel == c, VALUES[c], picked)
    return picked


@triton.jit
def load_patches(
    images,
    strides,
    image,
    patch,
    wanted,
    first,
    P: tl.constexpr,
    C: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
    OFFSET: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """(ROWS, BLOCK) float32: elements first.. of the wanted patches, in the order (row, column, channel).

    x·scale + offset by channel, or x itself where they are empty; the other patches are not read. strides: of image,
    channel, row and column; image, patch and wanted are (ROWS,); COLUMNS patches make a row of an image.
    """
    image_stride, channel_stride, row_stride, column_stride = strides
    # The tile is loaded in another shape than it is used in, so that it gets a layout of its own: the lanes of a warp
    # read neighbouring pixels, the warps share out the patches. That of the result would give each lane several pixels,
    # of several planes and rows.
    LANES: tl.constexpr = BLOCK if BLOCK < 32 else 32
    e = first + tl.arange(0, BLOCK // LANES)[:, None, None] * LANES + tl.arange(0, LANES)[None, None, :]
    offset = e // (P * C) * row_stride + e // C % P * column_stride + e % C * channel_stride
    patch = tl.where(wanted, patch, 0).to(tl.int32)
    corner = (patch // COLUMNS * P).to(tl.int64) * row_stride + (patch % COLUMNS * P).to(tl.int64) * column_stride
    corner += image.to(tl.int64) * image_stride
    mask = wanted[None, :, None]
    if P * P * C % BLOCK != 0:
        mask &= e < P * P * C
    x = tl.load(images + corner[None, :, None] + offset, mask=mask, other=0).to(tl.float32)
    if len(SCALE) > 0:
        x = x * of_channels(e % C, SCALE) + of_channels(e % C, OFFSET)
    return tl.reshape(tl.permute(x, (1, 0, 2)), (patch.shape[0], BLOCK))
