"""Inverts rows of indices, so that a backward pass can be one dense write."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _slot_map(index, slots, count, size, BLOCK: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        tl.store(slots + image * size + place, -1, mask=place < size)
    tl.debug_barrier()
    for start in range(0, count, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        place = tl.load(index + image * count + slot, mask=slot < count, other=-1)
        tl.store(slots + image * size + place, slot, mask=(place >= 0) & (place < size))


def slot_map(index: Tensor, size: int) -> Tensor:
    """slots (B, size) int32 with slots[b, index[b, k]] = k, and -1 where no k points; others than [0, size) are dropped.

    index: (B, K) contiguous, the entries of a row distinct.
    """
    batch, count = index.shape
    slots = torch.empty(batch, size, dtype=torch.int32, device=index.device)
    _slot_map[(batch,)](index, slots, count, size, BLOCK=min(1024, triton.next_power_of_2(size)))
    return slots
