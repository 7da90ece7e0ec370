"""Rows to unit length, the cosines of an image's views, and gradients back to raw rows, on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu.contrastive import address, contiguous, floats, rows, value
from sslfast.kernels.cpu.memory import empty


def normalize(first: Tensor, second: Tensor | None = None) -> tuple[Tensor, Tensor]:
    first, second = contiguous(first, first[:0] if second is None else second)
    count = len(first) + len(second)
    u, scale = empty(count, first.shape[1], dtype=first.dtype), floats(count)
    _C.normalize_rows(rows(first), len(first), rows(second), len(second), rows(u), scale.data_ptr())
    return u, scale


def view_cosines(u: Tensor, views: int) -> Tensor:
    u = u.contiguous()
    cosines = floats(views - 1, views, len(u) // views)
    _C.view_cosines(rows(u), views, len(u), cosines.data_ptr())
    return cosines


def project(
    du: Tensor, u: Tensor, scale: Tensor, multiplier: float, by: Tensor | None = None, pull: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    du, u, scale, pull = contiguous(du, u, scale, pull)
    dz, views = empty(*u.shape, dtype=u.dtype), 1 if pull is None else pull.shape[1]
    if by is not None:
        multiplier *= value(0, by)
    along = _C.project_rows(rows(du), rows(u), scale.data_ptr(), len(u), multiplier, views, address(pull), rows(dz))
    return dz, torch.tensor(along, dtype=torch.float32, device="cpu")
