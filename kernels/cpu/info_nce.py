"""InfoNCE on the CPU. In units of N·K·D operations 4: the gradient to the queries is made of the weighted sum of
negatives, which the forward pass gathers with the sum of exponentials. Keys of the batch cost 2 more and, where the
cosines are not kept, 4."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu import contrastive
from sslfast.kernels.cpu.contrastive import floats, kept, rows, value
from sslfast.kernels.cpu.memory import empty


def cosines(query: Tensor, queue: Tensor | None, wanted: bool) -> int:
    """Floats for the cosines that the forward pass keeps; those with a queue are of no use to the backward pass."""
    return contrastive.cosines(query, contrastive.blocks(query.shape[0]) ** 2, wanted and queue is None)


def forward(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    with_mean: bool,
    with_cosines: bool,
) -> tuple[Tensor, ...]:
    query, key = query.contiguous(), key.contiguous()
    n, d = query.shape
    losses, shift, inverse_sum = (floats(n) for _ in range(3))
    mean, u, scale = floats(n if with_mean else 0, d), empty(2 * n, d, dtype=query.dtype), floats(2 * n)
    room = floats(cosines(query, queue, with_cosines))
    _C.info_nce_forward(
        rows(query),
        rows(key),
        n,
        None if queue is None else rows(queue),
        0 if queue is None else len(queue),
        value(temperature, tau),
        losses.data_ptr(),
        shift.data_ptr(),
        inverse_sum.data_ptr(),
        rows(mean) if with_mean else None,
        rows(u),
        scale.data_ptr(),
        kept(room),
    )
    return losses, shift, inverse_sum, mean, u, scale, room


def backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    mean: Tensor,
    cosines: Tensor,
    temperature: float,
    tau: Tensor | None,
    in_batch: bool,
    with_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n, d = mean.shape
    grad = grad.contiguous()
    dq, dk = empty(n, d, dtype=u.dtype), empty(n if with_key else 0, d, dtype=u.dtype)
    dtau = _C.info_nce_backward(
        grad.data_ptr(),
        rows(u),
        scale.data_ptr(),
        losses.data_ptr(),
        shift.data_ptr(),
        inverse_sum.data_ptr(),
        rows(mean),
        kept(cosines),
        n,
        value(temperature, tau),
        in_batch,
        rows(dq),
        rows(dk) if with_key else None,
    )
    return dq, dk, torch.tensor(dtau, dtype=torch.float32, device="cpu")
