"""NT-Xent on the CPU: tiles of cosines by torch.mm that stay in cache, and one C++ SIMD pass over each.

Only the upper triangle of tiles is computed. In units of M²·D operations: forward 1, backward 1 + 2, the floor.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.contrastive import read_temperature, tile_size, unit_rows
from sslfast.kernels.cpu.memory import empty


def forward(z1: Tensor, z2: Tensor, temperature: float, tau: Tensor | None) -> tuple[Tensor, ...]:
    n = len(z1)
    m = 2 * n
    temperature, fixed = read_temperature(temperature, tau)
    u, unit, scale = unit_rows(z1, z2)
    positive, maximum = empty(m, dtype=torch.float32), empty(m, dtype=torch.float32).fill_(1.0 if fixed else -2.0)
    total = empty(m, dtype=torch.float64).zero_()
    size = tile_size(m)
    workspace = empty(_C.nt_xent_workspace(size, size), dtype=torch.float32)
    for cosine, i, j in _cosine_tiles(unit, size):
        _C.nt_xent_forward_tile(
            cosine.data_ptr(), *cosine.shape, i, j, n, 1 / temperature, fixed,
            positive.data_ptr(), maximum.data_ptr(), total.data_ptr(), workspace.data_ptr(),
        )  # fmt: skip
    losses, inverse_sum = (empty(m, dtype=torch.float32) for _ in range(2))
    _C.contrastive_losses(
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
    n = m // 2
    temperature, fixed = read_temperature(temperature, tau)
    unit = u.float()
    factor = grad * inverse_sum
    du = torch.zeros_like(unit)
    for weights, i, j in _cosine_tiles(unit, tile_size(m)):
        rows, cols = weights.shape
        _C.weights_tile(
            weights.data_ptr(), rows, cols, i, j, True, n, 1 / temperature, fixed,
            factor[i:].data_ptr(), shift[i:].data_ptr(), factor[j:].data_ptr(), shift[j:].data_ptr(),
        )  # fmt: skip
        du[i : i + rows].addmm_(weights, unit[j : j + cols])
        if i != j:
            du[j : j + cols].addmm_(weights.T, unit[i : i + rows])
    pull = grad * torch.expm1(-losses)  # P − 1 of the positives, without cancellation
    pull = pull[:n] + pull[n:]
    radial = sum(
        _C.project_rows(
            du[own:].data_ptr(), unit[own:].data_ptr(), unit[n - own :].data_ptr(), scale[own:].data_ptr(),
            pull.data_ptr(), n, d, 1 / temperature,
        )
        for own in (0, n)
    )  # fmt: skip
    return du.to(u.dtype), torch.tensor(-radial / temperature**2 / 2, dtype=torch.float32, device="cpu")


def _cosine_tiles(unit: Tensor, size: int) -> Iterator[tuple[Tensor, int, int]]:
    """Tiles (rows, cols) of unit·unitᵀ on and above the diagonal, in one buffer that the next tile overwrites."""
    buffer = empty(size * size, dtype=torch.float32)
    for i in range(0, len(unit), size):
        a = unit[i : i + size]
        for j in range(i, len(unit), size):
            b = unit[j : j + size]
            tile = buffer[: len(a) * len(b)].view(len(a), len(b))
            torch.mm(a, b.T, out=tile)
            yield tile, i, j
