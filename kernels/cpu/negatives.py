"""A softmax that streams over negatives, on the CPU: 2 or, with the weighted sum, 4 R·C·D operations; backward 4."""

from __future__ import annotations

from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.contrastive import floats, rows, value


def forward(
    x: Tensor, columns: Tensor, skip_diagonal: bool, temperature: float, tau: Tensor | None, with_weighted: bool
) -> tuple[Tensor, Tensor, Tensor]:
    x, columns = x.contiguous(), columns.contiguous()
    count, d = x.shape
    shift, total, weighted = floats(count), floats(count), floats(count if with_weighted else 0, d)
    _C.negatives_forward(
        rows(x),
        count,
        rows(columns),
        len(columns),
        skip_diagonal,
        value(temperature, tau),
        shift.data_ptr(),
        total.data_ptr(),
        rows(weighted) if with_weighted else None,
    )
    return shift, total, weighted


def backward(
    x: Tensor,
    columns: Tensor,
    skip_diagonal: bool,
    row_factor: Tensor | None,
    row_shift: Tensor | None,
    column_factor: Tensor | None,
    column_shift: Tensor | None,
    temperature: float,
    tau: Tensor | None,
) -> Tensor:
    x, columns, out = x.contiguous(), columns.contiguous(), floats(*x.shape)
    factors = [f if f is None else f.contiguous() for f in (row_factor, row_shift, column_factor, column_shift)]
    _C.negatives_backward(
        rows(x),
        len(x),
        rows(columns),
        len(columns),
        skip_diagonal,
        *(0 if f is None else f.data_ptr() for f in factors),
        value(temperature, tau),
        rows(out),
    )
    return out
