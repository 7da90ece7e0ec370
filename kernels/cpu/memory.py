"""Memory for large results: new pages would cost more than the kernels do, so that of earlier results is used again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslfast import _C

LARGE = 2**23  # bytes; malloc keeps smaller pieces itself


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """`torch.empty`; what is large goes back to `_C.Memory` when it is freed."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE or not size:
        return torch.empty(shape, dtype=dtype, device="cpu")
    memory = torch.frombuffer(_C.Memory(size), dtype=dtype)
    return torch.empty(0, dtype=dtype, device="cpu").set_(memory.untyped_storage(), 0, shape)


def release() -> None:
    """Give the memory that no tensor holds any more back to the system."""
    _C.Memory.release()
