"""Launches of the streaming softmax, forward and backward, and which variants of a kernel these are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sslfast.kernels.triton import plans
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2
from sslfast.kernels.triton.softmax_backward_kernels import (
    add_panel_kernel,
    softmax_bwd_factors_kernel,
    softmax_bwd_panel_weights_kernel,
    softmax_bwd_weighted_rows_kernel,
    temperature_grad_kernel,
)
from sslfast.kernels.triton.softmax_forward_kernels import softmax_combine_kernel, softmax_fwd_kernel
from sslfast.kernels.triton.tiles import FIXED_SHIFT_FROM


def variants(
    temperature: float, tau: Tensor | None, fixed_shift_from: float = FIXED_SHIFT_FROM.value
) -> tuple[bool, ...]:
    """Which FIXED_SHIFT to launch; of a tensor both, one of which returns at once."""
    if fixed_shift_from == math.inf:
        return (False,)
    return (True, False) if tau is not None else (temperature >= fixed_shift_from,)


class Sums(NamedTuple):
    """Of splits of the columns, for combine: partial (2, splits, R), the sums and what they are relative to, or
    (1, splits, R) with a fixed shift alone; weighted (splits, R, D) or None; the temperature from which it is fixed."""

    partial: Tensor
    weighted: Tensor | None
    fixed_shift_from: float
    closer: Tensor | None = None  # (splits, R) int32, if wanted

    @property
    def rank(self) -> Tensor:
        """How many columns are closer, int64 (R,), or (0,) if not wanted."""
        return self.partial.new_empty(0, dtype=torch.int64) if self.closer is None else self.closer.sum(dim=0)


def streaming_sums(
    rows: Tensor,
    columns: Tensor,
    skip: str,
    temperature: float,
    tau: Tensor | None,
    with_weighted: bool,
    ids: tuple[Tensor | None, Tensor | None] = (None, None),
    fixed_shift_from: float = FIXED_SHIFT_FROM.value,
    positive: Tensor | None = None,
) -> Sums:
    """Sums of exponentials, and of columns weighted by them, over splits of the columns; but of pairs of one id.

    fixed_shift_from: infinite for products that are no cosines. positive (R,): count the columns closer than that.
    """
    (r, d), c = rows.shape, len(columns)
    kernel = "sums" if not with_weighted else "weighted_sums" if positive is None else "ranked_sums"
    schedule = plans.plan(kernel, r, c, d, rows.dtype, rows.device)
    owned = schedule.owned if with_weighted else d
    row_blocks, feature_blocks = cdiv(r, schedule.rows), cdiv(d, owned)
    width = plans.split_columns(row_blocks * feature_blocks, c, schedule.columns, plans.SPLITS, rows.device)
    splits = cdiv(c, width)
    # float16 cannot hold the weights exp(s) at any temperature, only those relative to the highest.
    fixed_shift_from = math.inf if with_weighted and rows.dtype == torch.float16 else fixed_shift_from
    launched = variants(temperature, tau, fixed_shift_from)
    partial = torch.empty(2 if False in launched else 1, splits, r, dtype=torch.float32, device=rows.device)
    weighted = partial.new_empty(splits, r, d) if with_weighted else None
    closer = None if positive is None else partial.new_empty(splits, r, dtype=torch.int32)
    for fixed_shift in launched:
        softmax_fwd_kernel[(row_blocks, splits, feature_blocks)](
            rows,
            columns,
            *ids,
            partial,
            weighted,
            positive,
            closer,
            r,
            c,
            width,
            temperature,
            tau,
            fixed_shift_from,
            SKIP=skip,
            FIXED_SHIFT=fixed_shift,
            WGMMA=schedule.wgmma,
            BLOCK_F=schedule.owned,
            **schedule.options,
        )
    return Sums(partial, weighted, fixed_shift_from, closer)


def row_sums(
    partial: Tensor,
    rows: Tensor,
    columns: Tensor,
    skip: str,
    width: int,
    temperature: float,
    tau: Tensor | None,
    plan: plans.Plan,
) -> None:
    """Into partial (2, splits, R) the sums over splits of `width` columns, without a fixed shift."""
    r, c = len(rows), len(columns)
    softmax_fwd_kernel[(cdiv(r, plan.rows), partial.shape[1], 1)](
        rows,
        columns,
        None,
        None,
        partial,
        None,
        None,
        None,
        r,
        c,
        width,
        temperature,
        tau,
        FIXED_SHIFT_FROM.value,
        SKIP=skip,
        FIXED_SHIFT=False,
        WGMMA=plan.wgmma,
        BLOCK_F=plan.owned,
        **plan.options,
    )


def combine(
    sums: Sums, positive: Tensor | None, temperature: float, tau: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
    """(losses, shift, inverse sum, mean) with the cosines of positive pairs, else (None, shift, sum, weighted sum)."""
    partial, weighted, fixed_shift_from, _ = sums
    _, splits, r = partial.shape
    losses = None if positive is None else partial.new_empty(r)
    shift, total = partial.new_empty(r), partial.new_empty(r)
    n = r if positive is None else len(positive)
    mean, d, block, chunk, rows = None, 1, 1, 1, 32
    if weighted is not None:
        d = weighted.shape[2]
        mean = partial.new_empty(r, d)
        block = next_power_of_2(d)
        chunk = min(next_power_of_2(splits), 16, max(1, 2048 // block))  # splits in flight at once
        rows = min(32, max(1, 2048 // (chunk * block)))
    softmax_combine_kernel[(cdiv(r, rows),)](
        partial,
        weighted,
        positive,
        losses,
        shift,
        total,
        mean,
        r,
        n,
        splits,
        temperature,
        tau,
        fixed_shift_from,
        D=d,
        SPLITS=next_power_of_2(splits),
        CHUNK=chunk,
        ROWS=rows,
        BLOCK_D=block,
    )
    return losses, shift, total, mean


class Factors(NamedTuple):
    """Of W_ij = exp((c_ij − row_shift_i)/τ)·row_i + exp((c_ij − column_shift_j)/τ)·column_j; a part may be None."""

    row: Tensor | None
    row_shift: Tensor | None
    column: Tensor | None
    column_shift: Tensor | None
    row_ids: Tensor | None = None  # pairs of the same id have no weight
    column_ids: Tensor | None = None


def relative_factors(
    grad: Tensor,
    shift: Tensor,
    inverse_sum: Tensor | None,
    largest: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    fixed_shift_from: float = FIXED_SHIFT_FROM.value,
) -> Tensor:
    """grad (M,), times inverse_sum, as weighted_sums takes it; largest: a bound of its size, for float16."""
    factors = torch.empty_like(shift)
    softmax_bwd_factors_kernel[(cdiv(len(shift), 256),)](
        grad,
        grad.stride(0),
        shift,
        inverse_sum,
        largest,
        factors,
        len(shift),
        temperature,
        tau,
        fixed_shift_from,
        ROWS=256,
    )
    return factors


def weighted_sums(
    factors: Factors,
    rows: Tensor,
    columns: Tensor,
    skip: str,
    temperature: float,
    tau: Tensor | None,
    most: int,
    fixed_shift_from: float = FIXED_SHIFT_FROM.value,
) -> Tensor:
    """W·columns as (splits, R, D) to be added, at most so many splits."""
    by_panels = rows.dtype == torch.float32 or rows.shape[1] > 256
    if by_panels:
        return _sums_by_panels(factors, rows, columns, skip, temperature, tau, fixed_shift_from)
    return _sums_by_rows(factors, rows, columns, skip, temperature, tau, most, fixed_shift_from)


def _sums_by_rows(
    factors: Factors,
    rows: Tensor,
    columns: Tensor,
    skip: str,
    temperature: float,
    tau: Tensor | None,
    most: int,
    fixed_shift_from: float,
) -> Tensor:
    """Rows in registers, and their columns split until they fill the chip."""
    (r, d), c = rows.shape, len(columns)
    schedule = plans.plan("weighted_rows", r, c, d, rows.dtype, rows.device)
    row_blocks = cdiv(r, schedule.rows)
    width = plans.split_columns(row_blocks, c, schedule.columns, most, rows.device)
    du = torch.empty(cdiv(c, width), r, d, dtype=torch.float32, device=rows.device)
    for fixed_shift in variants(temperature, tau, fixed_shift_from):
        softmax_bwd_weighted_rows_kernel[(row_blocks, len(du))](
            *factors,
            rows,
            columns,
            du,
            r,
            c,
            width,
            temperature,
            tau,
            fixed_shift_from,
            SKIP=skip,
            FIXED_SHIFT=fixed_shift,
            WGMMA=schedule.wgmma,
            **schedule.options,
        )
    return du


def _sums_by_panels(
    factors: Factors,
    rows: Tensor,
    columns: Tensor,
    skip: str,
    temperature: float,
    tau: Tensor | None,
    fixed_shift_from: float,
) -> Tensor:
    """Where the rows do not fit in registers: W in panels of its columns."""
    (r, d), c = rows.shape, len(columns)
    schedule = plans.plan("panel_weights", r, c, d, rows.dtype, rows.device)
    product = plans.plan("add_panel", r, c, d, rows.dtype, rows.device)
    width = plans.panel_width(rows)
    weights = rows.new_empty(r, width)
    du = torch.empty(1, r, d, dtype=torch.float32, device=rows.device)
    for panel in range(0, c, width):
        grid = (cdiv(min(width, c - panel), schedule.columns), cdiv(r, schedule.rows))
        for fixed_shift in variants(temperature, tau, fixed_shift_from):
            softmax_bwd_panel_weights_kernel[grid](
                *factors,
                rows,
                columns,
                weights,
                panel,
                r,
                c,
                temperature,
                tau,
                fixed_shift_from,
                WIDTH=width,
                SKIP=skip,
                FIXED_SHIFT=fixed_shift,
                **schedule.options,
            )
        grid = (cdiv(r, product.rows), cdiv(d, product.columns))
        add_panel_kernel[grid](weights, columns, du, panel, r, c, WIDTH=width, **product.options)
    return du


def temperature_gradient(radial: Tensor | None, share: float, tau: Tensor | None, device: torch.device) -> Tensor:
    """−share·Σ radial / τ, 0-dim; of a plain number, to which there is no gradient, undefined and nothing launched."""
    dtau = torch.empty((), dtype=torch.float32, device=device)
    if tau is not None:
        temperature_grad_kernel[(1,)](radial, dtau, radial.numel(), share, tau, BLOCK=1024)
    return dtau
