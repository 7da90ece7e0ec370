"""Memory for large results."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C

LARGE = 2**23  # bytes; several huge pages of 2 MiB


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """`torch.empty`, in huge pages where it is large."""
    x = torch.empty(shape, dtype=dtype)
    if x.nbytes >= LARGE:
        _C.advise_huge_pages(x.data_ptr(), x.nbytes)
    return x
