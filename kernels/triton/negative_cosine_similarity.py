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
def _unit_rows(pointers, mask):
    """Rows over max(length, 1e-12) in fp32, the factors (R,) that did it, and 1 where it was the length, else 0."""
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
def _load_pairs(
    p, z, N, D: tl.constexpr, p_row_stride, p_stride, z_row_stride, z_stride, ROWS: tl.constexpr, BLOCK_D: tl.constexpr
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    features = tl.arange(0, BLOCK_D).to(tl.int64)
    mask = (rows < N)[:, None] & (features < D)[None, :]
    u, p_scale, p_free = _unit_rows(p + rows[:, None] * p_row_stride + features[None, :] * p_stride, mask)
    v, z_scale, z_free = _unit_rows(z + rows[:, None] * z_row_stride + features[None, :] * z_stride, mask)
    return rows, rows[:, None] * D + features[None, :], mask, u, p_scale, p_free, v, z_scale, z_free


@triton.jit
def _forward(
    p, z, losses, N, D: tl.constexpr, p_row_stride, p_stride, z_row_stride, z_stride,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows, _, _, u, _, _, v, _, _ = _load_pairs(
        p, z, N, D, p_row_stride, p_stride, z_row_stride, z_stride, ROWS, BLOCK_D
    )
    tl.store(losses + rows, -tl.sum(u * v, axis=1), mask=rows < N)


@triton.jit
def _backward(
    grad, grad_stride, p, z, dp, dz, N, D: tl.constexpr, p_row_stride, p_stride, z_row_stride, z_stride,
    WITH_P: tl.constexpr, WITH_Z: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """dp = −grad·(ẑ − cosine·p̂)/|p|, without the second term where 1e-12 divides: it is constant. dz likewise."""
    rows, at, mask, u, p_scale, p_free, v, z_scale, z_free = _load_pairs(
        p, z, N, D, p_row_stride, p_stride, z_row_stride, z_stride, ROWS, BLOCK_D
    )
    weight = -tl.load(grad + rows * grad_stride, mask=rows < N, other=0.0)
    cosine = tl.sum(u * v, axis=1)
    if WITH_P:
        across = v - (cosine * p_free)[:, None] * u
        tl.store(dp + at, (across * (weight * p_scale)[:, None]).to(dp.dtype.element_ty), mask=mask)
    if WITH_Z:
        across = u - (cosine * z_free)[:, None] * v
        tl.store(dz + at, (across * (weight * z_scale)[:, None]).to(dz.dtype.element_ty), mask=mask)


def _blocks(d: int) -> dict[str, int]:
    block = max(16, next_power_of_2(d))
    return {"ROWS": max(1, 2048 // block), "BLOCK_D": block, "num_warps": min(16, max(4, block // 512))}


def forward(p: Tensor, z: Tensor) -> Tensor:
    """−cosine of the rows of p and z, (N, D) float32, bfloat16 or float16, any strides: (N,) float32."""
    n, d = p.shape
    losses = torch.empty(n, dtype=torch.float32, device=p.device)
    blocks = _blocks(d)
    with torch.cuda.device_of(p):
        _forward[(cdiv(n, blocks["ROWS"]),)](p, z, losses, n, d, *p.stride(), *z.stride(), **blocks)
    return losses


def backward(grad: Tensor, p: Tensor, z: Tensor, with_p: bool, with_z: bool) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i to p and z, in their dtype; (0, D) where not wanted."""
    n, d = p.shape
    dp, dz = (torch.empty(n if wanted else 0, d, dtype=p.dtype, device=p.device) for wanted in (with_p, with_z))
    blocks = _blocks(d)
    with torch.cuda.device_of(p):
        _backward[(cdiv(n, blocks["ROWS"]),)](
            grad, grad.stride(0), p, z, dp, dz, n, d, *p.stride(), *z.stride(),
            WITH_P=with_p, WITH_Z=with_z, **blocks,
        )  # fmt: skip
    return dp, dz
