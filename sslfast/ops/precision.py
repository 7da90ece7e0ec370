"""Numbers that float32 would round too coarsely, few of them, in float64: wherever a device has it."""

from __future__ import annotations

import torch
from torch import Tensor

WITHOUT_FLOAT64 = ("mps",)  # kinds of devices


def precise_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type in WITHOUT_FLOAT64 else torch.float64


def precise(x: Tensor) -> Tensor:
    return x.to(precise_dtype(x.device))
