"""What the contrastive losses hand to the C++ core of csrc/cpu: rows, a temperature, room for cosines."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.memory import empty
from sslfast.kernels.pair_table import TYPES

TILE = _C.tile if _C.has_core else 1  # rows and columns; without the core nothing is kept
KEPT_TILES = 2**26 // (4 * TILE**2)  # 64 MiB of cosines are kept for the backward pass, others are computed again


def rows(x: Tensor) -> _C.Rows:
    """A contiguous matrix."""
    return _C.Rows(x.data_ptr(), TYPES[x.dtype], x.shape[1])


def address(x: Tensor | None) -> int:
    """Of a contiguous vector, 0 of none."""
    return 0 if x is None else x.data_ptr()


def contiguous(*xs: Tensor | None) -> list[Tensor | None]:
    return [x if x is None else x.contiguous() for x in xs]


def value(temperature: float, tau: Tensor | None) -> float:
    """The temperature, whichever holds it."""
    return temperature if tau is None else float(tau)


def floats(*shape: int) -> Tensor:
    return empty(*shape, dtype=torch.float32)


def cosines(x: Tensor, tiles: int, wanted: bool) -> int:
    """Floats for the cosines of so many tiles of rows like x's, as far as they are kept."""
    if not wanted or not x.is_cpu or x.dtype not in TYPES or x.shape[1] < kept_from(x.dtype):
        return 0
    return torch.sym_min(tiles, KEPT_TILES) * TILE**2


def kept_from(dtype: torch.dtype) -> int:
    """Columns of rows whose cosines are sooner kept than computed again."""
    return _C.kept_from(TYPES[dtype]) if _C.has_core else 0


def kept(cosines: Tensor) -> _C.Kept:
    return _C.Kept(cosines.data_ptr(), cosines.shape[0] // TILE**2)


def blocks(count: int) -> int:
    """Rows and columns of tiles that so many rows make."""
    return (count + TILE - 1) // TILE
