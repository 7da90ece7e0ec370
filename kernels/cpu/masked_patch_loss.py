"""The masked autoencoder's loss on the CPU: each masked patch of image and prediction is read once a direction."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.images import TYPES, described
from sslfast.kernels.cpu.memory import empty


def forward(
    pred: Tensor,
    images: Tensor,
    mask: Tensor,
    patch_size: int,
    norm_pix: bool,
    scale: list[float],
    offset: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pred, mask = pred.contiguous(), mask.contiguous()
    loss, count = (empty(dtype=torch.float32) for _ in range(2))
    mean, rstd = (empty(*(mask.shape if norm_pix else (0, 0)), dtype=torch.float32) for _ in range(2))
    _C.masked_patch_loss(
        pred.data_ptr(),
        TYPES[pred.dtype],
        mask.data_ptr(),
        described(images, patch_size, scale, offset),
        mean.data_ptr(),
        rstd.data_ptr(),
        loss.data_ptr(),
        count.data_ptr(),
    )
    return loss, mean, rstd, count


def backward(
    grad: Tensor,
    pred: Tensor,
    images: Tensor,
    mask: Tensor,
    mean: Tensor,
    rstd: Tensor,
    count: Tensor,
    patch_size: int,
    norm_pix: bool,
    scale: list[float],
    offset: list[float],
) -> Tensor:
    pred, mask = pred.contiguous(), mask.contiguous()
    dpred = empty(*pred.shape, dtype=pred.dtype)
    factor = 2 * float(grad) / (pred.shape[2] * max(1, int(count)))  # without masked patches nothing is multiplied
    _C.masked_patch_loss_backward(
        pred.data_ptr(),
        TYPES[pred.dtype],
        mask.data_ptr(),
        described(images, patch_size, scale, offset),
        mean.data_ptr(),
        rstd.data_ptr(),
        factor,
        dpred.data_ptr(),
    )
    return dpred
