"""The kept tokens of each image, and their gradients back in place: one copy of rows each way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.rows import load_slot, row_tile, slot_map
from sslfast.kernels.triton.sizes import cdiv


@triton.jit
def gather_tokens_fwd_kernel(
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


@triton.jit
def gather_tokens_bwd_kernel(
    grad,
    index,
    slots,
    out,
    count,
    kept,
    image_stride,
    row_stride,
    column_stride,
    R: tl.constexpr,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[b, r] = Σ_k grad[b, k] over the k with index[b, k] = r; R rows an image, count in all."""
    CHUNKS: tl.constexpr = tl.cdiv(D, BLOCK)
    row = tl.program_id(0) // CHUNKS * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(0) % CHUNKS * BLOCK + tl.arange(0, BLOCK)
    image = (row // R).to(tl.int64)
    within = (column < D)[None, :]
    number, slot = load_slot(slots + row, row < count)
    pointers = grad + (image * image_stride)[:, None] + (column.to(tl.int64) * column_stride)[None, :]
    places = out + row.to(tl.int64)[:, None] * D + column[None, :]
    x = tl.load(pointers + (slot * row_stride)[:, None], mask=(number == 1)[:, None] & within, other=0)
    tl.store(places, x, mask=((number < 2) & (row < count))[:, None] & within)
    if tl.max(number, axis=0) > 1:
        total = tl.zeros((ROWS, BLOCK), tl.float32)
        for k in tl.range(kept, num_stages=1):  # rare: to load ahead would take registers from what is not
            here = tl.load(index + image * kept + k, mask=number > 1, other=-1) == row % R
            total += tl.load(pointers + k * row_stride, mask=here[:, None] & within, other=0).to(tl.float32)
        tl.store(places, total.to(out.dtype.element_ty), mask=(number > 1)[:, None] & within)


def forward(tokens: Tensor, keep: Tensor) -> Tensor:
    """tokens (B, L, D), any strides, and keep (B, K) to (B, K, D).

    An index outside [0, L) gives a row of NaN, of the least integers, or of False.
    """
    dtype = tokens.dtype
    if dtype == torch.bool:
        tokens = tokens.view(torch.uint8)
    _, source_rows, d = tokens.shape
    batch, kept = keep.shape
    out = torch.empty(batch, kept, d, dtype=tokens.dtype, device=tokens.device)
    rows, block = row_tile(d)
    # A NaN among the compile-time constants would equal none before it: a compilation a call. So fill is an argument.
    fill = float("nan") if dtype.is_floating_point else torch.iinfo(tokens.dtype).min
    with torch.cuda.device_of(tokens):
        gather_tokens_fwd_kernel[(cdiv(batch * kept, rows) * cdiv(d, block),)](
            tokens,
            keep.contiguous(),
            out,
            fill,
            batch * kept,
            source_rows,
            *tokens.stride(),
            R=kept,
            D=d,
            ROWS=rows,
            BLOCK=block,
            num_warps=4,
        )
    return out.view(dtype)


def backward(grad: Tensor, keep: Tensor, num_tokens: int) -> Tensor:
    """grad (B, K, D), any strides, to (B, L, D): for each token the sum of its rows, taken in order."""
    batch, kept, d = grad.shape
    keep = keep.contiguous()
    out = torch.empty(batch, num_tokens, d, dtype=grad.dtype, device=grad.device)
    rows, block = row_tile(d)
    with torch.cuda.device_of(grad):
        gather_tokens_bwd_kernel[(cdiv(batch * num_tokens, rows) * cdiv(d, block),)](
            grad,
            keep,
            slot_map(keep, num_tokens),
            out,
            batch * num_tokens,
            kept,
            *grad.stride(),
            R=num_tokens,
            D=d,
            ROWS=rows,
            BLOCK=block,
            num_warps=4,
        )
    return out
