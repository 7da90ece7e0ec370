"""Rows onto the unit sphere: both sides in one pass, with the cosines of the positive pairs; and the way back."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.sizes import cdiv, next_power_of_2

EPS = tl.constexpr(1e-12)  # of F.normalize
LONGEST = tl.constexpr(2.0**50)  # of raw rows: of longer ones a dot product over a temperature may overflow


@triton.jit
def _unit_rows(pointers, mask, UNIT: tl.constexpr):
    """Rows of unit length, (R, D) in their dtype, and the factors (R,) that made them so; unless UNIT as they are, and
    NaN if longer than LONGEST."""
    z = tl.load(pointers, mask=mask, other=0.0).to(tl.float32)
    if not UNIT:
        z = tl.where((tl.sum(z * z, axis=1) <= LONGEST * LONGEST)[:, None], z, float("nan"))
        return z.to(pointers.dtype.element_ty), tl.full((z.shape[0],), 1.0, tl.float32)
    largest = tl.max(tl.abs(z), axis=1)
    largest = tl.where(largest > 0, largest, 1.0)
    z = tl.div_rn(z, largest[:, None])  # no square overflows or vanishes
    length = tl.sqrt_rn(tl.sum(z * z, axis=1))
    norm = largest * length
    short = norm < EPS
    u = tl.where(short[:, None], z * (largest / EPS)[:, None], tl.div_rn(z, length[:, None]))
    scale = tl.where(norm == 0, 0.0, tl.where(short, 1.0 / EPS, 1.0 / norm))
    return u.to(pointers.dtype.element_ty), scale


@triton.jit
def normalize_pairs_kernel(
    z1,
    z2,
    targets,
    u,
    scale,
    cosine,
    N,
    M,
    D: tl.constexpr,
    row_stride1,
    feature_stride1,
    row_stride2,
    feature_stride2,
    UNIT: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, BLOCK_D).to(tl.int64)
    columns = (features < D)[None, :]
    mask1, mask2 = (rows < N)[:, None] & columns, (rows < M)[:, None] & columns
    theirs = z2 + features[None, :] * feature_stride2
    u1, scale1 = _unit_rows(z1 + rows[:, None] * row_stride1 + features[None, :] * feature_stride1, mask1, UNIT)
    u2, scale2 = _unit_rows(theirs + rows[:, None] * row_stride2, mask2, UNIT)
    out = u + rows[:, None] * D + features[None, :]
    tl.store(out, u1, mask=mask1)
    tl.store(out + tl.cast(N, tl.int64) * D, u2, mask=mask2)
    tl.store(scale + rows, scale1, mask=rows < N)
    tl.store(scale + N + rows, scale2, mask=rows < M)
    inside = rows < N
    if targets is not None:
        target = tl.load(targets + rows, mask=rows < N, other=0)
        inside = inside & (target >= 0) & (target < M)
        u2, scale2 = _unit_rows(theirs + target[:, None] * row_stride2, inside[:, None] & columns, UNIT)
    product = tl.sum(u1.to(tl.float32) * u2.to(tl.float32), axis=1)
    tl.store(cosine + rows, tl.where(inside, product, float("nan")), mask=rows < N)


@triton.jit
def store_raw_gradient(
    dz,
    du,
    u,
    scale,
    row,
    end,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    UNIT: tl.constexpr = True,
):
    """dz[row : end], at most ROWS raw rows' gradients, from du to their unit rows u; returns Σ_i u_i·du_i of them."""
    i = tl.arange(0, ROWS)
    inside = row + i < end
    along = tl.where(inside, tl.sum(du * u, axis=1), 0.0)
    factor = tl.load(scale + row + i, mask=inside, other=0.0)
    if UNIT:  # the factor of a row shorter than 1e-12 is constant: nothing to project out
        du -= tl.where(factor < 1e12, along, 0.0)[:, None] * u
    features = tl.arange(0, BLOCK_D)[None, :]
    out = dz + tl.cast(row, tl.int64) * D + (i[:, None] * D + features)
    tl.store(out, du * factor[:, None], mask=inside[:, None] & (features < D))
    return tl.sum(along)


def normalize_pairs(
    z1: Tensor, z2: Tensor, targets: Tensor | None = None, unit: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows of z1 (N, D), then z2 (M, D): u (N + M, D) in the input dtype, scale (N + M,); cosines (N,) in fp32.

    u = scale·z; a zero row has scale 0, a row shorter than 1e-12 has 1e12; unless unit all have 1. The cosines are
    those of the rounded u, of row i of z1 and row i or targets_i of z2; NaN where there is none.
    """
    (n, d), m = z1.shape, len(z2)
    u = torch.empty(n + m, d, dtype=z1.dtype, device=z1.device)
    scale = torch.empty(n + m, dtype=torch.float32, device=z1.device)
    cosine = torch.empty(n, dtype=torch.float32, device=z1.device)
    block = max(16, next_power_of_2(d))
    rows = max(1, 2048 // block)
    normalize_pairs_kernel[(cdiv(max(n, m), rows),)](
        z1,
        z2,
        targets,
        u,
        scale,
        cosine,
        n,
        m,
        d,
        *z1.stride(),
        *z2.stride(),
        UNIT=unit,
        ROWS=rows,
        BLOCK_D=block,
        num_warps=4 if block <= 2048 else 8,
    )
    return u, scale, cosine
