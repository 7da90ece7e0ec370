"""NT-Xent on the CPU. In units of M²·D operations, of which the triangle of cosines takes 1: forward 1, backward 2 and,
where the cosines are not kept, 1 more. Of pairs across the views alone, half of all."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu import contrastive
from sslfast.kernels.cpu.contrastive import floats, kept, rows, value
from sslfast.kernels.cpu.memory import empty


def cosines(z1: Tensor, wanted: bool, across: bool = False) -> int:
    """Floats for the cosines that the forward pass keeps."""
    blocks = contrastive.blocks(z1.shape[0] if across else 2 * z1.shape[0])
    return contrastive.cosines(z1, blocks**2 if across else blocks * (blocks + 1) // 2, wanted)


def forward(
    z1: Tensor,
    z2: Tensor,
    temperature: float,
    tau: Tensor | None,
    with_cosines: bool,
    with_rank: bool = False,
    across: bool = False,
) -> tuple[Tensor, ...]:
    z1, z2 = z1.contiguous(), z2.contiguous()
    n, d = z1.shape
    losses = floats(2 * n)
    shift, inverse_sum, scale = (torch.empty_like(losses) for _ in range(3))
    u, room = empty(2 * n, d, dtype=z1.dtype), floats(cosines(z1, with_cosines, across))
    rank = empty(2 * n if with_rank else 0, dtype=torch.int64)
    _C.nt_xent_forward(
        rows(z1),
        rows(z2),
        n,
        across,
        value(temperature, tau),
        losses.data_ptr(),
        shift.data_ptr(),
        inverse_sum.data_ptr(),
        rows(u),
        scale.data_ptr(),
        rank.data_ptr() if with_rank else 0,
        kept(room),
    )
    return losses, shift, inverse_sum, u, scale, room, rank


def backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    cosines: Tensor,
    temperature: float,
    tau: Tensor | None,
    across: bool = False,
) -> tuple[Tensor, Tensor]:
    grad, dz = grad.contiguous(), empty(*u.shape, dtype=u.dtype)
    dtau = _C.nt_xent_backward(
        grad.data_ptr(),
        rows(u),
        scale.data_ptr(),
        losses.data_ptr(),
        shift.data_ptr(),
        inverse_sum.data_ptr(),
        kept(cosines),
        len(u) // 2,
        across,
        value(temperature, tau),
        rows(dz),
    )
    return dz, torch.tensor(dtau, dtype=torch.float32, device="cpu")
