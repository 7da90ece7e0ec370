"""A case: one task at one size, and what its inputs are made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class Case:
    """One task at one size: forward and backward together, if it has one."""

    op: str  # the task: a function of sslfast.ops, or a step that several of them make up
    name: str
    device: str
    flops: float  # of matrix products, at least
    bytes: float  # read and written, at least
    make: Callable[[], dict[str, Tensor]]  # on the default device
    dtype: torch.dtype = FLOAT32
    covers: tuple[str, ...] = ()  # the functions of sslfast.ops in it, if not `op`
    gate: Callable[[], dict[str, Tensor]] | None = None  # smaller inputs where float64 would not fit
    bars: dict[str, float] = field(default_factory=dict)  # what sslfast is held to, see report.verdict
    beside_busy: dict[str, float] = field(default_factory=lambda: {"times eager": 1})  # the bars on a busy machine
    overhead: bool = False  # tiny, to see what a call costs the host

    def inputs(self, device: str, *, gate: bool = False) -> dict[str, Tensor]:
        """Fresh inputs, made on the device, the same at every call."""
        torch.manual_seed(0)
        with torch.device(device):
            return (self.gate or self.make)() if gate else self.make()


def title(text: str, dtype: torch.dtype) -> str:
    return text if dtype == FLOAT32 else f"{text} {str(dtype).removeprefix('torch.')}"


def leaf(x: Tensor, dtype: torch.dtype = FLOAT32) -> Tensor:
    return x.to(dtype).requires_grad_()
