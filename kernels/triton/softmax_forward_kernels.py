"""The forward kernels of a softmax over the cosines of two matrices of unit rows, R x C pairs that are never in memory.

Exponents s, maxima and sums are kept in base 2. With FIXED_SHIFT nothing is subtracted from exponents, without the
highest of a row. A tensor as temperature launches both variants of a kernel, and one of them returns at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sslfast.kernels.triton.tiles import (
    LN2,
    LOG2E,
    add_product,
    cosines,
    first_row,
    load_tile,
    log1p,
    negatives,
    opaque,
    read_temperature,
)

NOTHING = tl.constexpr(-3e38)  # the highest of no products


@triton.jit
def softmax_fwd_kernel(
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
    fixed_shift_from: tl.constexpr,
    SKIP: tl.constexpr,
    FIXED_SHIFT: tl.constexpr,
    WGMMA: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_F: tl.constexpr,
    MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
):
    """A split of `width` columns: partial (2, splits, R) has Σ_j e_ij and, without FIXED_SHIFT, the highest cosine that
    e_ij = exp2((c_ij − highest_i)·β) is relative to; weighted (splits, R, D) has Σ_j e_ij columns_j, and closer
    (splits, R) the number of columns above positive (R,), if wanted.

    A program owns BLOCK_F of weighted's features, all of them unless the inputs are wide or float32.
    """
    temperature = read_temperature(temperature, tau)
    if (temperature >= fixed_shift_from) != FIXED_SHIFT:
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
        if FIXED_SHIFT:
            e = tl.exp2(c * beta)
        else:
            higher = tl.maximum(highest, tl.max(c, axis=1))
            decay = tl.exp2((highest - higher) * beta)
            e = tl.exp2((c - higher[:, None]) * beta + UNIT)
            total *= decay
            if weighted is not None:
                mean *= decay[:, None]
            highest = higher
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
    if not FIXED_SHIFT:
        tl.store(sums + tl.num_programs(1).to(tl.int64) * R, highest, mask=first)
    if weighted is not None:
        features = feature + tl.arange(0, BLOCK_F)[None, :]
        out = weighted + (split * R + i0) * D + (tl.arange(0, BLOCK_M)[:, None] * D + features)
        tl.store(out, mean * tl.exp2(-UNIT), mask=owned[:, None] & (features < D))


@triton.jit
def softmax_combine_kernel(
    partial,
    weighted,
    positive,
    losses,
    shift,
    total,
    mean,
    R,
    N,
    splits,
    temperature,
    tau,
    fixed_shift_from: tl.constexpr,
    D: tl.constexpr,
    SPLITS: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """shift, total (R,) and mean (R, D) of all splits: Σ_j e_ij and Σ_j e_ij columns_j, e_ij = exp((c_ij − shift_i)/τ).

    With the cosines of positive pairs (N,), pair i % N to row i, they join the sum, which total has the inverse of, and
    mean is divided by it; losses (R,) = log(1 + Σ_j exp(s_ij) / exp(s_ii')), exact also where they are tiny. shift_i/τ
    is the highest exponent or the logarithm of the sum, so that e is at most 1.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < R
    temperature = read_temperature(temperature, tau)
    beta = tl.div_rn(LOG2E, temperature)
    fixed_shift = temperature >= fixed_shift_from
    split = tl.arange(0, SPLITS)[:, None]
    sums = partial + split.to(tl.int64) * R + rows[None, :]
    mask = (split < splits) & inside[None, :]
    nothing = tl.where(fixed_shift, 0.0, NOTHING)  # what a split's sum is relative to
    to_highest = tl.cast(splits, tl.int64) * R
    highest = tl.load(sums + to_highest, mask=mask & (not fixed_shift), other=nothing)
    origin = tl.max(highest, axis=0)
    if positive is not None:
        cosine = tl.load(positive + rows % N, mask=inside, other=0.0)
        origin = tl.where(fixed_shift, 0.0, tl.maximum(origin, cosine))
    every = tl.sum(tl.load(sums, mask=mask, other=0.0) * tl.exp2((highest - origin[None, :]) * beta), axis=0)
    every = tl.where(every < float("inf"), every, float("nan"))  # of columns too long for a fixed shift
    if positive is not None:
        ratio = (tl.log2(every) - (cosine - origin) * beta) * LN2
        tl.store(losses + rows, tl.maximum(ratio, 0.0) + log1p(tl.exp(-tl.abs(ratio))), mask=inside)
        every += tl.exp2((cosine - origin) * beta)
    top = tl.where(fixed_shift, tl.maximum(tl.log2(every) / beta, -1.0), tl.where(origin == NOTHING, -2.0, origin))
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
            level = tl.load(partial + to_highest + first + entry, mask=counts & (not fixed_shift), other=nothing)
            factor = tl.exp2((level - origin[None, :]) * beta)
            pointers = weighted + first * D + (entry[:, :, None] * D + features[None, None, :])
            tile = tl.load(pointers, mask=counts[:, :, None] & (features < D)[None, None, :], other=0.0)
            mean_rows += tl.sum(tile * factor[:, :, None], axis=0)
        out = mean + rows.to(tl.int64)[:, None] * D + features[None, :]
        tl.store(out, mean_rows * rescale[:, None], mask=inside[:, None] & (features < D)[None, :])
