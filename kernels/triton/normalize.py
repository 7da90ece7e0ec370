"""Rows onto the unit sphere: both views in one pass, with the cosines of the positive pairs; and the way back."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.sizes import cdiv, next_power_of_2

EPS = tl.constexpr(1e-12)  # of F.normalize


@triton.jit
def _unit_rows(pointers, mask):
    """Rows of unit length, (R, D) in their dtype, and the factors (R,) that made them so."""
    z = tl.load(pointers, mask=mask, other=0.0).to(tl.float32)
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
def _normalize_pairs(
    z1, z2, u, scale, cosine, N, D: tl.constexpr,
    row_stride1, feature_stride1, row_stride2, feature_stride2,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, BLOCK_D).to(tl.int64)
    mask = (rows < N)[:, None] & (features < D)[None, :]
    u1, scale1 = _unit_rows(z1 + rows[:, None] * row_stride1 + features[None, :] * feature_stride1, mask)
    u2, scale2 = _unit_rows(z2 + rows[:, None] * row_stride2 + features[None, :] * feature_stride2, mask)
    out = u + rows[:, None] * D + features[None, :]
    tl.store(out, u1, mask=mask)
    tl.store(out + tl.cast(N, tl.int64) * D, u2, mask=mask)
    tl.store(scale + rows, scale1, mask=rows < N)
    tl.store(scale + N + rows, scale2, mask=rows < N)
    tl.store(cosine + rows, tl.sum(u1.to(tl.float32) * u2.to(tl.float32), axis=1), mask=rows < N)


@triton.jit
def store_raw_gradient(
    dz, du, u, scale, row, end, D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    """dz[row : end], at most ROWS raw rows' gradients, from du to their unit rows u; returns Σ_i u_i·du_i of them."""
    i = tl.arange(0, ROWS)
    inside = row + i < end
    along = tl.where(inside, tl.sum(du * u, axis=1), 0.0)
    factor = tl.load(scale + row + i, mask=inside, other=0.0)
    # The factor of a row shorter than 1e-12 is constant: nothing to project out.
    du -= tl.where(factor < 1e12, along, 0.0)[:, None] * u
    features = tl.arange(0, BLOCK_D)[None, :]
    out = dz + tl.cast(row, tl.int64) * D + (i[:, None] * D + features)
    tl.store(out, du * factor[:, None], mask=inside[:, None] & (features < D))
    return tl.sum(along)


def normalize_pairs(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows of (N, D) views and their cosines: u (2N, D) in the input dtype, scale (2N,) and cosine (N,) in fp32.

    u = scale·z; a zero row has scale 0, a row shorter than 1e-12 has 1e12. The cosines are those of the rounded u.
    """
    n, d = z1.shape
    u = torch.empty(2 * n, d, dtype=z1.dtype, device=z1.device)
    scale = torch.empty(2 * n, dtype=torch.float32, device=z1.device)
    cosine = torch.empty(n, dtype=torch.float32, device=z1.device)
    block = max(16, next_power_of_2(d))
    rows = max(1, 2048 // block)
    _normalize_pairs[(cdiv(n, rows),)](
        z1, z2, u, scale, cosine, n, d, *z1.stride(), *z2.stride(),
        ROWS=rows, BLOCK_D=block, num_warps=4 if block <= 2048 else 8,
    )  # fmt: skip
    return u, scale, cosine
