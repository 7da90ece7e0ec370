"""NT-Xent on the CPU: tiles of cosines by torch.mm that stay in cache, and one C++ SIMD pass over each.

Only the upper triangle of tiles is computed. In units of M²·D operations: forward 1, backward 1 + 2, the floor.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sslfast import _C

FIXED_SHIFT_FROM = 0.025  # below this temperature exp((cosine − 1)/τ) could underflow for a whole row


def forward(z1: Tensor, z2: Tensor, temperature: float, tau: Tensor | None) -> tuple[Tensor, ...]:
    n, d = z1.shape
    m = 2 * n
    temperature = _positive(temperature if tau is None else float(tau))
    unit, scale = torch.empty(m, d), torch.empty(m)
    for half, z in enumerate((z1, z2)):
        z = z.float().contiguous()
        _C.nt_xent_normalize(z.data_ptr(), n, d, unit[half * n :].data_ptr(), scale[half * n :].data_ptr())
    u = unit.to(z1.dtype)
    unit = u.float()

    fixed = temperature >= FIXED_SHIFT_FROM
    positive, maximum = torch.empty(m), torch.full((m,), 1.0 if fixed else -2.0)
    total = torch.zeros(m, dtype=torch.float64)
    size = _tile_size(m)
    workspace = torch.empty(_C.nt_xent_workspace(size, size))
    for cosine, i, j in _cosine_tiles(unit, size):
        _C.nt_xent_forward_tile(
            cosine.data_ptr(), *cosine.shape, i, j, n, 1 / temperature, fixed,
            positive.data_ptr(), maximum.data_ptr(), total.data_ptr(), workspace.data_ptr(),
        )  # fmt: skip
    losses, inverse_sum = torch.empty(m), torch.empty(m)
    _C.nt_xent_losses(
        m, 1 / temperature, positive.data_ptr(), maximum.data_ptr(), total.data_ptr(),
        losses.data_ptr(), inverse_sum.data_ptr(),
    )  # fmt: skip
    return losses, maximum, inverse_sum, u, scale


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
    m, d = u.shape
    temperature = _positive(temperature if tau is None else float(tau))
    unit = u.float()
    grad = grad.contiguous()
    scaled_grad = grad * inverse_sum
    du = torch.zeros(m, d)
    for weights, i, j in _cosine_tiles(unit, _tile_size(m)):
        rows, cols = weights.shape
        _C.nt_xent_backward_tile(
            weights.data_ptr(), rows, cols, i, j, m // 2, 1 / temperature, temperature >= FIXED_SHIFT_FROM,
            scaled_grad.data_ptr(), shift.data_ptr(),
        )  # fmt: skip
        du[i : i + rows].addmm_(weights, unit[j : j + cols])
        if i != j:
            du[j : j + cols].addmm_(weights.T, unit[i : i + rows])
    dtau = _C.nt_xent_project(
        du.data_ptr(), unit.data_ptr(), scale.data_ptr(), grad.data_ptr(), losses.data_ptr(), m // 2, d, 1 / temperature
    )
    return du.to(u.dtype), torch.tensor(dtau, dtype=torch.float32)


def _positive(temperature: float) -> float:
    """A temperature that came in a tensor was not checked: one that makes no sense gives NaN, never a wrong number."""
    return temperature if temperature > 0 else float("nan")


def _tile_size(m: int) -> int:
    """Tiles of 1 MiB stay in L2; more threads need larger ones to be fed."""
    threads = torch.get_num_threads()
    return min(m, 512 if threads <= 4 else 1024 if threads <= 16 else 2048)


def _cosine_tiles(unit: Tensor, size: int) -> Iterator[tuple[Tensor, int, int]]:
    """Tiles (rows, cols) of unit·unitᵀ on and above the diagonal, in one buffer that the next tile overwrites."""
    buffer = torch.empty(size * size)
    for i in range(0, len(unit), size):
        a = unit[i : i + size]
        for j in range(i, len(unit), size):
            b = unit[j : j + size]
            tile = buffer[: len(a) * len(b)].view(len(a), len(b))
            torch.mm(a, b.T, out=tile)
            yield tile, i, j
