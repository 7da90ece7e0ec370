"""Momentum update on the CPU: one parallel C++ SIMD pass over a table of tensors."""

from __future__ import annotations

from array import array

import torch
from torch import Tensor

from sslfast import _C


def update(table: array, device: torch.device, momentum: float | Tensor, step: int | Tensor) -> None:
    address, words = table.buffer_info()
    _C.ema_update(address, words // 4, float(momentum), int(step) % 2**64)
