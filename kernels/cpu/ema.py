"""Momentum update on the CPU: one parallel C++ SIMD pass over all tensors."""

from __future__ import annotations

from torch import Tensor

from sslfast import _C
from sslfast.kernels.pairs import pair_table


def update(targets: list[Tensor], sources: list[Tensor], momentum: float | Tensor, step: int | Tensor) -> None:
    table = pair_table(targets, sources)
    _C.ema_update(table.buffer_info()[0], len(targets), float(momentum), int(step) % 2**64)
