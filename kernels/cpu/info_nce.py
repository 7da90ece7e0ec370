"""InfoNCE on the CPU. In units of N·K·D operations 4: the gradient to the queries is made of the weighted sum of
negatives, which the forward pass gathers with the sum of exponentials. Keys of the batch cost 4 more."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.cpu import negatives
from sslfast.kernels.cpu.contrastive import read_temperature, unit_rows
from sslfast.kernels.cpu.memory import empty


def forward(
    query: Tensor, key: Tensor, queue: Tensor | None, temperature: float, tau: Tensor | None, with_mean: bool
) -> tuple[Tensor, ...]:
    n = len(query)
    temperature, fixed = read_temperature(temperature, tau)
    u, unit, scale = unit_rows(query, key)
    q, k = unit.chunk(2)
    others = k if queue is None else queue
    shift, total, mean = negatives.sums(q, others, queue is None, temperature, fixed, with_mean)
    losses, inverse_sum = (empty(n, dtype=torch.float32) for _ in range(2))
    positive, before = (q * k).sum(dim=1), shift.clone()
    _C.contrastive_losses(
        n, 1 / temperature, positive.data_ptr(), shift.data_ptr(), total.data_ptr(),
        losses.data_ptr(), inverse_sum.data_ptr(),
    )  # fmt: skip
    if with_mean:
        mean *= (inverse_sum * torch.exp((before - shift) / temperature))[:, None]
    return losses, shift, inverse_sum, mean, u, scale


def backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    mean: Tensor,
    temperature: float,
    tau: Tensor | None,
    in_batch: bool,
    with_key: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n, d = mean.shape
    inverse_tau = 1 / read_temperature(temperature, tau)[0]
    q, k = u.float().chunk(2)
    pull = grad * torch.expm1(-losses)  # P − 1 of the positive, without cancellation

    def project(du: Tensor, x: Tensor, positive: Tensor, factor: Tensor) -> float:
        return _C.project_rows(
            du.data_ptr(), x.data_ptr(), positive.data_ptr(), factor.data_ptr(), pull.data_ptr(), n, d, inverse_tau
        )

    dq = mean * grad[:, None]
    dtau = -project(dq, q, k, scale[:n]) * inverse_tau**2
    dk = empty(n if with_key else 0, d, dtype=torch.float32).zero_()
    if with_key:
        if in_batch:
            factor = grad * inverse_sum
            dk = negatives.backward(u[n:], u[:n], True, None, None, factor, shift, temperature, tau)
        project(dk, k, q, scale[n:])
    return dq.to(u.dtype), dk.to(u.dtype), torch.tensor(dtau, dtype=torch.float32, device="cpu")
