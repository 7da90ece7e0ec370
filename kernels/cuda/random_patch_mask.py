"""Random patches to keep and to mask on CUDA: keys and their sort in shared memory, one block an image, one launch."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C

TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def from_seed(seed: Tensor, batch: int, num_patches: int, num_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """keep (B, K), restore (B, L) and mask (B, L); keys from Philox under the 0-dim int64 seed."""
    outputs = _empty(seed.device, batch, num_patches, num_keep)
    with torch.cuda.device(seed.device):
        _C.cuda.random_patch_mask_from_seed(seed.data_ptr(), batch, num_patches, num_keep, *_addresses(outputs))
    return outputs


def from_noise(noise: Tensor, num_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same from noise (B, L), float32, bfloat16 or float16, in the order of torch.argsort(noise, stable=True)."""
    outputs = _empty(noise.device, *noise.shape, num_keep)
    with torch.cuda.device(noise.device):
        _C.cuda.random_patch_mask_from_noise(
            noise.data_ptr(), TYPES[noise.dtype], *noise.stride(), *noise.shape, num_keep, *_addresses(outputs)
        )
    return outputs


def _empty(device: torch.device, batch: int, num_patches: int, num_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    keep = torch.empty(batch, num_keep, dtype=torch.int64, device=device)
    restore = torch.empty(batch, num_patches, dtype=torch.int64, device=device)
    return keep, restore, torch.empty(batch, num_patches, dtype=torch.bool, device=device)


def _addresses(outputs: tuple[Tensor, Tensor, Tensor]) -> tuple[int, ...]:
    """Those of the outputs, and the current stream."""
    return *(output.data_ptr() for output in outputs), torch.cuda.current_stream().cuda_stream
