"""Negative cosine similarity on the GPU: a program takes whole rows of both, which stay in its registers.

Bytes, for 4-byte elements: 8·N·D read forward; 8·N·D read and 4·N·D written for each gradient backward, the floor.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.sizes import cdiv, next_power_of_2

INVERSE_EPS = tl.constexpr(1e12)  # F.normalize divides by 1e-12 at least


@triton.jit
def _load_unit_rows(x, row_stride, feature_stride, N, D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """The program's rows over max(length, 1e-12) in fp32, the factors (ROWS,) that did it, and 1, or 0 where it was
    1e-12."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, BLOCK_D).to(tl.int64)
    mask = (rows < N)[:, None] & (features < D)[None, :]
    pointers = x + rows[:, None] * row_stride + features[None, :] * feature_stride
    x = tl.load(pointers, mask=mask, other=0.0).to(tl.float32)
    largest = tl.max(tl.abs(x), axis=1)
    # The power of two that brings the largest to [1, 2): exact, and no square overflows or vanishes.
    exponent = largest.to(tl.int32, bitcast=True) >> 23
    power = ((254 - tl.minimum(tl.maximum(exponent, 1), 253)) << 23).to(tl.float32, bitcast=True)
    x = x * power[:, None]
    squares = tl.sum(x * x, axis=1)
    factor = tl.rsqrt(squares)
    factor = factor * (1.5 - 0.5 * squares * factor * factor)  # Newton's step to the last bit
    short = power * factor > INVERSE_EPS
    factor = tl.where(squares == 0, 0.0, tl.where(short, INVERSE_EPS / power, factor))
    return x * factor[:, None], power * factor, tl.where(short, 0.0, 1.0)


@triton.jit
def _store_gradient(
    dx, u, scale, free, v, cosine, weight, N, D: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr
):
    """weight·(v − cosine·u)·scale, without the second term where 1e-12 divides: it is constant."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, BLOCK_D)
    gradient = (v - (cosine * free)[:, None] * u) * (weight * scale)[:, None]
    mask = (rows < N)[:, None] & (features < D)[None, :]
    tl.store(dx + rows[:, None] * D + features[None, :], gradient.to(dx.dtype.element_ty), mask=mask)


@triton.jit
def negative_cosine_similarity_fwd_kernel(
    p,
    z,
    losses,
    N,
    D: tl.constexpr,
    p_row_stride,
    p_feature_stride,
    z_row_stride,
    z_feature_stride,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    u, _, _ = _load_unit_rows(p, p_row_stride, p_feature_stride, N, D, ROWS, BLOCK_D)
    v, _, _ = _load_unit_rows(z, z_row_stride, z_feature_stride, N, D, ROWS, BLOCK_D)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    tl.store(losses + rows, -tl.sum(u * v, axis=1), mask=rows < N)


@triton.jit
def negative_cosine_similarity_bwd_kernel(
    grad,
    grad_stride,
    p,
    z,
    dp,
    dz,
    N,
    D: tl.constexpr,
    p_row_stride,
    p_feature_stride,
    z_row_stride,
    z_feature_stride,
    WITH_P: tl.constexpr,
    WITH_Z: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """dp = −grad·(v − cosine·u)/|p| of unit rows u = p/|p| and v = z/|z|; dz likewise."""
    u, p_scale, p_free = _load_unit_rows(p, p_row_stride, p_feature_stride, N, D, ROWS, BLOCK_D)
    v, z_scale, z_free = _load_unit_rows(z, z_row_stride, z_feature_stride, N, D, ROWS, BLOCK_D)
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    weight = -tl.load(grad + rows * grad_stride, mask=rows < N, other=0.0)
    cosine = tl.sum(u * v, axis=1)
    if WITH_P:
        _store_gradient(dp, u, p_scale, p_free, v, cosine, weight, N, D, ROWS, BLOCK_D)
    if WITH_Z:
        _store_gradient(dz, v, z_scale, z_free, u, cosine, weight, N, D, ROWS, BLOCK_D)


def _blocks(d: int) -> dict[str, int]:
    block = max(16, next_power_of_2(d))
    return {"ROWS": max(1, 2048 // block), "BLOCK_D": block, "num_warps": min(16, max(4, block // 512))}


def forward(p: Tensor, z: Tensor) -> Tensor:
    """−cosine of the rows of p and z, (N, D) float32, bfloat16 or float16, any strides: (N,) float32."""
    n, d = p.shape
    losses = torch.empty(n, dtype=torch.float32, device=p.device)
    blocks = _blocks(d)
    with torch.cuda.device_of(p):
        negative_cosine_similarity_fwd_kernel[(cdiv(n, blocks["ROWS"]),)](
            p, z, losses, n, d, *p.stride(), *z.stride(), **blocks
        )
    return losses


def backward(grad: Tensor, p: Tensor, z: Tensor, with_p: bool, with_z: bool) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i to p and z, in their dtype; (0, D) where not wanted."""
    n, d = p.shape
    dp, dz = (torch.empty(n if wanted else 0, d, dtype=p.dtype, device=p.device) for wanted in (with_p, with_z))
    blocks = _blocks(d)
    with torch.cuda.device_of(p):
        negative_cosine_similarity_bwd_kernel[(cdiv(n, blocks["ROWS"]),)](
            grad,
            grad.stride(0),
            p,
            z,
            dp,
            dz,
            n,
            d,
            *p.stride(),
            *z.stride(),
            WITH_P=with_p,
            WITH_Z=with_z,
            **blocks,
        )
    return dp, dz
