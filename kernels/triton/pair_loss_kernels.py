"""The kernels that NT-Xent and CLIP's loss share; the latter has pairs across the views alone. M = 2N views, and
i' = i ± N is i's partner."""

from __future__ import annotations

import triton
import triton.language as tl

from sslfast.kernels.triton.normalize import store_raw_gradient
from sslfast.kernels.triton.softmax_backward_kernels import add_splits, pull
from sslfast.kernels.triton.tiles import (
    FIXED_SHIFT_FROM,
    LOG2E,
    add_product,
    cosines,
    first_row,
    load_tile,
    negatives,
    read_temperature,
)


@triton.jit
def pair_loss_fwd_kernel(
    x_rows,
    y_rows,
    x_partial,
    y_partial,
    M,
    size,
    temperature,
    tau,
    SKIP: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
):
    """partial (groups, M): for each of M rows x and of M rows y, Σ exp2(s) over its negatives in each group of `size`
    of the other.

    One program a pair of groups: each exponential serves the row and the column it belongs to. With SKIP "views" x is
    y, and the groups are a <= b.
    """
    temperature = read_temperature(temperature, tau)
    if not (temperature >= FIXED_SHIFT_FROM):
        return
    beta = tl.div_rn(LOG2E, temperature)
    program = tl.program_id(0)
    if SKIP == "views":
        group_b = ((tl.sqrt_rn(8.0 * program + 1.0) - 1.0) * 0.5).to(tl.int32)
        group_a = program - group_b * (group_b + 1) // 2
    else:
        groups = tl.cdiv(M, size)
        group_b = program // groups
        group_a = program % groups
    row_sums = x_partial + group_b.to(tl.int64) * M
    column_sums = y_partial + group_a.to(tl.int64) * M
    begin = group_b * size
    for column in range(begin, tl.minimum(begin + size, M), BLOCK_N):
        j0 = first_row(column, M, BLOCK_N, MASK_COLUMNS)
        if D <= BLOCK_D:
            y = load_tile(y_rows, j0, 0, M, D, BLOCK_N, BLOCK_D, MASK_COLUMNS)
        # Summed across lanes once a column of tiles, not once a tile.
        total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
        for row in range(group_a * size, tl.minimum(group_a * size + size, M), BLOCK_M):
            i0 = first_row(row, M, BLOCK_M, MASK_ROWS)
            if D <= BLOCK_D:
                x = load_tile(x_rows, i0, 0, M, D, BLOCK_M, BLOCK_D, MASK_ROWS)
                s = add_product(tl.zeros((BLOCK_M, BLOCK_N), tl.float32), x, y.T) * beta
            else:
                s = cosines(x_rows, y_rows, i0, j0, M, M, D, BLOCK_M, BLOCK_N, BLOCK_D, MASK_ROWS, MASK_COLUMNS) * beta
            e = tl.exp2(negatives(s, i0, j0, column, M, M, None, None, SKIP, BLOCK_M, BLOCK_N, MASK_COLUMNS))
            rows = i0 + tl.arange(0, BLOCK_M)
            owned = (rows >= row) & (rows < M)
            # Of "views", no tile with rows of another is in a total that is stored.
            if (SKIP != "views") & ((i0 != row) | (row + BLOCK_M > M)):
                e = tl.where(owned[:, None], e, 0.0)
            total += e
            so_far = tl.load(row_sums + rows, mask=owned & (column > begin), other=0.0)
            tl.store(row_sums + rows, so_far + tl.sum(e, axis=1), mask=owned)
        # Of one view, within one group, every pair is met from both sides already.
        if (SKIP != "views") | (group_a != group_b):
            columns = j0 + tl.arange(0, BLOCK_N)
            tl.store(column_sums + columns, tl.sum(total, axis=0), mask=(columns >= column) & (columns < M))
        tl.debug_barrier()  # the next column of tiles reads the row sums back


@triton.jit
def pair_loss_bwd_kernel(
    grad,
    stride,
    losses,
    du,
    second_du,
    u,
    scale,
    largest,
    dz,
    radial,
    M,
    splits,
    temperature,
    tau,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """dz (M, D) from W·u, the sum of du (splits, M, D) and the positives; radial, if any: Σ u_i·(dL/du)_i of a block.
    With second_du, that is the sum for the second view, and du that for the first, (splits, N, D) each.

    With P_ij = exp(s_ij)/Σ exp(s_ik), g the gradients of the losses and Pos the positive pairs,
    W_ij = g_i (P_ij − Pos_ij) + g_j (P_ji − Pos_ij) is symmetric, and dL/du = W·u/τ. Its negatives are in du, the
    positives join here in float32. A program has rows of one view, and takes their partners from the other.
    """
    temperature = read_temperature(temperature, tau)
    N = M // 2
    block = tl.program_id(0) * ROWS
    row = block + tl.program_id(1) * N
    partner = block + (1 - tl.program_id(1)) * N
    i = tl.arange(0, ROWS)
    if second_du is None:
        total = add_splits(du, largest, splits, row, M, D, ROWS, BLOCK_D)
    elif tl.program_id(1) == 0:
        total = add_splits(du, largest, splits, block, N, D, ROWS, BLOCK_D)
    else:
        total = add_splits(second_du, largest, splits, block, N, D, ROWS, BLOCK_D)
    pulls = pull(grad, stride, losses, row + i, M) + pull(grad, stride, losses, partner + i, M)
    other = load_tile(u, partner, 0, M, D, ROWS, BLOCK_D, True).to(tl.float32)
    total = tl.div_rn(total + pulls[:, None] * other, temperature)
    x = load_tile(u, row, 0, M, D, ROWS, BLOCK_D, True).to(tl.float32)
    along = store_raw_gradient(dz, total, x, scale, row, row + N - block, D, ROWS, BLOCK_D)
    if radial is not None:
        tl.store(radial + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), along)
