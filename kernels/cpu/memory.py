"""Memory for large results.

malloc maps whatever is larger than 32 MiB anew for every tensor, in pages of 4 KiB, and their first touches cost more
than the kernels do. Pages of 2 MiB cost a fraction, and as the system clears them, zeros need not be written.
"""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor

LARGE = 2**25  # bytes, the largest mmap threshold of glibc
HUGE_PAGE = 2**21


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """`torch.empty`, in huge pages where it is large."""
    return _huge_pages(shape, dtype) if _is_large(shape, dtype) else torch.empty(shape, dtype=dtype)


def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
    """`torch.zeros`, of huge pages that the system clears where it is large."""
    return _huge_pages(shape, dtype) if _is_large(shape, dtype) else torch.zeros(shape, dtype=dtype)


def _is_large(shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    return math.prod(shape) * dtype.itemsize >= LARGE and hasattr(mmap, "MADV_HUGEPAGE")


def _huge_pages(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    size = math.prod(shape) * dtype.itemsize
    size += -size % HUGE_PAGE  # whole pages: such a mapping begins with one
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(pages, dtype=dtype, count=math.prod(shape))  # unmaps them when it is freed
    return torch.empty(0, dtype=dtype).set_(memory.untyped_storage(), 0, shape)
