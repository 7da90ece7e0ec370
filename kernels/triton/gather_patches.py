"""The kept patches of each image, normalised; only they are read. Backward is one dense write of the image."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.patches import compact, load_patches, of_channels
from sslfast.kernels.triton.rows import TILE, load_slot, row_tile, slot_map
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2


@triton.jit
def gather_patches_fwd_kernel(
    images,
    keep,
    out,
    count,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    KEPT: tl.constexpr,
    PATCHES: tl.constexpr,
    COLUMNS: tl.constexpr,
    P: tl.constexpr,
    C: tl.constexpr,
    SCALE: tl.constexpr,
    OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK elements of ROWS patches, which count through all images."""
    CHUNKS: tl.constexpr = tl.cdiv(P * P * C, BLOCK)
    strides = (image_stride, channel_stride, row_stride, column_stride)
    row = tl.program_id(0) // CHUNKS * ROWS + tl.arange(0, ROWS)
    first = tl.program_id(0) % CHUNKS * BLOCK
    patch = tl.load(keep + row, mask=row < count, other=-1)
    known = (patch >= 0) & (patch < PATCHES)
    x = load_patches(images, strides, row // KEPT, patch, known, first, P, C, COLUMNS, SCALE, OFFSET, BLOCK)
    x = tl.where(known[:, None], x, float("nan")).to(out.dtype.element_ty)
    e = first + tl.arange(0, BLOCK)
    pointers = out + row.to(tl.int64)[:, None] * (P * P * C) + e[None, :]
    tl.store(pointers, x, mask=(row < count)[:, None] & (e < P * P * C)[None, :])


@triton.jit
def gather_patches_bwd_kernel(
    grad,
    keep,
    slots,
    dimages,
    kept,
    chunks,
    P: tl.constexpr,
    C: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    SCALE: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """All channels of BLOCK pixels, which lie together in the rows of grad that are of their patch."""
    image = (tl.program_id(0) // chunks).to(tl.int64)
    pixel = tl.program_id(0) % chunks * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, CHANNELS)
    y, x = pixel // WIDTH, pixel % WIDTH
    patch = y // P * (WIDTH // P) + x // P
    number, slot = load_slot(slots + image * (HEIGHT // P * (WIDTH // P)) + patch, pixel < HEIGHT * WIDTH)
    inside = (channel < C)[:, None] & (pixel < HEIGHT * WIDTH)[None, :]
    pointers = grad + image * kept * (P * P * C) + ((y % P * P + x % P) * C)[None, :] + channel[:, None]
    g = tl.load(pointers + (slot * (P * P * C))[None, :], mask=(number == 1)[None, :] & inside, other=0).to(tl.float32)
    if tl.max(number, axis=0) > 1:
        for k in tl.range(kept, num_stages=1):  # rare: to load ahead would take registers from what is not
            here = (number > 1) & (tl.load(keep + image * kept + k) == patch)
            g += tl.load(pointers + tl.cast(k, tl.int64) * (P * P * C), mask=here[None, :] & inside, other=0)
    if len(SCALE) > 0:
        g *= of_channels(channel, SCALE)[:, None]
    pointers = dimages + (image * C + channel[:, None]) * (HEIGHT * WIDTH) + pixel[None, :]
    tl.store(pointers, g.to(dimages.dtype.element_ty), mask=inside)


def forward(
    images: Tensor, keep: Tensor, patch_size: int, scale: list[float], offset: list[float], dtype: torch.dtype
) -> Tensor:
    """images (B, C, H, W), any strides, and keep (B, K) to (B, K, P·P·C) = x·scale + offset, of `dtype`.

    An index outside the image gives a patch of NaN. scale and offset: C numbers each, or none.
    """
    batch, channels, height, width = images.shape
    images, kept = compact(images), keep.shape[1]
    size = patch_size * patch_size * channels
    out = torch.empty(batch, kept, size, dtype=dtype, device=images.device)
    rows, block = row_tile(size)
    columns = width // patch_size
    with torch.cuda.device_of(images):
        gather_patches_fwd_kernel[(cdiv(batch * kept, rows) * cdiv(size, block),)](
            images,
            keep.contiguous(),
            out,
            batch * kept,
            *images.stride(),
            KEPT=kept,
            PATCHES=height // patch_size * columns,
            COLUMNS=columns,
            P=patch_size,
            C=channels,
            SCALE=tuple(scale),
            OFFSET=tuple(offset),
            ROWS=rows,
            BLOCK=block,
            num_warps=4,
        )
    return out


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
    """grad (B, K, P·P·C) to (B, C, H, W) of `dtype`: for each patch the sum of its rows, taken in order."""
    batch, kept, _ = grad.shape
    dimages = torch.empty(batch, channels, height, width, dtype=dtype, device=grad.device)
    with torch.cuda.device_of(grad):
        keep = keep.contiguous()
        slots = slot_map(keep, height // patch_size * (width // patch_size))
        block_channels = next_power_of_2(channels)
        block = max(1, TILE // block_channels)
        chunks = cdiv(height * width, block)
        gather_patches_bwd_kernel[(batch * chunks,)](
            grad.contiguous(),
            keep,
            slots,
            dimages,
            kept,
            chunks,
            P=patch_size,
            C=channels,
            HEIGHT=height,
            WIDTH=width,
            SCALE=tuple(scale),
            CHANNELS=block_channels,
            BLOCK=block,
            num_warps=4,
        )
    return dimages
