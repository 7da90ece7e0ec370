"""The streaming softmax over negatives on the GPU: for contrastive losses whose negatives come piece by piece.

For R rows and C columns, in operations (a multiplication and an addition are two) and exponentials: forward 2·R·C·D and
R·C, with the weighted sum 4·R·C·D; backward 4·R·C·D and R·C (2·R·C with both factors for τ < 1/64). Above D = 256, and
D = 128 for float32, the forward makes the cosines once for every 256 or 128 features of the weighted sum; float32
products cost three of tf32. The columns come R / tile times from L2, once from memory. Memory beyond inputs and
outputs: 4·R·(D + 2) bytes a split of the columns, of which there are as many as fill the chip once.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from sslfast.kernels.classes import class_sums
from sslfast.kernels.triton import plans, softmax
from sslfast.kernels.triton.softmax_backward_kernels import WEIGHT_UNIT


def forward(
    rows: Tensor,
    columns: Tensor,
    skip_diagonal: bool,
    temperature: float,
    tau: Tensor | None,
    with_weighted: bool,
    row_ids: Tensor | None = None,
    column_ids: Tensor | None = None,
    positives: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """E_ij = exp((rows_i·columns_j − shift_i)/τ): shift (R,), Σ_j E_ij (R,) and Σ_j E_ij columns_j (R, D) or (0, D);
    how many of these columns are closer than the row of positives (R, D), int64 (R,), or (0,).

    rows (R, D), columns (C, D): unit rows of one dtype, contiguous. tau: a 0-dim tensor that replaces temperature.
    Pairs of one id are left out.
    No exponent of E is above 0 by more than rounding.
    """
    temperature = ctypes.c_float(temperature).value  # as the kernels get it
    with torch.cuda.device_of(rows):
        skip, ids = "self" if skip_diagonal else "none", (row_ids, column_ids)
        positive = None if positives is None else (rows.float() * positives.float()).sum(dim=1)
        sums = softmax.streaming_sums(rows, columns, skip, temperature, tau, with_weighted, ids, positive=positive)
        _, shift, total, weighted = softmax.combine(sums, None, temperature, tau)
    return shift, total, shift.new_empty(0, rows.shape[1]) if weighted is None else weighted, sums.rank


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
    row_ids: Tensor | None = None,
    column_ids: Tensor | None = None,
) -> Tensor:
    """Σ_j W_ij columns_j (R, D), W_ij = exp((c_ij − row_shift_i)/τ)·row_factor_i + the same with column_…_j.

    In float16 the weights are held relative to the largest factor: no shift is below its row's or column's cosines.
    """
    temperature = ctypes.c_float(temperature).value
    with torch.cuda.device_of(rows):
        parts = [(row_factor, row_shift), (column_factor, column_shift)]
        largest = None
        if rows.dtype == torch.float16:
            largest = torch.cat([factor for factor, _ in parts if factor is not None]).abs().max()
        factors = []
        for factor, shift in parts:
            if factor is None:
                factors += [None, None]
            else:
                shift = shift.contiguous()
                factors += [softmax.relative_factors(factor, shift, None, largest, temperature, tau), shift]
        skip = "self" if skip_diagonal else "none"
        both = softmax.Factors(*factors, row_ids, column_ids)
        du = softmax.weighted_sums(both, rows, columns, skip, temperature, tau, plans.SPLITS)
        total = du[0] if len(du) == 1 else du.sum(dim=0)
        return total if largest is None else total * torch.where(largest == 0, 1, largest * WEIGHT_UNIT.value)


def among_forward(
    rows: Tensor,
    ids: Tensor | None,
    labels: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    with_cosines: bool,
    with_rank: bool = False,
) -> tuple[Tensor, ...]:
    """Of rows among themselves: shift and sum (R,) over all others that have not its id, and the sum of the cosines
    with those of its label, a row with the sum of a class; no cosines are kept. How many of these others are closer
    than the row R / 2 apart."""
    partners = rows.roll(len(rows) // 2, 0) if with_rank else None
    shift, total, _, rank = forward(rows, rows, True, temperature, tau, False, ids, ids, partners)
    positive = shift.new_empty(0)
    if labels is not None:
        u = rows.to(torch.float32)
        positive = (u * (class_sums(labels, u, labels) - u)).sum(dim=1)
    return shift, total, positive, shift.new_empty(0), rank


def among_backward(
    rows: Tensor,
    ids: Tensor | None,
    labels: Tensor | None,
    factor: Tensor,
    shift: Tensor,
    pull: Tensor | None,
    cosines: Tensor,
    temperature: float,
    tau: Tensor | None,
) -> Tensor:
    """Σ_j (E_ij·factor_i + E_ji·factor_j) rows_j (R, D), less the sum of (pull_i + pull_j) rows_j over one label."""
    du = backward(rows, rows, True, factor, shift, factor, shift, temperature, tau, ids, ids)
    if labels is None:
        return du
    u = rows.to(torch.float32)
    pulled = pull[:, None] * u
    return du - pull[:, None] * (class_sums(labels, u, labels) - u) - (class_sums(labels, pulled, labels) - pulled)
