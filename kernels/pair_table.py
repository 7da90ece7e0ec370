"""Tables of tensors for the C++ kernels that work on many at once; the rows of csrc/common/ema.h."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
UNKNOWN = 9  # no kernel knows a row with such a dtype, 3 * target + source >= 9


def pair_table(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> array:
    """(address of target, of source, elements, 3 * type of target + type of source) of every pair, 64 bits each."""
    rows: list[int] = []
    for target, source in zip(targets, sources):
        types = 3 * TYPES.get(target.dtype, UNKNOWN) + TYPES.get(source.dtype, UNKNOWN)
        rows += target.data_ptr(), source.data_ptr(), target.numel(), types
    return array("Q", rows)
