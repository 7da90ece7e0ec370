"""What the kernels on patches share: where their elements lie in an image, and the constants of its channels."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def element_offsets(e, channel_stride, row_stride, column_stride, P: tl.constexpr, C: tl.constexpr):
    """From the corner of a patch to its elements e, which go in the order (row, column, channel)."""
    return e // (P * C) * row_stride + e // C % P * column_stride + e % C * channel_stride


@triton.jit
def corner_offsets(patch, columns, row_stride, column_stride, P: tl.constexpr):
    """From the start of an image to the corners of patches, of which a row has `columns`."""
    patch = patch.to(tl.int32)
    return (patch // columns).to(tl.int64) * P * row_stride + (patch % columns).to(tl.int64) * P * column_stride


@triton.jit
def of_channels(channel, VALUES: tl.constexpr):
    """VALUES[channel]."""
    picked = tl.zeros(channel.shape, tl.float32)
    for c in tl.static_range(len(VALUES)):
        picked = tl.where(channel == c, VALUES[c], picked)
    return picked


@triton.jit
def rescaled(x, channel, SCALE: tl.constexpr, OFFSET: tl.constexpr):
    """x·scale + offset in float32, by channel; x itself where they are empty."""
    x = x.to(tl.float32)
    if len(SCALE) > 0:
        x = x * of_channels(channel, SCALE)[None, :] + of_channels(channel, OFFSET)[None, :]
    return x
