"""Rows to unit length and their gradients back, on the GPU; what views pull each other with is plain PyTorch."""

from __future__ import annotations

import ctypes

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.triton.normalize import normalize_pairs, store_raw_gradient
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2
from sslfast.kernels.triton.tiles import load_tile


def normalize(first: Tensor, second: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Unit rows (N + M, D) in the input dtype, and their factors (N + M,) float32."""
    with torch.cuda.device_of(first):
        u, scale, _ = normalize_pairs(first, first[:0] if second is None else second)
    return u, scale


def project(
    du: Tensor, u: Tensor, scale: Tensor, multiplier: float, by: Tensor | None = None, pull: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """multiplier·by times the gradients to raw rows, in u's dtype; and Σ u·du. See sslfast/ops/unit_rows.py."""
    if pull is not None:
        du = reference.pulled(du, u.float(), pull)
    n, d = u.shape
    du, u, scale, dz = du.contiguous(), u.contiguous(), scale.contiguous(), torch.empty_like(u)
    block = max(16, next_power_of_2(d))
    rows = max(1, 2048 // block)
    along = torch.empty(cdiv(n, rows), dtype=torch.float32, device=u.device)
    with torch.cuda.device_of(u):
        project_rows_kernel[(len(along),)](
            du,
            u,
            scale,
            dz,
            along,
            n,
            ctypes.c_float(multiplier).value,
            by,
            D=d,
            ROWS=rows,
            BLOCK_D=block,
            num_warps=8 if block > 512 else 4,
        )
    return dz, along.sum()


@triton.jit
def project_rows_kernel(
    du,
    u,
    scale,
    dz,
    along,
    N,
    multiplier,
    by,
    D: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    if by is not None:
        multiplier *= tl.load(by).to(tl.float32)
    row = tl.program_id(0) * ROWS
    gradient = load_tile(du, row, 0, N, D, ROWS, BLOCK_D, True)
    x = load_tile(u, row, 0, N, D, ROWS, BLOCK_D, True).to(tl.float32)
    tl.store(along + tl.program_id(0), tl.sum(tl.sum(gradient * x, axis=1)))
    store_raw_gradient(dz, gradient * multiplier, x, scale, row, N, D, ROWS, BLOCK_D)
