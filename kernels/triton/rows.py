"""What the kernels on rows of tokens and patches share: the tiles they work in, and the inverse of rows of indices."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.sizes import next_power_of_2

TILE = 4096  # elements of a program of 4 warps: 2 to 8 vectors of 16 bytes a thread


def row_tile(size: int) -> tuple[int, int]:
    """Rows and elements of a tile for rows of this many elements: no lane idles where it is a multiple of 64."""
    block = max(min(64, next_power_of_2(size)), min(256, size & -size))
    return TILE // block, block


@triton.jit
def slot_map_kernel(index, slots, count, size, BLOCK: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        tl.store(slots + image * size + place, tl.zeros((BLOCK,), tl.int64), mask=place < size)
    tl.debug_barrier()
    for start in range(0, count, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        place = tl.load(index + image * count + slot, mask=slot < count, other=-1)
        known = (place >= 0) & (place < size)
        tl.atomic_add(slots + image * size + place, slot.to(tl.int64) + 2**32, mask=known, sem="relaxed")


@triton.jit
def load_slot(slots, mask):
    """How many k point to a place, and which does, if it is one; nothing does outside of the mask."""
    packed = tl.load(slots, mask=mask, other=0)
    return packed >> 32, packed & (2**32 - 1)


def slot_map(index: Tensor, size: int) -> Tensor:
    """slots (B, size): of the k with index[b, k] = place their sum and 2**32 times their number, for `load_slot`.

    index: (B, K) contiguous; entries outside [0, size) are dropped.
    """
    batch, count = index.shape
    slots = torch.empty(batch, size, dtype=torch.int64, device=index.device)
    slot_map_kernel[(batch,)](index, slots, count, size, BLOCK=min(1024, next_power_of_2(size)))
    return slots
