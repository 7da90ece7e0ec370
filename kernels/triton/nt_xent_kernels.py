"""The kernels of NT-Xent. Exponents s, maxima and sums are kept in base 2; M = 2N views, i' = i ± N is i's partner."""

from __future__ import annotations

import triton
import triton.language as tl

from sslfast.kernels.triton.tiles import (
    LN2,
    LOG2E,
    PLAIN_FROM,
    add_product,
    cosines,
    expm1,
    first_row,
    load_tile,
    log1p,
    read_temperature,
)


@triton.jit
def _negatives(
    s, row, column, owned_from, M, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr
):  # fmt: skip
    """A tile s, with -inf where a view meets itself or its partner, and in columns of another tile or of none."""
    N = M // 2
    apart = column - row
    with_itself = (apart > -BLOCK_N) & (apart < BLOCK_M)
    with_first = (apart + N > -BLOCK_N) & (apart + N < BLOCK_M)
    with_second = (apart - N > -BLOCK_N) & (apart - N < BLOCK_M)
    if with_itself | with_first | with_second | (column != owned_from) | (column + BLOCK_N > M):
        # In a tensor core's result the lanes of a warp share eight columns; split like this, the middle index is a
        # constant of the code. Of a plain column index the compiler keeps BLOCK_N / 4 registers throughout the loop.
        eights = 8 * tl.arange(0, BLOCK_N // 8)[None, :, None]
        ones = column + tl.arange(0, 8)[None, None, :]
        rows = row + tl.arange(0, BLOCK_M)[:, None, None]
        partners = tl.where(rows < N, rows + N, rows - N)
        omit = (eights == rows - ones) | (eights == partners - ones)
        omit |= (eights >= M - ones) if MASKED else (eights < owned_from - ones)
        s = tl.where(omit, float("-inf"), tl.reshape(s, omit.shape))
        s = tl.reshape(s, (BLOCK_M, BLOCK_N))
    return s


# --- forward ---


@triton.jit
def partial_sums(
    u, partial, M, size, temperature, tau,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """partial (groups, M): for each row, Σ exp2(s) over its negatives in each group of `size` columns.

    One program a pair of groups a <= b: each exponential serves the row and the column it belongs to.
    """
    temperature = read_temperature(temperature, tau)
    if not (temperature >= PLAIN_FROM):
        return
    beta = tl.div_rn(LOG2E, temperature)
    program = tl.program_id(0)
    group_b = ((tl.sqrt_rn(8.0 * program + 1.0) - 1.0) * 0.5).to(tl.int32)
    group_a = program - group_b * (group_b + 1) // 2
    row_sums = partial + group_b.to(tl.int64) * M
    column_sums = partial + group_a.to(tl.int64) * M
    begin = group_b * size
    for column in range(begin, tl.minimum(begin + size, M), BLOCK_N):
        j0 = first_row(column, M, BLOCK_N, MASKED)
        if D <= BLOCK_D:
            y = load_tile(u, j0, 0, M, D, BLOCK_N, BLOCK_D, MASKED)
        # Summed across lanes once a column of tiles, not once a tile.
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for row in range(group_a * size, tl.minimum(group_a * size + size, M), BLOCK_M):
            i0 = first_row(row, M, BLOCK_M, MASKED)
            if D <= BLOCK_D:
                x = load_tile(u, i0, 0, M, D, BLOCK_M, BLOCK_D, MASKED)
                s = add_product(tl.zeros((BLOCK_M, BLOCK_N), tl.float32), x, y.T) * beta
            else:
                s = cosines(u, i0, j0, M, D, BLOCK_M, BLOCK_N, BLOCK_D, MASKED) * beta
            e = tl.exp2(_negatives(s, i0, j0, column, M, BLOCK_M, BLOCK_N, MASKED))
            total += e
            rows = i0 + tl.arange(0, BLOCK_M)
            owned = (rows >= row) & (rows < M)
            so_far = tl.load(row_sums + rows, mask=owned & (column > begin), other=0.0)
            tl.store(row_sums + rows, so_far + tl.sum(e, axis=1), mask=owned)
        # Within one group every pair is met from both sides already.
        if group_a != group_b:
            columns = j0 + tl.arange(0, BLOCK_N)
            tl.store(column_sums + columns, tl.sum(total, axis=0), mask=(columns >= column) & (columns < M))
        tl.debug_barrier()  # the next column of tiles reads the row sums back


@triton.jit
def partial_guarded_sums(
    u, partial, M, size, temperature, tau,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """partial (2, groups, M) where exp2(s) could overflow or vanish: the same sums relative to exp2 of the highest
    cosine so far, and that cosine. One program a pair of groups, for the rows of the first."""
    temperature = read_temperature(temperature, tau)
    if temperature >= PLAIN_FROM:
        return
    beta = tl.div_rn(LOG2E, temperature)
    begin = tl.program_id(0) * size
    first_column = tl.program_id(1) * size
    sums = partial + tl.program_id(1).to(tl.int64) * M
    highest_cosines = sums + tl.num_programs(1).to(tl.int64) * M
    for row in range(begin, tl.minimum(begin + size, M), BLOCK_M):
        i0 = first_row(row, M, BLOCK_M, MASKED)
        if D <= BLOCK_D:
            x = load_tile(u, i0, 0, M, D, BLOCK_M, BLOCK_D, MASKED)
        highest = tl.full((BLOCK_M,), -2.0, tl.float32)
        total = tl.zeros((BLOCK_M,), tl.float32)
        for column in range(first_column, tl.minimum(first_column + size, M), BLOCK_N):
            j0 = first_row(column, M, BLOCK_N, MASKED)
            if D <= BLOCK_D:
                y = load_tile(u, j0, 0, M, D, BLOCK_N, BLOCK_D, MASKED)
                c = add_product(tl.zeros((BLOCK_M, BLOCK_N), tl.float32), x, y.T)
            else:
                c = cosines(u, i0, j0, M, D, BLOCK_M, BLOCK_N, BLOCK_D, MASKED)
            c = _negatives(c, i0, j0, column, M, BLOCK_M, BLOCK_N, MASKED)
            higher = tl.maximum(highest, tl.max(c, axis=1))
            e = tl.exp2((c - higher[:, None]) * beta)
            total = total * tl.exp2((highest - higher) * beta) + tl.sum(e, axis=1)
            highest = higher
        rows = i0 + tl.arange(0, BLOCK_M)
        owned = (rows >= row) & (rows < M)
        tl.store(sums + rows, total, mask=owned)
        tl.store(highest_cosines + rows, highest, mask=owned)


@triton.jit
def combine_sums(
    partial, cosine, losses, shift, inverse_sum, M, groups, temperature, tau, GROUPS: tl.constexpr, ROWS: tl.constexpr
):  # fmt: skip
    """loss_i = log(1 + Σ exp(s_ij) / exp(s_ii')) over the negatives j, exact also where it is tiny."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < M
    temperature = read_temperature(temperature, tau)
    beta = tl.div_rn(LOG2E, temperature)
    group = tl.arange(0, GROUPS)[:, None]
    pointers = partial + group.to(tl.int64) * M + rows[None, :]
    mask = (group < groups) & inside[None, :]
    sums = tl.load(pointers, mask=mask, other=0.0)
    positive = tl.load(cosine + rows % (M // 2), mask=inside, other=0.0)
    origin = tl.zeros((ROWS,), tl.float32)
    if not (temperature >= PLAIN_FROM):
        highest = tl.load(pointers + tl.cast(groups, tl.int64) * M, mask=mask, other=-2.0)
        origin = tl.maximum(tl.max(highest, axis=0), positive)
        sums *= tl.exp2((highest - origin[None, :]) * beta)
    negatives = tl.sum(sums, axis=0)
    ratio = (tl.log2(negatives) - (positive - origin) * beta) * LN2
    tl.store(losses + rows, tl.maximum(ratio, 0.0) + log1p(tl.exp(-tl.abs(ratio))), mask=inside)
    tl.store(shift + rows, origin, mask=inside)
    tl.store(inverse_sum + rows, 1.0 / (negatives + tl.exp2((positive - origin) * beta)), mask=inside)


# --- backward ---
#
# With P_ij = exp(s_ij)/Σ exp(s_ik), g the gradients of the losses and Pos the positive pairs,
# W_ij = g_i (P_ij − Pos_ij) + g_j (P_ji − Pos_ij) is symmetric, and dL/du = W·u/τ. The negatives' part of W is made
# here tile by tile, the positives' part joins in float32 at the end.


@triton.jit
def _weight_unit(largest_grad):
    """What W is divided by: float16 could not hold weights of about g/M, so they are kept within ±2**15."""
    if largest_grad is None:
        return 1.0
    else:
        largest = tl.load(largest_grad).to(tl.float32)
        return tl.where(largest == 0, 1.0, largest * 0.00006103515625)


@triton.jit
def row_factors(
    grad, stride, shift, inverse_sum, largest_grad, factors, M, temperature, tau, ROWS: tl.constexpr
):  # fmt: skip
    """factors (M,): g_i/Σ exp(s_ik) so that W_ij = exp(s_ij)·(factor_i + factor_j); guarded, relative to the shift."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = rows < M
    temperature = read_temperature(temperature, tau)
    g = tl.load(grad + rows.to(tl.int64) * stride, mask=inside, other=0.0) / _weight_unit(largest_grad)
    factor = g * tl.load(inverse_sum + rows, mask=inside, other=0.0)
    if temperature >= PLAIN_FROM:
        beta = tl.div_rn(LOG2E, temperature)
        factor *= tl.exp2(-beta * tl.load(shift + rows, mask=inside, other=0.0))
    tl.store(factors + rows, factor, mask=inside)


@triton.jit
def _load_vector(vector, start, M, BLOCK: tl.constexpr, MASKED: tl.constexpr):
    index = start + tl.arange(0, BLOCK)
    if MASKED:
        return tl.load(vector + index, mask=index < M, other=0.0)
    else:
        return tl.load(vector + index)


@triton.jit
def _weights(
    c, factors, shift, row, column, owned_from, M, beta,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, MASKED: tl.constexpr, GUARDED: tl.constexpr,
):  # fmt: skip
    """A tile of W from its cosines: one exponential a pair, two where one could overflow."""
    c = _negatives(c, row, column, owned_from, M, BLOCK_M, BLOCK_N, MASKED)
    a = _load_vector(factors, row, M, BLOCK_M, MASKED)[:, None]
    b = _load_vector(factors, column, M, BLOCK_N, MASKED)[None, :]
    if GUARDED:
        w = a * tl.exp2((c - _load_vector(shift, row, M, BLOCK_M, MASKED)[:, None]) * beta)
        return w + b * tl.exp2((c - _load_vector(shift, column, M, BLOCK_N, MASKED)[None, :]) * beta)
    else:
        return tl.exp2(c * beta) * (a + b)


@triton.jit
def weighted_rows(
    factors, shift, u, du, M, width, temperature, tau,
    D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, MASKED: tl.constexpr,
    GUARDED: tl.constexpr,
):  # fmt: skip
    """du (splits, M, D): a block of rows of W·u stays in registers while it meets a split of `width` columns."""
    temperature = read_temperature(temperature, tau)
    if (temperature >= PLAIN_FROM) == GUARDED:
        return
    beta = tl.div_rn(LOG2E, temperature)
    row = tl.program_id(0) * BLOCK_M
    begin = tl.program_id(1) * width
    i0 = first_row(row, M, BLOCK_M, MASKED)
    x = load_tile(u, i0, 0, M, D, BLOCK_M, BLOCK_D, MASKED)
    total = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    for column in range(begin, tl.minimum(begin + width, M), BLOCK_N):
        j0 = first_row(column, M, BLOCK_N, MASKED)
        y = load_tile(u, j0, 0, M, D, BLOCK_N, BLOCK_D, MASKED)
        c = add_product(tl.zeros((BLOCK_M, BLOCK_N), tl.float32), x, y.T)
        w = _weights(c, factors, shift, i0, j0, column, M, beta, BLOCK_M, BLOCK_N, MASKED, GUARDED)
        total = add_product(total, w.to(u.dtype.element_ty), y)
    rows = i0 + tl.arange(0, BLOCK_M)
    features = tl.arange(0, BLOCK_D)[None, :]
    out = du + (tl.program_id(1).to(tl.int64) * M + i0) * D + (tl.arange(0, BLOCK_M)[:, None] * D + features)
    tl.store(out, total, mask=((rows >= row) & (rows < M))[:, None] & (features < D))


@triton.jit
def panel_weights(
    factors, shift, u, weights, panel, M, temperature, tau,
    WIDTH: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr, GUARDED: tl.constexpr,
):  # fmt: skip
    """weights (M, WIDTH) = W[:, panel : panel + WIDTH]."""
    temperature = read_temperature(temperature, tau)
    if (temperature >= PLAIN_FROM) == GUARDED:
        return
    beta = tl.div_rn(LOG2E, temperature)
    column = panel + tl.program_id(0) * BLOCK_N
    row = tl.program_id(1) * BLOCK_M
    i0 = first_row(row, M, BLOCK_M, MASKED)
    j0 = first_row(column, M, BLOCK_N, MASKED)
    rows = i0 + tl.arange(0, BLOCK_M)
    columns = j0 + tl.arange(0, BLOCK_N)
    c = cosines(u, i0, j0, M, D, BLOCK_M, BLOCK_N, BLOCK_D, MASKED)
    w = _weights(c, factors, shift, i0, j0, column, M, beta, BLOCK_M, BLOCK_N, MASKED, GUARDED)
    out = weights + rows.to(tl.int64)[:, None] * WIDTH + (columns - panel)[None, :]
    owned = ((rows >= row) & (rows < M))[:, None] & ((columns >= column) & (columns < M))[None, :]
    tl.store(out, w, mask=owned)


@triton.jit
def add_panel(
    weights, u, du, panel, M,
    WIDTH: tl.constexpr, D: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """du (M, D) += weights (M, WIDTH) @ u[panel : panel + WIDTH]; the first panel sets it."""
    row = tl.program_id(0) * BLOCK_M
    feature = tl.program_id(1) * BLOCK_N
    i0 = first_row(row, M, BLOCK_M, MASKED)
    rows = i0 + tl.arange(0, BLOCK_M)
    features = feature + tl.arange(0, BLOCK_N)
    out = du + rows.to(tl.int64)[:, None] * D + features[None, :]
    owned = ((rows >= row) & (rows < M))[:, None] & (features < D)[None, :]
    total = tl.load(out, mask=owned & (panel > 0), other=0.0)
    for k in range(0, tl.minimum(WIDTH, M - panel), BLOCK_K):
        w = load_tile(weights, i0, k, M, WIDTH, BLOCK_M, BLOCK_K, MASKED)
        y = load_tile(u, panel + k, feature, M, D, BLOCK_K, BLOCK_N, MASKED)
        if MASKED:
            w = tl.where((panel + k + tl.arange(0, BLOCK_K) < M)[None, :], w, 0.0)
        total = add_product(total, w, y)
    tl.store(out, total, mask=owned)


@triton.jit
def _pull(grad, stride, losses, rows, M):
    """g_i (P_ii' − 1) of the positives; P − 1 = expm1(−loss), without cancellation."""
    inside = rows < M
    loss = tl.load(losses + rows, mask=inside, other=0.0)
    return tl.load(grad + rows.to(tl.int64) * stride, mask=inside, other=0.0) * expm1(-loss)


@triton.jit
def finish_rows(
    grad, stride, losses, du, u, scale, largest_grad, dz, radial, M, splits, temperature, tau,
    D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dz (M, D) from W·u, which is the sum of du (splits, M, D) and the positives; radial: Σ u_i·(dL/du)_i of a block.

    A program has rows of one view, and takes their partners from the other.
    """
    temperature = read_temperature(temperature, tau)
    N = M // 2
    block = tl.program_id(0) * ROWS
    row = block + tl.program_id(1) * N
    partner = block + (1 - tl.program_id(1)) * N
    i = tl.arange(0, ROWS)
    inside = block + i < N
    total = tl.zeros((ROWS, BLOCK_D), tl.float32)
    for split in range(splits):
        total += load_tile(du + tl.cast(split, tl.int64) * M * D, row, 0, M, D, ROWS, BLOCK_D, True)
    pull = _pull(grad, stride, losses, row + i, M) + _pull(grad, stride, losses, partner + i, M)
    other = load_tile(u, partner, 0, M, D, ROWS, BLOCK_D, True).to(tl.float32)
    total = tl.div_rn(total * _weight_unit(largest_grad) + pull[:, None] * other, temperature)
    x = load_tile(u, row, 0, M, D, ROWS, BLOCK_D, True).to(tl.float32)
    along = tl.where(inside, tl.sum(total * x, axis=1), 0.0)
    factor = tl.load(scale + row + i, mask=inside, other=0.0)
    # The factor of a row shorter than 1e-12 is constant: nothing to project out.
    total -= tl.where(factor < 1e12, along, 0.0)[:, None] * x
    features = tl.arange(0, BLOCK_D)[None, :]
    out = dz + tl.cast(row, tl.int64) * D + (i[:, None] * D + features)
    tl.store(out, total * factor[:, None], mask=inside[:, None] & (features < D))
    tl.store(radial + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), tl.sum(along))


@triton.jit
def temperature_gradient(radial, dtau, count, temperature, tau, BLOCK: tl.constexpr):
    """dL/dτ = −Σ_i u_i·(dL/du)_i / 2τ."""
    temperature = read_temperature(temperature, tau)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, count, BLOCK):
        index = start + tl.arange(0, BLOCK)
        total += tl.load(radial + index, mask=index < count, other=0.0)
    tl.store(dtau, tl.div_rn(-0.5 * tl.sum(total), temperature))
