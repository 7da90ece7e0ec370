"""Memory for large results: new pages would cost more than the kernels do, so that of earlier results is used again."""

from __future__ import annotations

import math
import os
import sys
import threading

import torch
from torch import Tensor

from sslfast import _C

LARGE = 2**20  # bytes; malloc keeps smaller pieces itself
MOST = 2**29  # bytes remembered in all, so kept at most when nobody holds them

_results: list[tuple[Tensor, tuple[int, int]]] = []  # memory of large results, as bytes, and its holders without them
_lock = threading.Lock()


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """`torch.empty`, what is large in the memory of a result that nobody holds any more."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return torch.empty(shape, dtype=dtype, device="cpu")
    with _lock:
        memory = _free(size)
        if memory is None:
            memory = torch.empty(size, dtype=torch.uint8, device="cpu")
        _results.append((memory, _holders(memory)))
        total = sum(memory.numel() for memory, _ in _results)
        while total > MOST:
            total -= _results.pop(0)[0].numel()
        return torch.empty(0, dtype=dtype, device="cpu").set_(memory.untyped_storage(), 0, shape)


def release() -> None:
    """Give the memory that no tensor holds any more back to the system, and that of the kernels' scratch."""
    with _lock:
        _results.clear()
    if _C.has_core:
        _C.release_buffers()


def _unlock() -> None:
    """In a process that was forked while another thread held the lock, nobody would open it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_unlock)


def _holders(memory: Tensor) -> tuple[int, int]:
    """How many tensors and how many Python names hold the storage."""
    storage = memory.untyped_storage()
    return torch._C._storage_Use_Count(storage._cdata), sys.getrefcount(storage)


def _free(size: int) -> Tensor | None:
    """Taken from `_results`: what nobody else holds, and is as it was made, not resized nor shared with processes."""
    for i in reversed(range(len(_results))):
        memory, unused = _results[i]
        if memory.numel() == size and _holders(memory) == unused:
            del _results[i]
            if memory.untyped_storage().nbytes() == size and not memory.is_shared():
                return memory
    return None
