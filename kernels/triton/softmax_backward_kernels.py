"""The backward kernels of the softmax of `softmax_forward_kernels`: Σ_j W_ij columns_j with
W_ij = exp((c_ij − shift_i)/τ)·a_i + exp((c_ij − shift_j)/τ)·b_j, and what ends a backward pass."""

from __future__ import annotations

import triton
import triton.language as tl

from sslfast.kernels.triton.tiles import (
    LOG2E,
    add_product,
    cosines,
    expm1,
    first_row,
    load_tile,
    negatives,
    opaque,
    read_temperature,
)

WEIGHT_UNIT = tl.constexpr(2.0**-14)  # of the largest factor, see weight_unit


@triton.jit
def weight_unit(largest):
    """What W is divided by: float16 could not hold weights of about g/C, so they are kept within ±2**15."""
    if largest is None:
        return 1.0
    else:
        largest = tl.load(largest).to(tl.float32)
        return tl.where(largest == 0, 1.0, largest * WEIGHT_UNIT)


@triton.jit
def softmax_bwd_factors_kernel(
    grad,
    stride,
    shift,
    inverse_sum,
    largest,
    factors,
    M,
    temperature,
    tau,
    fixed_shift_from: tl.constexpr,
    ROWS: tl.constexpr,
):
    """factors (M,): grad, times inverse_sum if given; for a fixed shift relative to exp(c), not exp(c − shift)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < M
    temperature = read_temperature(temperature, tau)
    factor = tl.load(grad + rows.to(tl.int64) * stride, mask=inside, other=0.0) / weight_unit(largest)
    if inverse_sum is not None:
        factor *= tl.load(inverse_sum + rows, mask=inside, other=0.0)
    if temperature >= fixed_shift_from:
        beta = tl.div_rn(LOG2E, temperature)
        factor *= tl.exp2(-beta * tl.load(shift + rows, mask=inside, other=0.0))
    tl.store(factors + rows, factor, mask=inside)


@triton.jit
def _load_vector(vector, start, M, BLOCK: tl.constexpr, MASKED: tl.constexpr):
    index = start + tl.arange(0, BLOCK)
    if vector is None:
        return tl.zeros((BLOCK,), tl.float32)
    elif MASKED:
        return tl.load(vector + index, mask=index < M, other=0.0)
    else:
        return tl.load(vector + index)


@triton.jit
def _weights(
    c,
    row_factors,
    row_shift,
    column_factors,
    column_shift,
    row_ids,
    column_ids,
    row,
    column,
    owned_from,
    R,
    C,
    beta,
    SKIP: tl.constexpr,
    FIXED_SHIFT: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
    EIGHTS: tl.constexpr,
):
    """A tile of W from its cosines: one exponential a pair, or one a factor where one could overflow."""
    c = negatives(c, row, column, owned_from, R, C, row_ids, column_ids, SKIP, BLOCK_M, BLOCK_N, MASK_COLUMNS, EIGHTS)
    a = _load_vector(row_factors, row, R, BLOCK_M, MASK_ROWS)[:, None]
    b = _load_vector(column_factors, column, C, BLOCK_N, MASK_COLUMNS)[None, :]
    if FIXED_SHIFT:
        return tl.exp2(c * beta) * (a + b)
    else:
        w = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        if row_factors is not None:
            w += a * tl.exp2((c - _load_vector(row_shift, row, R, BLOCK_M, MASK_ROWS)[:, None]) * beta)
        if column_factors is not None:
            w += b * tl.exp2((c - _load_vector(column_shift, column, C, BLOCK_N, MASK_COLUMNS)[None, :]) * beta)
        return w


@triton.jit
def softmax_bwd_weighted_rows_kernel(
    row_factors,
    row_shift,
    column_factors,
    column_shift,
    row_ids,
    column_ids,
    rows,
    columns,
    du,
    R,
    C,
    width,
    temperature,
    tau,
    fixed_shift_from: tl.constexpr,
    SKIP: tl.constexpr,
    FIXED_SHIFT: tl.constexpr,
    WGMMA: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
):
    """du (splits, R, D): a block of rows of W·columns stays in registers while it meets a split of `width` columns."""
    temperature = read_temperature(temperature, tau)
    if (temperature >= fixed_shift_from) != FIXED_SHIFT:
        return
    beta = tl.div_rn(LOG2E, temperature)
    row = tl.program_id(0) * BLOCK_M
    begin = tl.program_id(1) * width
    i0 = first_row(row, R, BLOCK_M, MASK_ROWS)
    x = load_tile(rows, i0, 0, R, D, BLOCK_M, BLOCK_D, MASK_ROWS)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for column in range(begin, tl.minimum(begin + width, C), BLOCK_N):
        j0 = first_row(column, C, BLOCK_N, MASK_COLUMNS)
        y = load_tile(columns, j0, 0, C, D, BLOCK_N, BLOCK_D, MASK_COLUMNS)
        c = add_product(tl.zeros((BLOCK_M, BLOCK_N), tl.float32), x, y.T)
        w = _weights(
            c,
            row_factors,
            row_shift,
            column_factors,
            column_shift,
            row_ids,
            column_ids,
            i0,
            j0,
            column,
            R,
            C,
            beta,
            SKIP,
            FIXED_SHIFT,
            BLOCK_M,
            BLOCK_N,
            MASK_ROWS,
            MASK_COLUMNS,
            True,
        )
        total = add_product(total, opaque(w, WGMMA).to(rows.dtype.element_ty), y)
    i = i0 + tl.arange(0, BLOCK_M)
    features = tl.arange(0, BLOCK_D)[None, :]
    out = du + (tl.program_id(1).to(tl.int64) * R + i0) * D + (tl.arange(0, BLOCK_M)[:, None] * D + features)
    tl.store(out, total, mask=((i >= row) & (i < R))[:, None] & (features < D))


@triton.jit
def softmax_bwd_panel_weights_kernel(
    row_factors,
    row_shift,
    column_factors,
    column_shift,
    row_ids,
    column_ids,
    rows,
    columns,
    weights,
    panel,
    R,
    C,
    temperature,
    tau,
    fixed_shift_from: tl.constexpr,
    WIDTH: tl.constexpr,
    SKIP: tl.constexpr,
    FIXED_SHIFT: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
):
    """weights (R, WIDTH) = W[:, panel : panel + WIDTH]."""
    temperature = read_temperature(temperature, tau)
    if (temperature >= fixed_shift_from) != FIXED_SHIFT:
        return
    beta = tl.div_rn(LOG2E, temperature)
    column = panel + tl.program_id(0) * BLOCK_N
    row = tl.program_id(1) * BLOCK_M
    i0 = first_row(row, R, BLOCK_M, MASK_ROWS)
    j0 = first_row(column, C, BLOCK_N, MASK_COLUMNS)
    i = i0 + tl.arange(0, BLOCK_M)
    j = j0 + tl.arange(0, BLOCK_N)
    c = cosines(rows, columns, i0, j0, R, C, D, BLOCK_M, BLOCK_N, BLOCK_D, MASK_ROWS, MASK_COLUMNS)
    w = _weights(
        c,
        row_factors,
        row_shift,
        column_factors,
        column_shift,
        row_ids,
        column_ids,
        i0,
        j0,
        column,
        R,
        C,
        beta,
        SKIP,
        FIXED_SHIFT,
        BLOCK_M,
        BLOCK_N,
        MASK_ROWS,
        MASK_COLUMNS,
        False,
    )
    out = weights + i.to(tl.int64)[:, None] * WIDTH + (j - panel)[None, :]
    end = tl.minimum(panel + WIDTH, C)
    tl.store(out, w, mask=((i >= row) & (i < R))[:, None] & ((j >= column) & (j < end))[None, :])


@triton.jit
def add_panel_kernel(
    weights,
    columns,
    du,
    panel,
    R,
    C,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr,
):
    """du (R, D) += weights (R, WIDTH) @ columns[panel : panel + WIDTH]; the first panel sets it."""
    row = tl.program_id(0) * BLOCK_M
    feature = tl.program_id(1) * BLOCK_N
    i0 = first_row(row, R, BLOCK_M, MASKED)
    i = i0 + tl.arange(0, BLOCK_M)
    features = feature + tl.arange(0, BLOCK_N)
    out = du + i.to(tl.int64)[:, None] * D + features[None, :]
    owned = ((i >= row) & (i < R))[:, None] & (features < D)[None, :]
    total = tl.load(out, mask=owned & (panel > 0), other=0.0)
    for k in range(0, tl.minimum(WIDTH, C - panel), BLOCK_K):
        w = load_tile(weights, i0, k, R, WIDTH, BLOCK_M, BLOCK_K, MASKED)
        y = load_tile(columns, panel + k, feature, C, D, BLOCK_K, BLOCK_N, MASKED)
        if MASKED:
            w = tl.where((panel + k + tl.arange(0, BLOCK_K) < C)[None, :], w, 0.0)
        total = add_product(total, w, y)
    tl.store(out, total, mask=owned)


@triton.jit
def pull(grad, stride, losses, rows, M):
    """g_i (P_ii' − 1) of the positives; P − 1 = expm1(−loss), without cancellation."""
    inside = rows < M
    loss = tl.load(losses + rows, mask=inside, other=0.0)
    return tl.load(grad + rows.to(tl.int64) * stride, mask=inside, other=0.0) * expm1(-loss)


@triton.jit
def add_splits(
    du,
    largest,
    splits,
    row,
    R,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """ROWS rows of the sum of du (splits, R, D), in the unit of W."""
    total = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for split in range(splits):
        total += load_tile(du + tl.cast(split, tl.int64) * R * D, row, 0, R, D, ROWS, BLOCK_D, True)
    return total * weight_unit(largest)


@triton.jit
def temperature_grad_kernel(radial, dtau, count, share, tau, BLOCK: tl.constexpr):
    """dL/dτ = −share·Σ_i u_i·(dL/du)_i / τ."""
    temperature = read_temperature(0.0, tau)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        total += tl.load(radial + index, mask=index < count, other=0.0)
    tl.store(dtau, tl.div_rn(-share * tl.sum(total), temperature))
