"""What the contrastive kernels share: tiles of cosines, which pairs of them count, and the temperature."""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)

# From this temperature on exp2(cosine·log2(e)/τ) needs no maximum subtracted: exponents within ±93 keep a sum over
# 2**26 columns below 2**127 and its smallest term above 2**-126.
FIXED_SHIFT_FROM = tl.constexpr(1 / 64)


@triton.jit
def read_temperature(temperature, tau):
    """The number from the host, or that in the 0-dim tensor which replaces it; NaN unless positive."""
    if tau is not None:
        temperature = tl.load(tau).to(tl.float32)
    return tl.where(temperature > 0, temperature, float("nan"))


@triton.jit
def first_row(row, M, ROWS: tl.constexpr, MASKED: tl.constexpr):
    """Where a tile of ROWS rows at `row` starts: the last one moves back inside, repeating rows that others own.

    Its loads then need no mask, which would cost some 80 registers; MASKED is for matrices shorter than a tile.
    """
    return row if MASKED else tl.minimum(row, M - ROWS)


@triton.jit
def load_tile(
    u,
    row,
    feature,
    M,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASKED: tl.constexpr,
):
    """u[row : row + ROWS, feature : feature + BLOCK_D] of a contiguous (M, D) matrix; zeros outside, rows if MASKED."""
    rows = tl.arange(0, ROWS)[:, None]
    features = feature + tl.arange(0, BLOCK_D)[None, :]
    pointers = u + tl.cast(row, tl.int64) * D + (rows * D + features)
    if MASKED:
        return tl.load(pointers, mask=(row + rows < M) & (features < D), other=0.0)
    elif D % BLOCK_D != 0:
        return tl.load(pointers, mask=features < D, other=0.0)
    else:
        return tl.load(pointers)


@triton.jit
def add_product(total, x, y):
    """total + x @ y in fp32."""
    if x.dtype == tl.float32:
        # Tensor cores truncate as they accumulate; the fma adds short products outside of them, rounded. What stays of
        # it shrinks all cosines by less than an ulp, as a temperature an ulp higher would: dL/dτ errs by as much.
        return tl.fma(tl.dot(x, y, input_precision="tf32x3"), 1.0, total)
    else:
        return tl.dot(x, y, total)


@triton.jit
def opaque(x, WGMMA: tl.constexpr):
    """x in float32, on a chip with wgmma through an instruction that the compiler does not look into.

    A left factor, because Triton 3.5 and 3.6 fail where they take its origins to the layout of an operand in registers;
    a sum of products that is carried through a loop, because the assembler serializes the products (C7515) where it
    finds the registers of the sum written while they are under way. Elsewhere the pipeliner could not move it.
    """
    if WGMMA:
        return tl.inline_asm_elementwise("mov.b32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=False, pack=1)
    else:
        return x


@triton.jit
def cosines(
    rows,
    columns,
    row,
    column,
    R,
    C,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    MASK_ROWS: tl.constexpr,
    MASK_COLUMNS: tl.constexpr,
):
    """rows[row : row + BLOCK_M] @ columns[column : column + BLOCK_N].T, the features taken BLOCK_D at a time."""
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for feature in range(0, D, BLOCK_D):
        x = load_tile(rows, row, feature, R, D, BLOCK_M, BLOCK_D, MASK_ROWS)
        y = load_tile(columns, column, feature, C, D, BLOCK_N, BLOCK_D, MASK_COLUMNS)
        total = add_product(total, x, y.T)
    return total


@triton.jit
def negatives(
    s,
    row,
    column,
    owned_from,
    R,
    C,
    row_ids,
    column_ids,
    SKIP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
    EIGHTS: tl.constexpr = False,
):
    """A tile s, with -inf in columns of another tile or of none, and in the pairs to skip.

    SKIP: "none"; "self", row i with column i; "views", also with its partner i ± C / 2, the other view of its image.
    With ids, those of the same id too. EIGHTS: they are compared as below, where the loop leaves few registers.
    """
    if row_ids is not None and EIGHTS:
        theirs = column + 8 * tl.arange(0, BLOCK_N // 8)[None, :, None] + tl.arange(0, 8)[None, None, :]
        theirs = tl.load(column_ids + theirs, mask=theirs < C, other=0)
        own = row + tl.arange(0, BLOCK_M)[:, None, None]
        own = tl.load(row_ids + own, mask=own < R, other=0)
        s = tl.where(own == theirs, float("-inf"), tl.reshape(s, (BLOCK_M, BLOCK_N // 8, 8)))
        s = tl.reshape(s, (BLOCK_M, BLOCK_N))
    elif row_ids is not None:
        theirs = tl.load(column_ids + column + tl.arange(0, BLOCK_N), mask=column + tl.arange(0, BLOCK_N) < C, other=0)
        own = tl.load(row_ids + row + tl.arange(0, BLOCK_M), mask=row + tl.arange(0, BLOCK_M) < R, other=0)
        s = tl.where(own[:, None] == theirs[None, :], float("-inf"), s)
    apart = column - row
    N = C // 2
    touched = (column != owned_from) | (column + BLOCK_N > C)
    if SKIP != "none":
        touched |= (apart > -BLOCK_N) & (apart < BLOCK_M)
    if SKIP == "views":
        touched |= (apart + N > -BLOCK_N) & (apart + N < BLOCK_M)
        touched |= (apart - N > -BLOCK_N) & (apart - N < BLOCK_M)
    if touched:
        # In a tensor core's result the lanes of a warp share eight columns; split like this, the middle index is a
        # constant of the code. Of a plain column index the compiler keeps BLOCK_N / 4 registers throughout the loop.
        eights = 8 * tl.arange(0, BLOCK_N // 8)[None, :, None]
        ones = column + tl.arange(0, 8)[None, None, :]
        rows = row + tl.arange(0, BLOCK_M)[:, None, None]
        omit = (eights >= C - ones) if MASKED else (eights < owned_from - ones)
        if SKIP != "none":
            omit = omit | (eights == rows - ones)
        if SKIP == "views":
            omit = omit | (eights == tl.where(rows < N, rows + N, rows - N) - ones)
        s = tl.where(omit, float("-inf"), tl.reshape(s, (BLOCK_M, BLOCK_N // 8, 8)))
        s = tl.reshape(s, (BLOCK_M, BLOCK_N))
    return s


@triton.jit
def log1p(x):
    """log(1 + x), to the last bits also where x is tiny (Kahan)."""
    w = 1.0 + x
    return tl.where(w == 1.0, x, tl.log(w) * (x / (w - 1.0)))


@triton.jit
def expm1(x):
    """exp(x) − 1 for x <= 0, to the last bits also where x is tiny (Kahan)."""
    w = tl.exp(x)
    return tl.where(w == 1.0, x, tl.where(x < -1.0, w - 1.0, (w - 1.0) * (x / tl.log(w))))
