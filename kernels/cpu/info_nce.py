"""InfoNCE on the CPU. In units of N·K·D operations, of K negatives or candidates, 4: the gradient to the queries is
made of the weighted sum of negatives, which the forward pass gathers with that of exponentials. Candidates that get a
gradient cost 2 more and, where the cosines are not kept, 4."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu import contrastive
from sslfast.kernels.cpu.contrastive import address, contiguous, floats, kept, rows, value
from sslfast.kernels.cpu.memory import empty


def cosines(query: Tensor, key: Tensor, queue: Tensor | None, wanted: bool) -> int:
    """Floats for the cosines that the forward pass keeps; those with a queue are of no use to the backward pass."""
    tiles = contrastive.blocks(query.shape[0]) * contrastive.blocks(key.shape[0])
    return contrastive.cosines(query, tiles, wanted and queue is None)


def forward(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    with_mean: bool,
    with_cosines: bool,
    targets: Tensor | None = None,
    ids: Tensor | None = None,
    normalize: bool = True,
    with_rank: bool = False,
) -> tuple[Tensor, ...]:
    query, key, targets, ids = contiguous(query, key, targets, ids)
    (n, d), m = query.shape, len(key)
    losses = floats(n)
    shift, inverse_sum = torch.empty_like(losses), torch.empty_like(losses)
    mean, u, scale = floats(n if with_mean else 0, d), empty(n + m, d, dtype=query.dtype), floats(n + m)
    rank, room = empty(n if with_rank else 0, dtype=torch.int64), floats(cosines(query, key, queue, with_cosines))
    _C.info_nce_forward(
        rows(query),
        rows(key),
        _C.Choice(n, m, address(targets), address(ids)),
        normalize,
        None if queue is None else rows(queue),
        0 if queue is None else len(queue),
        value(temperature, tau),
        losses.data_ptr(),
        shift.data_ptr(),
        inverse_sum.data_ptr(),
        rows(mean) if with_mean else None,
        rows(u),
        scale.data_ptr(),
        rank.data_ptr() if with_rank else 0,
        kept(room),
    )
    return losses, shift, inverse_sum, mean, u, scale, room, rank


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
    targets: Tensor | None = None,
    ids: Tensor | None = None,
    normalize: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    n, d = mean.shape
    m = len(u) - n
    grad, targets, ids = contiguous(grad, targets, ids)
    dq, dk = empty(n, d, dtype=u.dtype), empty(m if with_key else 0, d, dtype=u.dtype)
    dtau = _C.info_nce_backward(
        grad.data_ptr(),
        rows(u),
        scale.data_ptr(),
        losses.data_ptr(),
        shift.data_ptr(),
        inverse_sum.data_ptr(),
        rows(mean),
        kept(cosines),
        _C.Choice(n, m, address(targets), address(ids)),
        normalize,
        value(temperature, tau),
        in_batch,
        rows(dq),
        rows(dk) if with_key else None,
    )
    return dq, dk, torch.tensor(dtau, dtype=torch.float32, device="cpu")
