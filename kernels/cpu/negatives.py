"""A softmax that streams over negatives, on the CPU: tiles of cosines by torch.mm, one C++ SIMD pass over each."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.contrastive import column_tiles, read_temperature, tile_size
from sslfast.kernels.cpu.memory import empty


def forward(
    rows: Tensor,
    columns: Tensor,
    skip_diagonal: bool,
    temperature: float,
    tau: Tensor | None,
    with_weighted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    shift, total, weighted = sums(
        rows.float(), columns, skip_diagonal, *read_temperature(temperature, tau), with_weighted
    )
    return shift, total.float(), weighted


def sums(
    x: Tensor, columns: Tensor, skip_diagonal: bool, temperature: float, fixed: bool, with_weighted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Shift, float64 sum and weighted sum; in the pass over a tile that sums, its exponentials weight the columns."""
    r, d = x.shape
    shift, total = empty(r, dtype=torch.float32).fill_(1.0 if fixed else -2.0), empty(r, dtype=torch.float64).zero_()
    weighted = empty(r if with_weighted else 0, d, dtype=torch.float32).zero_()
    rescale = empty(r, dtype=torch.float32)
    for tile, part, i, j in column_tiles(x, columns, tile_size(max(r, len(columns)))):
        own = slice(i, i + len(tile))
        _C.softmax_tile(
            tile.data_ptr(), *tile.shape, i, j, skip_diagonal, 1 / temperature, fixed,
            shift[own].data_ptr(), total[own].data_ptr(), rescale[own].data_ptr(),
        )  # fmt: skip
        if with_weighted:
            if not fixed:
                weighted[own] *= rescale[own, None]
            weighted[own].addmm_(tile, part)
    return shift, total, weighted


def backward(
    rows: Tensor,
    columns: Tensor,
    skip_diagonal: bool,
    row_factor: Tensor | None,
    row_shift: Tensor | None,
    column_factor: Tensor | None,
    column_shift: Tensor | None,
    temperature: float,
    tau: Tensor | None,
) -> Tensor:
    temperature, fixed = read_temperature(temperature, tau)
    a, m = _factors(row_factor, row_shift, len(rows), temperature, fixed)
    b, n = _factors(column_factor, column_shift, len(columns), temperature, fixed)
    x = rows.float()
    out = torch.zeros_like(x)
    for tile, part, i, j in column_tiles(x, columns, tile_size(max(x.shape[0], len(columns)))):
        _C.weights_tile(
            tile.data_ptr(), *tile.shape, i, j, skip_diagonal, 0, 1 / temperature, fixed,
            a[i:].data_ptr(), m[i:].data_ptr(), b[j:].data_ptr(), n[j:].data_ptr(),
        )  # fmt: skip
        out[i : i + len(tile)].addmm_(tile, part)
    return out


def _factors(
    factor: Tensor | None, shift: Tensor | None, count: int, temperature: float, fixed: bool
) -> tuple[Tensor, Tensor]:
    """Factors and shifts; where the shifts are to be 1, and where there are no factors, they are 1."""
    ones = empty(count, dtype=torch.float32).fill_(1)
    if factor is None:
        return torch.zeros_like(ones), ones
    if fixed:
        return (factor * torch.exp((1 - shift.double()) / temperature)).float(), ones
    return factor.contiguous(), shift.contiguous()
