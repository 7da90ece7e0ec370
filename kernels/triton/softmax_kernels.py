"""The kernels of a softmax over the cosines of two matrices of unit rows, R x C pairs that are never in memory.

Exponents s, maxima and sums are kept in base 2. A tensor as temperature launches the plain and the GUARDED variant of a
kernel, and one of them returns at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sslfast.kernels.triton.tiles import (
    LN2,
    LOG2E,
    add_product,
    cosines,
    expm1,
    first_row,
    load_tile,
    log1p,
    negatives,
    opaque,
    read_temperature,
)

WEIGHT_UNIT = tl.constexpr(2.0**-14)  # of the largest factor, see weight_unit
NOTHING = tl.constexpr(-3e38)  # the highest of no products

# --- forward: sums over the columns, in splits of them ---


@triton.jit
def streaming_sums(
    rows,
    columns,
    row_ids,
    column_ids,
    partial,
    weighted,
    positive,
    closer,
    R,
    C,
    width,
    temperature,
    tau,
    plain_from: tl.constexpr,
    SKIP: tl.constexpr,
    GUARDED: tl.constexpr,
    WGMMA: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_F: tl.constexpr,
    MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
):
    """A split of `width` columns: partial (2, splits, R) has Σ_j e_ij and, GUARDED, the highest cosine that
    e_ij = exp2((c_ij − highest_i)·β) is relative to; weighted (splits, R, D) has Σ_j e_ij columns_j, and closer
    (splits, R) the number of columns above positive (R,), if wanted.

    A program owns BLOCK_F of weighted's features, all of them unless the inputs are wide or float32.
    """
    temperature = read_temperature(temperature, tau)
    if (temperature >= plain_from) == GUARDED:
        return
    beta = tl.div_rn(LOG2E, temperature)
    row = tl.program_id(0) * BLOCK_M
    begin = tl.program_id(1) * width
    feature = tl.program_id(2) * BLOCK_F
    # Weights of float16 are kept below 2**15: next to the largest of them, few are then too small for it.
    UNIT: tl.constexpr = 15.0 if weighted is not None and rows.dtype.element_ty == tl.float16 else 0.0
    i0 = first_row(row, R, BLOCK_M, MASK_ROWS)
    if D <= BLOCK_D:
        x = load_tile(rows, i0, 0, R, D, BLOCK_M, BLOCK_D, MASK_ROWS)
    highest = tl.full((BLOCK_M,), NOTHING, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    if closer is not None:
        least = tl.load(positive + i0 + tl.arange(0, BLOCK_M), mask=i0 + tl.arange(0, BLOCK_M) < R, other=0.0)
        above = tl.zeros((BLOCK_M,), tl.int32)
    if weighted is not None:
        mean = tl.zeros((BLOCK_M, BLOCK_F), tl.float32)
    for column in range(begin, tl.minimum(begin + width, C), BLOCK_N):
        j0 = first_row(column, C, BLOCK_N, MASK_COLUMNS)
        if D <= BLOCK_D:
            y = load_tile(columns, j0, 0, C, D, BLOCK_N, BLOCK_D, MASK_COLUMNS)
            c = add_product(tl.zeros((BLOCK_M, BLOCK_N), tl.float32), x, y.T)
        else:
            c = cosines(rows, columns, i0, j0, R, C, D, BLOCK_M, BLOCK_N, BLOCK_D, MASK_ROWS, MASK_COLUMNS)
        c = negatives(c, i0, j0, column, R, C, row_ids, column_ids, SKIP, BLOCK_M, BLOCK_N, MASK_COLUMNS, BLOCK_D > 128)
        if closer is not None:
            above += tl.sum((c > least[:, None]).to(tl.int32), axis=1)
        if GUARDED:
            higher = tl.maximum(highest, tl.max(c, axis=1))
            decay = tl.exp2((highest - higher) * beta)
            e = tl.exp2((c - higher[:, None]) * beta + UNIT)
            total *= decay
            if weighted is not None:
                mean *= decay[:, None]
            highest = higher
        else:
            e = tl.exp2(c * beta)
        total += tl.sum(e, axis=1)
        if weighted is not None:
            if D > BLOCK_D:
                y = load_tile(columns, j0, feature, C, D, BLOCK_N, BLOCK_F, MASK_COLUMNS)
            mean = opaque(add_product(mean, e.to(rows.dtype.element_ty), y), WGMMA and D <= BLOCK_D)
    i = i0 + tl.arange(0, BLOCK_M)
    owned = (i >= row) & (i < R)
    split = tl.program_id(1).to(tl.int64)
    sums = partial + split * R + i
    first = owned & (feature == 0)
    tl.store(sums, total * tl.exp2(-UNIT), mask=first)
    if closer is not None:
        tl.store(closer + split * R + i, above, mask=first)
    if GUARDED:
        tl.store(sums + tl.num_programs(1).to(tl.int64) * R, highest, mask=first)
    if weighted is not None:
        features = feature + tl.arange(0, BLOCK_F)[None, :]
        out = weighted + (split * R + i0) * D + (tl.arange(0, BLOCK_M)[:, None] * D + features)
        tl.store(out, mean * tl.exp2(-UNIT), mask=owned[:, None] & (features < D))


@triton.jit
def combine_splits(
    partial, weighted, positive, losses, shift, total, mean, R, N, splits, temperature, tau, plain_from: tl.constexpr,
    D: tl.constexpr, SPLITS: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """shift, total (R,) and mean (R, D) of all splits: Σ_j e_ij and Σ_j e_ij columns_j, e_ij = exp((c_ij − shift_i)/τ).

    With the cosines of positive pairs (N,), pair i % N to row i, they join the sum, which total has the inverse of, and
    mean is divided by it; losses (R,) = log(1 + Σ_j exp(s_ij) / exp(s_ii')), exact also where they are tiny. shift_i/τ
    is the highest exponent or the logarithm of the sum, so that e is at most 1.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < R
    temperature = read_temperature(temperature, tau)
    beta = tl.div_rn(LOG2E, temperature)
    plain = temperature >= plain_from
    split = tl.arange(0, SPLITS)[:, None]
    sums = partial + split.to(tl.int64) * R + rows[None, :]
    mask = (split < splits) & inside[None, :]
    nothing = tl.where(plain, 0.0, NOTHING)  # what a split's sum is relative to
    to_highest = tl.cast(splits, tl.int64) * R
    highest = tl.load(sums + to_highest, mask=mask & (not plain), other=nothing)
    origin = tl.max(highest, axis=0)
    if positive is not None:
        cosine = tl.load(positive + rows % N, mask=inside, other=0.0)
        origin = tl.where(plain, 0.0, tl.maximum(origin, cosine))
    every = tl.sum(tl.load(sums, mask=mask, other=0.0) * tl.exp2((highest - origin[None, :]) * beta), axis=0)
    every = tl.where(every < float("inf"), every, float("nan"))  # of columns too long for a plain sum
    if positive is not None:
        ratio = (tl.log2(every) - (cosine - origin) * beta) * LN2
        tl.store(losses + rows, tl.maximum(ratio, 0.0) + log1p(tl.exp(-tl.abs(ratio))), mask=inside)
        every += tl.exp2((cosine - origin) * beta)
    top = tl.where(plain, tl.maximum(tl.log2(every) / beta, -1.0), tl.where(origin == NOTHING, -2.0, origin))
    rescale = tl.exp2((origin - top) * beta)
    tl.store(shift + rows, top, mask=inside)
    if positive is not None:
        tl.store(total + rows, 1.0 / (every * rescale), mask=inside)
        rescale = 1.0 / every
    else:
        tl.store(total + rows, every * rescale, mask=inside)
    if weighted is not None:
        features = tl.arange(0, BLOCK_D)
        mean_rows = tl.zeros((ROWS, BLOCK_D), tl.float32)
        for start in range(0, splits, CHUNK):
            part = tl.arange(0, CHUNK)[:, None]
            counts = (start + part < splits) & inside[None, :]
            first = tl.cast(start, tl.int64) * R + tl.program_id(0) * ROWS
            entry = part * R + tl.arange(0, ROWS)[None, :]  # few enough for 32 bits: the splits fill the chip once
            level = tl.load(partial + to_highest + first + entry, mask=counts & (not plain), other=nothing)
            factor = tl.exp2((level - origin[None, :]) * beta)
            pointers = weighted + first * D + (entry[:, :, None] * D + features[None, None, :])
            tile = tl.load(pointers, mask=counts[:, :, None] & (features < D)[None, None, :], other=0.0)
            mean_rows += tl.sum(tile * factor[:, :, None], axis=0)
        out = mean + rows.to(tl.int64)[:, None] * D + features[None, :]
        tl.store(out, mean_rows * rescale[:, None], mask=inside[:, None] & (features < D)[None, :])


# --- backward: Σ_j W_ij columns_j with W_ij = exp((c_ij − shift_i)/τ)·a_i + exp((c_ij − shift_j)/τ)·b_j ---


@triton.jit
def weight_unit(largest):
    """What W is divided by: float16 could not hold weights of about g/C, so they are kept within ±2**15."""
    if largest is None:
        return 1.0
    else:
        largest = tl.load(largest).to(tl.float32)
        return tl.where(largest == 0, 1.0, largest * WEIGHT_UNIT)


@triton.jit
def relative_factors(
    grad, stride, shift, inverse_sum, largest, factors, M, temperature, tau, plain_from: tl.constexpr,
    ROWS: tl.constexpr,
):  # fmt: skip
    """factors (M,): grad, times inverse_sum if given; plain, relative to exp(c) instead of exp(c − shift)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < M
    temperature = read_temperature(temperature, tau)
    factor = tl.load(grad + rows.to(tl.int64) * stride, mask=inside, other=0.0) / weight_unit(largest)
    if inverse_sum is not None:
        factor *= tl.load(inverse_sum + rows, mask=inside, other=0.0)
    if temperature >= plain_from:
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
    c, row_factors, row_shift, column_factors, column_shift, row_ids, column_ids, row, column, owned_from, R, C, beta,
    SKIP: tl.constexpr, GUARDED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    MASK_ROWS: tl.constexpr, MASK_COLUMNS: tl.constexpr, EIGHTS: tl.constexpr,
):  # fmt: skip
    """A tile of W from its cosines: one exponential a pair, or one a factor where one could overflow."""
    c = negatives(c, row, column, owned_from, R, C, row_ids, column_ids, SKIP, BLOCK_M, BLOCK_N, MASK_COLUMNS, EIGHTS)
    a = _load_vector(row_factors, row, R, BLOCK_M, MASK_ROWS)[:, None]
    b = _load_vector(column_factors, column, C, BLOCK_N, MASK_COLUMNS)[None, :]
    if GUARDED:
        w = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        if row_factors is not None:
            w += a * tl.exp2((c - _load_vector(row_shift, row, R, BLOCK_M, MASK_ROWS)[:, None]) * beta)
        if column_factors is not None:
            w += b * tl.exp2((c - _load_vector(column_shift, column, C, BLOCK_N, MASK_COLUMNS)[None, :]) * beta)
        return w
    else:
        return tl.exp2(c * beta) * (a + b)


@triton.jit
def weighted_rows(
    row_factors, row_shift, column_factors, column_shift, row_ids, column_ids, rows, columns, du, R, C, width,
    temperature, tau, plain_from: tl.constexpr, SKIP: tl.constexpr, GUARDED: tl.constexpr, WGMMA: tl.constexpr,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """du (splits, R, D): a block of rows of W·columns stays in registers while it meets a split of `width` columns."""
    temperature = read_temperature(temperature, tau)
    if (temperature >= plain_from) == GUARDED:
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
            c, row_factors, row_shift, column_factors, column_shift, row_ids, column_ids, i0, j0, column, R, C, beta,
            SKIP, GUARDED, BLOCK_M, BLOCK_N, MASK_ROWS, MASK_COLUMNS, True,
        )  # fmt: skip
        total = add_product(total, opaque(w, WGMMA).to(rows.dtype.element_ty), y)
    i = i0 + tl.arange(0, BLOCK_M)
    features = tl.arange(0, BLOCK_D)[None, :]
    out = du + (tl.program_id(1).to(tl.int64) * R + i0) * D + (tl.arange(0, BLOCK_M)[:, None] * D + features)
    tl.store(out, total, mask=((i >= row) & (i < R))[:, None] & (features < D))


@triton.jit
def panel_weights(
    row_factors, row_shift, column_factors, column_shift, row_ids, column_ids, rows, columns, weights, panel, R, C,
    temperature, tau, plain_from: tl.constexpr,
    WIDTH: tl.constexpr, SKIP: tl.constexpr, GUARDED: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MASK_ROWS: tl.constexpr, MASK_COLUMNS: tl.constexpr,
):  # fmt: skip
    """weights (R, WIDTH) = W[:, panel : panel + WIDTH]."""
    temperature = read_temperature(temperature, tau)
    if (temperature >= plain_from) == GUARDED:
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
        c, row_factors, row_shift, column_factors, column_shift, row_ids, column_ids, i0, j0, column, R, C, beta,
        SKIP, GUARDED, BLOCK_M, BLOCK_N, MASK_ROWS, MASK_COLUMNS, False,
    )  # fmt: skip
    out = weights + i.to(tl.int64)[:, None] * WIDTH + (j - panel)[None, :]
    end = tl.minimum(panel + WIDTH, C)
    tl.store(out, w, mask=((i >= row) & (i < R))[:, None] & ((j >= column) & (j < end))[None, :])


@triton.jit
def add_panel(
    weights, columns, du, panel, R, C, WIDTH: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
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


# --- the end of a backward ---


@triton.jit
def pull(grad, stride, losses, rows, M):
    """g_i (P_ii' − 1) of the positives; P − 1 = expm1(−loss), without cancellation."""
    inside = rows < M
    loss = tl.load(losses + rows, mask=inside, other=0.0)
    return tl.load(grad + rows.to(tl.int64) * stride, mask=inside, other=0.0) * expm1(-loss)


@triton.jit
def add_splits(
    du, largest, splits, row, R, D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """ROWS rows of the sum of du (splits, R, D), in the unit of W."""
    total = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for split in range(splits):
        total += load_tile(du + tl.cast(split, tl.int64) * R * D, row, 0, R, D, ROWS, BLOCK_D, True)
    return total * weight_unit(largest)


@triton.jit
def temperature_gradient(radial, dtau, count, share, tau, BLOCK: tl.constexpr):
    """dL/dτ = −share·Σ_i u_i·(dL/du)_i / τ."""
    temperature = read_temperature(0.0, tau)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        total += tl.load(radial + index, mask=index < count, other=0.0)
    tl.store(dtau, tl.div_rn(-share * tl.sum(total), temperature))
