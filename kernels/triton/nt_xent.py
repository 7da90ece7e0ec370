"""NT-Xent on the GPU: one triangle of cosines forward, blocks of rows backward, the matrix never in memory.

For M = 2N views, in operations (a multiplication and an addition are two) and exponentials: forward M²·D and M²/2,
backward 4·M²·D and M²; float32 products cost three of tf32. With tiles of R x C pairs, u comes M/2C times from L2
forward and M/R times backward. Memory beyond inputs and outputs: 256·M bytes forward (twice that for τ < 1/64 or in a
tensor); backward 4·M·D a split, above D = 256 and for float32 also a panel of weights, M x max(D, 2 KiB).
"""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from sslfast.kernels.triton import nt_xent_kernels as kernels
from sslfast.kernels.triton.normalize import normalize_pairs
from sslfast.kernels.triton.tiles import PLAIN_FROM

# At most so many groups of columns with a partial sum each: the workspace of the forward is GROUPS·M floats, not M².
GROUPS = 64
# At most so many partial sums of the gradient where its row blocks alone are too few for the chip.
SPLITS = 8
# Least width of a panel of weights; wider inputs get panels as wide as they are.
PANEL_BYTES = 2048


class Tile(NamedTuple):
    rows: int
    columns: int
    warps: int
    stages: int


# By architecture, kernel, and width of the inputs: up to 128 and 256 features of 16 bits, more of them, and float32.
# All are free of register spills; those of sm_80 also fit the 99 KiB of shared memory of the smaller chips.
TILES = {
    80: {
        "partial_sums": {
            "128": Tile(64, 128, 4, 3),
            "256": Tile(64, 128, 8, 2),
            "wide": Tile(128, 128, 8, 3),
            "float32": Tile(64, 128, 8, 3),
        },
        "weighted_rows": {"128": Tile(64, 64, 4, 3), "256": Tile(64, 64, 8, 2)},
        "panel_weights": {"wide": Tile(128, 128, 8, 3), "float32": Tile(64, 128, 8, 3)},
        "add_panel": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 64, 8, 3)},
    },
    90: {
        "partial_sums": {
            "128": Tile(64, 128, 4, 3),
            "256": Tile(128, 128, 8, 2),
            "wide": Tile(128, 128, 8, 3),
            "float32": Tile(128, 64, 8, 3),
        },
        "weighted_rows": {"128": Tile(128, 128, 8, 3), "256": Tile(128, 64, 8, 3)},
        "panel_weights": {"wide": Tile(128, 256, 8, 3), "float32": Tile(128, 64, 8, 3)},
        "add_panel": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 64, 8, 3)},
    },
    100: {
        "partial_sums": {
            "128": Tile(128, 128, 8, 3),
            "256": Tile(128, 64, 8, 2),
            "wide": Tile(128, 128, 8, 3),
            "float32": Tile(128, 128, 8, 3),
        },
        "weighted_rows": {"128": Tile(128, 64, 8, 3), "256": Tile(128, 64, 8, 2)},
        "panel_weights": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 128, 8, 3)},
        "add_panel": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 128, 8, 3)},
    },
}


@functools.cache
def _chip(device: torch.device) -> tuple[int, int]:
    """The architecture whose tiles to use, and the number of multiprocessors; under the interpreter a small Hopper."""
    if device.type != "cuda":
        return 90, 4
    properties = torch.cuda.get_device_properties(device)
    return {9: 90, 10: 100}.get(properties.major, 80), properties.multi_processor_count


class Plan(NamedTuple):
    """Launch parameters of a kernel: tile, features at a time, and keyword arguments."""

    rows: int
    columns: int
    options: dict[str, int | bool]


@functools.lru_cache(maxsize=256)
def _plan(kernel: str, m: int, d: int, dtype: torch.dtype, device: torch.device) -> Plan:
    fits = dtype != torch.float32 and d <= 256
    width = "float32" if dtype == torch.float32 else "wide" if d > 256 else "256" if d > 128 else "128"
    tile = TILES[_chip(device)[0]][kernel][width]
    features = max(16, triton.next_power_of_2(d)) if fits else 32 if dtype == torch.float32 else 64
    if kernel == "add_panel":
        block, masked = {"BLOCK_K": features}, m < tile.rows or m % features != 0
    else:
        block, masked = {"BLOCK_D": features}, m < max(tile.rows, tile.columns)
    block |= {"D": d, "BLOCK_M": tile.rows, "BLOCK_N": tile.columns, "MASKED": masked}
    return Plan(tile.rows, tile.columns, block | {"num_warps": tile.warps, "num_stages": tile.stages})


def _regimes(temperature: float, tau: Tensor | None) -> tuple[bool, ...]:
    """Which variants to launch: plain (False) or guarded (True) exponentials; with a tensor both, and one returns."""
    return (False, True) if tau is not None else (not temperature >= PLAIN_FROM.value,)


def forward(z1: Tensor, z2: Tensor, temperature: float, tau: Tensor | None) -> tuple[Tensor, ...]:
    """Losses of the 2N views; shift and inverse_sum (2N,), P_ij = exp((u_i·u_j − shift_i)/τ)·inverse_sum_i; u; scale.

    z1, z2: (N, D) float32, bfloat16 or float16, any strides. tau: a 0-dim tensor that replaces temperature.
    u: unit rows (2N, D) in the input dtype; scale: their factors (2N,); all but u are float32.
    """
    n, d = z1.shape
    m = 2 * n
    temperature = ctypes.c_float(temperature).value  # as the kernels get it
    regimes = _regimes(temperature, tau)
    with torch.cuda.device_of(z1):
        u, scale, cosine = normalize_pairs(z1, z2)
        plan = _plan("partial_sums", m, d, z1.dtype, z1.device)
        block = max(plan.rows, plan.columns)
        size = block * triton.cdiv(m, block * GROUPS)
        groups = triton.cdiv(m, size)
        partial = torch.empty(2 if True in regimes else 1, groups, m, dtype=torch.float32, device=z1.device)
        for guarded in regimes:
            kernel = kernels.partial_guarded_sums if guarded else kernels.partial_sums
            grid = (groups, groups) if guarded else (groups * (groups + 1) // 2,)
            kernel[grid](u, partial, m, size, temperature, tau, **plan.options)
        losses, shift, inverse_sum = (torch.empty_like(scale) for _ in range(3))
        kernels.combine_sums[(triton.cdiv(m, 32),)](
            partial, cosine, losses, shift, inverse_sum, m, groups, temperature, tau,
            GROUPS=triton.next_power_of_2(groups), ROWS=32,
        )  # fmt: skip
    return losses, shift, inverse_sum, u, scale


def backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    temperature: float,
    tau: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i: to the raw views (2N, D) in u's dtype, and to τ, 0-dim float32."""
    m, d = u.shape
    temperature = ctypes.c_float(temperature).value
    stride = grad.stride(0)
    with torch.cuda.device_of(u):
        largest = torch.linalg.vector_norm(grad, ord=float("inf")) if u.dtype == torch.float16 else None
        factors = torch.empty_like(scale)
        kernels.row_factors[(triton.cdiv(m, 256),)](
            grad, stride, shift, inverse_sum, largest, factors, m, temperature, tau, ROWS=256
        )
        by_panels = u.dtype == torch.float32 or d > 256
        du = (_sums_by_panels if by_panels else _sums_by_rows)(factors, shift, u, temperature, tau)

        dz = torch.empty_like(u)
        block = max(16, triton.next_power_of_2(d))
        rows = max(1, 4096 // block)
        blocks = triton.cdiv(m // 2, rows)
        radial = torch.empty(2, blocks, dtype=torch.float32, device=u.device)
        kernels.finish_rows[(blocks, 2)](
            grad, stride, losses, du, u, scale, largest, dz, radial, m, len(du), temperature, tau,
            D=d, ROWS=rows, BLOCK_D=block,
        )  # fmt: skip
        dtau = torch.empty((), dtype=torch.float32, device=u.device)
        kernels.temperature_gradient[(1,)](radial, dtau, radial.numel(), temperature, tau, BLOCK=1024)
    return dz, dtau


def _sums_by_rows(factors: Tensor, shift: Tensor, u: Tensor, temperature: float, tau: Tensor | None) -> Tensor:
    """W·u as (splits, M, D) to be added: rows in registers, and their columns split until they fill the chip."""
    m, d = u.shape
    plan = _plan("weighted_rows", m, d, u.dtype, u.device)
    row_blocks, column_blocks = triton.cdiv(m, plan.rows), triton.cdiv(m, plan.columns)
    splits = min(max(1, _chip(u.device)[1] // row_blocks), SPLITS, column_blocks)
    width = plan.columns * triton.cdiv(column_blocks, splits)
    splits = triton.cdiv(m, width)
    du = torch.empty(splits, m, d, dtype=torch.float32, device=u.device)
    for guarded in _regimes(temperature, tau):
        kernels.weighted_rows[(row_blocks, splits)](
            factors, shift, u, du, m, width, temperature, tau, GUARDED=guarded, **plan.options
        )
    return du


def _sums_by_panels(factors: Tensor, shift: Tensor, u: Tensor, temperature: float, tau: Tensor | None) -> Tensor:
    """W·u as (1, M, D) where its rows do not fit in registers: W in panels of its columns."""
    m, d = u.shape
    plan = _plan("panel_weights", m, d, u.dtype, u.device)
    product = _plan("add_panel", m, d, u.dtype, u.device)
    width = max(PANEL_BYTES // u.element_size(), 64 * triton.cdiv(d, 64))
    weights = torch.empty(m, width, dtype=u.dtype, device=u.device)
    du = torch.empty(1, m, d, dtype=torch.float32, device=u.device)
    for panel in range(0, m, width):
        columns = min(width, m - panel)
        grid = (triton.cdiv(columns, plan.columns), triton.cdiv(m, plan.rows))
        for guarded in _regimes(temperature, tau):
            kernels.panel_weights[grid](
                factors, shift, u, weights, panel, m, temperature, tau, WIDTH=width, GUARDED=guarded, **plan.options
            )
        grid = (triton.cdiv(m, product.rows), triton.cdiv(d, product.columns))
        kernels.add_panel[grid](weights, u, du, panel, m, WIDTH=width, **product.options)
    return du
