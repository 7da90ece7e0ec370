"""Tokens back in their places, the mask token in the others, and positions added, in one pass; two for the gradients.

A program has one token of several images, which share its position; a gradient's sums over the images are taken a group
at a time, then over the groups.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton import gather_tokens
from sslfast.kernels.triton.rows import row_tile
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2

ROWS = 4  # tokens whose mask-token gradients a program sums
WAVES = 4  # tiles of images whose gradients it sums, where there are images enough


@triton.jit
def restore_tokens_fwd_kernel(
    visible,
    restore,
    mask_token,
    pos_embed,
    out,
    batch,
    kept,
    rows,
    image_stride,
    row_stride,
    column_stride,
    mask_stride,
    pos_row_stride,
    pos_column_stride,
    D: tl.constexpr,
    IMAGES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    CHUNKS: tl.constexpr = tl.cdiv(D, BLOCK)
    row = (tl.program_id(0) // CHUNKS).to(tl.int64)
    column = tl.program_id(0) % CHUNKS * BLOCK + tl.arange(0, BLOCK)
    image = tl.program_id(1).to(tl.int64) * IMAGES + tl.arange(0, IMAGES)
    within = column < D
    slot = tl.load(restore + image * rows + row, mask=image < batch, other=-1)
    pointers = visible + (image * image_stride + slot * row_stride)[:, None]
    pointers += (column.to(tl.int64) * column_stride)[None, :]
    known = (slot >= 0) & (slot < kept)
    x = tl.load(pointers, mask=known[:, None] & within[None, :], other=float("nan")).to(tl.float32)
    mask = tl.load(mask_token + column.to(tl.int64) * mask_stride, mask=within, other=0.0).to(tl.float32)
    x = tl.where((slot >= kept)[:, None], mask[None, :], x)
    if pos_embed is not None:
        pointers = pos_embed + row * pos_row_stride + column.to(tl.int64) * pos_column_stride
        x += tl.load(pointers, mask=within, other=0.0).to(tl.float32)[None, :]
    pointers = out + ((image * rows + row) * D)[:, None] + column[None, :]
    tl.store(pointers, x.to(out.dtype.element_ty), mask=(image < batch)[:, None] & within[None, :])


@triton.jit
def restore_tokens_bwd_kernel(
    grad,
    restore,
    mask_sums,
    pos_sums,
    batch,
    kept,
    rows,
    size,
    image_stride,
    row_stride,
    column_stride,
    D: tl.constexpr,
    IMAGES: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """BLOCK features of ROWS tokens of a group of `size` images: of masked tokens all in one, and of every token."""
    CHUNKS: tl.constexpr = tl.cdiv(D, BLOCK)
    first = tl.program_id(0) // CHUNKS * ROWS
    column = tl.program_id(0) % CHUNKS * BLOCK + tl.arange(0, BLOCK)
    within = column < D
    group = tl.program_id(1)
    masked_total = tl.zeros((BLOCK,), tl.float32)
    for row in range(first, tl.minimum(first + ROWS, rows)):
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(group * size, tl.minimum((group + 1) * size, batch), IMAGES):
            image = tl.cast(start, tl.int64) + tl.arange(0, IMAGES)
            slot = tl.load(restore + image * rows + row, mask=image < batch, other=-1)
            begin = image * image_stride + tl.cast(row, tl.int64) * row_stride
            inside = (image < batch)[:, None] & within[None, :]
            g = tl.load(grad + begin[:, None] + (column * column_stride)[None, :], mask=inside, other=0.0)
            g = g.to(tl.float32)
            total += tl.sum(g, axis=0)
            masked_total += tl.sum(tl.where((slot >= kept)[:, None], g, 0.0), axis=0)
        if pos_sums is not None:
            tl.store(pos_sums + (group.to(tl.int64) * rows + row) * D + column, total, mask=within)
    block = group.to(tl.int64) * tl.cdiv(rows, ROWS) + first // ROWS
    tl.store(mask_sums + block * D + column, masked_total, mask=within)


def forward(visible: Tensor, restore: Tensor, mask_token: Tensor, pos_embed: Tensor | None) -> Tensor:
    """(B, L, D) in the dtype of visible (B, K, D): visible[b, restore[b, l]], or mask_token (D,), + pos_embed (L, D).

    restore: (B, L), K and above for masked tokens; a negative index gives a row of NaN. Any strides.
    """
    batch, kept, d = visible.shape
    rows = restore.shape[1]
    out = torch.empty(batch, rows, d, dtype=visible.dtype, device=visible.device)
    tile_images, block = row_tile(d)
    images = min(tile_images, next_power_of_2(batch))
    pos_strides = (0, 0) if pos_embed is None else pos_embed.stride()
    with torch.cuda.device_of(visible):
        restore_tokens_fwd_kernel[(rows * cdiv(d, block), cdiv(batch, images))](
            visible,
            restore.contiguous(),
            mask_token,
            pos_embed,
            out,
            batch,
            kept,
            rows,
            *visible.stride(),
            *mask_token.stride(),
            *pos_strides,
            D=d,
            IMAGES=images,
            BLOCK=block,
            num_warps=4,
        )
    return out


def backward(grad: Tensor, restore: Tensor, num_visible: int, with_pos: bool) -> tuple[Tensor, Tensor, Tensor]:
    """dvisible (B, K, D) in the dtype of grad (B, L, D); dmask_token (D,) and dpos (L, D), or (0, D), in float32.

    restore: (B, L). Any strides.
    """
    grad = grad if grad.stride(2) <= 1 else grad.contiguous()
    batch, rows, d = grad.shape
    tile_images, block = row_tile(d)
    images = min(tile_images, next_power_of_2(batch))
    size = images * max(1, min(WAVES, batch // (8 * images)))
    groups, row_blocks = cdiv(batch, size), cdiv(rows, ROWS)
    mask_sums = torch.empty(groups * row_blocks, d, dtype=torch.float32, device=grad.device)
    pos_sums = torch.empty(groups, rows if with_pos else 0, d, dtype=torch.float32, device=grad.device)
    with torch.cuda.device_of(grad):
        restore_tokens_bwd_kernel[(row_blocks * cdiv(d, block), groups)](
            grad,
            restore.contiguous(),
            mask_sums,
            pos_sums if with_pos else None,
            batch,
            num_visible,
            rows,
            size,
            *grad.stride(),
            D=d,
            IMAGES=images,
            ROWS=ROWS,
            BLOCK=block,
            num_warps=4,
        )
    dvisible = gather_tokens.backward(grad, restore, num_visible)
    return dvisible, mask_sums.sum(0), pos_sums[0] if groups == 1 else pos_sums.sum(0)
