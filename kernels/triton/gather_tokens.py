"""The kept tokens of each image, and their gradients back in place: one copy of rows each way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.rows import row_tile, slot_map
from sslfast.kernels.triton.sizes import cdiv


@triton.jit
def _take_rows(
    source,
    index,
    out,
    fill,
    count,
    source_rows,
    image_stride,
    row_stride,
    column_stride,
    R: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[b, r] = source[b, index[b, r]], or fill where there is no such row; R rows an image, count in all."""
    CHUNKS: tl.constexpr = tl.cdiv(D, BLOCK)
    row = tl.program_id(0) // CHUNKS * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % CHUNKS * BLOCK + tl.arange(0, BLOCK)
    taken = tl.load(index + row, mask=row < count, other=-1).to(tl.int64)
    begin = (row // R).to(tl.int64) * image_stride + taken * row_stride
    known = (taken >= 0) & (taken < source_rows)
    within = (column < D)[None, :]
    pointers = source + begin[:, None] + (column.to(tl.int64) * column_stride)[None, :]
    x = tl.load(pointers, mask=known[:, None] & within, other=fill)
    tl.store(out + row.to(tl.int64)[:, None] * D + column[None, :], x, mask=(row < count)[:, None] & within)


def _take(source: Tensor, index: Tensor, fill: float | int) -> Tensor:
    _, source_rows, d = source.shape
    batch, rows = index.shape
    out = torch.empty(batch, rows, d, dtype=source.dtype, device=source.device)
    tile_rows, block = row_tile(d)
    # A NaN among the compile-time constants would equal none before it: a compilation a call. So fill is an argument.
    _take_rows[(cdiv(batch * rows, tile_rows) * cdiv(d, block),)](
        source, index, out, fill, batch * rows, source_rows, *source.stride(),
        R=rows, D=d, ROWS=tile_rows, BLOCK=block, num_warps=4,
    )  # fmt: skip
    return out


def forward(tokens: Tensor, keep: Tensor) -> Tensor:
    """tokens (B, L, D), any strides, and keep (B, K) to (B, K, D).

    An index outside [0, L) gives a row of NaN, of the least integers, or of False.
    """
    dtype = tokens.dtype
    if dtype == torch.bool:
        tokens = tokens.view(torch.uint8)
    fill = float("nan") if dtype.is_floating_point else torch.iinfo(tokens.dtype).min
    with torch.cuda.device_of(tokens):
        return _take(tokens, keep.contiguous(), fill).view(dtype)


def backward(grad: Tensor, keep: Tensor, num_tokens: int) -> Tensor:
    """grad (B, K, D), any strides, to (B, L, D), zero where a token was not kept."""
    with torch.cuda.device_of(grad):
        return _take(grad, slot_map(keep.contiguous(), num_tokens), 0.0)
