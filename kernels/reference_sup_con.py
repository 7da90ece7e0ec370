"""Supervised contrastive learning in plain PyTorch: oracle, specification, and the path for float64.

Khosla et al. 2020, https://arxiv.org/abs/2004.11362, equation 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.kernels.reference import normalize, reduced


def sup_con(z: Tensor, labels: Tensor, temperature: float | Tensor = 0.1, *, reduction: str = "mean") -> Tensor:
    """loss_i = −Σ_{p∈P(i)} s(i, p)/|P(i)| + log Σ_{j≠i} exp s(i, j), P(i) the other rows of i's label; 0 if none."""
    u, _ = normalize(z)
    itself = torch.eye(len(u), dtype=torch.bool, device=u.device)
    log_p = torch.log_softmax((u @ u.T / temperature).masked_fill(itself, float("-inf")), dim=1)
    positive = (labels[:, None] == labels) & ~itself
    count = positive.sum(dim=1)
    losses = -torch.where(positive, log_p, 0).sum(dim=1) / count.clamp_min(1)
    losses = torch.where(count > 0, losses, 0)
    return losses.sum() / (count > 0).sum().clamp_min(1) if reduction == "mean" else reduced(losses, reduction)
