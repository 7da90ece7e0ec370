"""The mathematics of every op in plain PyTorch: oracle, specification, and the path for float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-12  # of F.normalize


# --- nt_xent: SimCLR's loss (Chen et al. 2020, https://arxiv.org/abs/2002.05709, equation 1) ---


def normalize(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of unit length and the factors that made them so; a zero row has factor zero, hence gradient zero."""
    largest = z.detach().abs().amax(dim=-1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1)  # scaled by it, no square overflows or vanishes
    norm = largest * torch.linalg.vector_norm(z / largest, dim=-1, keepdim=True)
    divisor = norm.clamp_min(EPS)
    return torch.where(norm == 0, 0, z / divisor), torch.where(norm == 0, 0, 1 / divisor).squeeze(-1)


def nt_xent(z1: Tensor, z2: Tensor, temperature: float | Tensor = 0.5, *, reduction: str = "mean") -> Tensor:
    """loss_i = −s(i, i') + log Σ_{j≠i} exp s(i, j) over the 2N views, s = cosine/τ."""
    losses, *_ = nt_xent_forward(z1, z2, temperature)
    return {"mean": torch.mean, "sum": torch.sum, "none": lambda x: x}[reduction](losses)


def nt_xent_forward(z1: Tensor, z2: Tensor, temperature: float | Tensor) -> tuple[Tensor, ...]:
    """Losses of the 2N views; shift and inverse_sum (2N,), P_ij = exp((u_i·u_j − shift_i)/τ)·inverse_sum_i; u; scale."""
    u, scale = normalize(torch.cat([z1, z2]))
    s = (u @ u.T / temperature).fill_diagonal_(float("-inf"))
    partner = torch.arange(len(u), device=u.device).roll(len(z1))
    losses = F.cross_entropy(s, partner, reduction="none")
    with torch.no_grad():
        largest = s.amax(dim=1)
        shift, inverse_sum = largest * temperature, 1 / torch.exp(s - largest[:, None]).sum(dim=1)
    return losses, shift, inverse_sum, u, scale


def nt_xent_backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i: to the raw views (2N, D) and to τ.

    G_ij = g_i (P_ij − Pos_ij) + g_j (P_ji − Pos_ij) is symmetric, Pos the positive pairs; dL/du = G·u/τ, and since
    Σ_ij G_ij s_ij counts every pair from both sides, dL/dτ = −Σ_i u_i·(dL/du)_i / 2τ.
    """
    m = len(u)
    views = torch.arange(m, device=u.device)
    p = (torch.exp((u @ u.T - shift[:, None]) / temperature) * inverse_sum[:, None]).fill_diagonal_(0)
    p[views, views.roll(m // 2)] = torch.expm1(-losses)  # P − 1 of the positive, without cancellation
    g = grad[:, None] * p
    du = (g + g.T) @ u / temperature
    radial = (du * u).sum(dim=1)
    # The factor of a row shorter than EPS is constant: nothing to project out.
    project = torch.where(scale < 1 / EPS, radial, 0)
    return (du - project[:, None] * u) * scale[:, None], -radial.sum() / (2 * temperature)
