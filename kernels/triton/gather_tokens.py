"""The kept tokens of each image, and their gradients back in place: one copy of rows each way."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.slots import slot_map

TILE_BYTES = 8192


@triton.jit
def _take_rows(
    source, index, out, rows, source_rows, chunks, image_stride, row_stride, column_stride,
    D: tl.constexpr, BLOCK: tl.constexpr, FILL: tl.constexpr,
):  # fmt: skip
    """out[b, r] = source[b, index[b, r]], or FILL where there is no such row."""
    image = (tl.program_id(0) // chunks).to(tl.int64)
    # Elements of one image in a row, so that no lane idles whatever D is.
    element = tl.program_id(0) % chunks * BLOCK + tl.arange(0, BLOCK)
    inside = element < rows * D
    row = tl.load(index + image * rows + element // D, mask=inside, other=-1).to(tl.int64)
    pointers = source + image * image_stride + row * row_stride + element % D * column_stride
    x = tl.load(pointers, mask=(row >= 0) & (row < source_rows), other=FILL)
    tl.store(out + image * rows * D + element, x, mask=inside)


def _take(source: Tensor, index: Tensor, fill: float) -> Tensor:
    batch, source_rows, d = source.shape
    rows = index.shape[1]
    out = torch.empty(batch, rows, d, dtype=source.dtype, device=source.device)
    block = TILE_BYTES // source.element_size()
    chunks = triton.cdiv(rows * d, block)
    _take_rows[(batch * chunks,)](
        source, index, out, rows, source_rows, chunks, *source.stride(), D=d, BLOCK=block, FILL=fill, num_warps=4
    )
    return out


def forward(tokens: Tensor, keep: Tensor) -> Tensor:
    """tokens (B, L, D), any strides, and keep (B, K) to (B, K, D); an index outside [0, L) gives a row of NaN."""
    with torch.cuda.device_of(tokens):
        return _take(tokens, keep.contiguous(), float("nan"))


def backward(grad: Tensor, keep: Tensor, num_tokens: int) -> Tensor:
    """grad (B, K, D), any strides, to (B, L, D), zero where a token was not kept."""
    with torch.cuda.device_of(grad):
        return _take(grad, slot_map(keep.contiguous(), num_tokens), 0.0)
