"""Negative cosine similarity on the CPU: one C++ SIMD pass over the rows forward, one backward, nothing kept between.

Bytes, for 4-byte elements: 8·N·D read forward; 8·N·D read and 4·N·D written for each gradient backward, the floor.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.memory import empty
from sslfast.kernels.pair_table import TYPES


def forward(p: Tensor, z: Tensor) -> Tensor:
    p, z = p.contiguous(), z.contiguous()
    losses = empty(len(p), dtype=torch.float32)
    _C.negative_cosine_similarity(p.data_ptr(), z.data_ptr(), TYPES[p.dtype], *p.shape, losses.data_ptr())
    return losses


def backward(grad: Tensor, p: Tensor, z: Tensor, with_p: bool, with_z: bool) -> tuple[Tensor, Tensor]:
    grad, p, z = grad.contiguous(), p.contiguous(), z.contiguous()
    dp, dz = (empty(len(p) if wanted else 0, p.shape[1], dtype=p.dtype) for wanted in (with_p, with_z))
    _C.negative_cosine_similarity_backward(
        grad.data_ptr(), p.data_ptr(), z.data_ptr(), TYPES[p.dtype], *p.shape, dp.data_ptr(), dz.data_ptr()
    )
    return dp, dz
