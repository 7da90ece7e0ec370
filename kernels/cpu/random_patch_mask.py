"""The random choice of patches on the CPU: every image's noise sorted in C++, images in parallel."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.memory import empty


def from_seed(seed: Tensor, batch: int, num_patches: int, num_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    keep, restore, mask = _outputs(batch, num_patches, num_keep)
    _C.random_patch_mask_from_seed(
        int(seed), batch, num_patches, num_keep, keep.data_ptr(), restore.data_ptr(), mask.data_ptr()
    )
    return keep, restore, mask


def from_noise(noise: Tensor, num_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    noise = noise.float().contiguous()  # exact: no order changes
    keep, restore, mask = _outputs(*noise.shape, num_keep)
    _C.random_patch_mask_from_noise(
        noise.data_ptr(), *noise.shape, num_keep, keep.data_ptr(), restore.data_ptr(), mask.data_ptr()
    )
    return keep, restore, mask


def _outputs(batch: int, num_patches: int, num_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    keep, restore = (empty(batch, columns, dtype=torch.int64) for columns in (num_keep, num_patches))
    return keep, restore, empty(batch, num_patches, dtype=torch.bool)
