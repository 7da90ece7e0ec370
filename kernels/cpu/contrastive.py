"""What the contrastive losses share on the CPU: unit rows, and tiles of cosines by torch.mm that stay in cache."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.memory import empty

FIXED_SHIFT_FROM = 0.025  # below this temperature exp((cosine − 1)/τ) could underflow for a whole row


def read_temperature(temperature: float, tau: Tensor | None) -> tuple[float, bool]:
    """(temperature, whether 1 serves as the maximum of every row).

    A temperature that came in a tensor was not checked: one that makes no sense gives NaN, never a wrong number.
    """
    temperature = temperature if tau is None else float(tau)
    return (temperature if temperature > 0 else float("nan")), temperature >= FIXED_SHIFT_FROM


def unit_rows(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows of both, (2N, D) in their dtype, the same in float32, and the factors (2N,) that made them so."""
    n, d = z1.shape
    unit, scale = empty(2 * n, d, dtype=torch.float32), empty(2 * n, dtype=torch.float32)
    for half, z in enumerate((z1, z2)):
        z = z.float().contiguous()
        _C.normalize_rows(z.data_ptr(), n, d, unit[half * n :].data_ptr(), scale[half * n :].data_ptr())
    u = unit.to(z1.dtype)
    return u, u.float(), scale


def tile_size(rows: int) -> int:
    """Tiles of 1 MiB stay in L2; more threads need larger ones to be fed."""
    threads = torch.get_num_threads()
    return min(rows, 512 if threads <= 4 else 1024 if threads <= 16 else 2048)


def column_tiles(x: Tensor, columns: Tensor, height: int) -> Iterator[tuple[Tensor, Tensor, int, int]]:
    """Tiles of x·columnsᵀ, at most `height` rows each, in one buffer that the next tile overwrites.

    With them the columns in float32, and the first row and column. All columns of some rows come before other rows.
    """
    width = min(len(columns), height * max(1, height // len(x)))
    buffer = empty(min(height, len(x)) * width, dtype=torch.float32)
    for i in range(0, len(x), height):
        a = x[i : i + height]
        for j in range(0, len(columns), width):
            b = columns[j : j + width].float()
            tile = buffer[: len(a) * len(b)].view(len(a), len(b))
            torch.mm(a, b.T, out=tile)
            yield tile, b, i, j
