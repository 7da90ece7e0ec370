"""The mathematics of the losses of images and their texts in plain PyTorch, as `reference.py` has it of the others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslfast.kernels.reference import closer, normalize, omitted_pairs, project, reduced

# --- clip_loss: CLIP's loss (Radford et al. 2021, https://arxiv.org/abs/2103.00020, figure 3) ---


def clip_loss(image: Tensor, text: Tensor, temperature: float | Tensor = 0.07, *, reduction: str = "mean") -> Tensor:
    """Cross entropy of every image over all texts, and of every text over all images; logits = cosine/τ."""
    losses, *_ = clip_loss_forward(image, text, temperature)
    return reduced(losses, reduction)


def clip_loss_forward(
    image: Tensor, text: Tensor, temperature: float | Tensor, with_rank: bool = False
) -> tuple[Tensor, ...]:
    """Losses of images, then texts (2N,); shift, inverse_sum (2N,), P_ij = exp((u_i·u_j − shift_i)/τ)·inverse_sum_i for
    j of the other kind; u (2N, D); scale; how many of the other kind are closer than the own, (2N,), or (0,) if not
    wanted."""
    u, scale = normalize(torch.cat([image, text]))
    v, w = u.chunk(2)
    logits = v @ w.T / temperature
    own = torch.arange(len(v), device=u.device)
    losses = torch.cat([F.cross_entropy(s, own, reduction="none") for s in (logits, logits.T)])
    with torch.no_grad():
        s = torch.cat([logits, logits.T])
        largest = s.amax(dim=1)
        shift, inverse_sum = largest * temperature, 1 / torch.exp(s - largest[:, None]).sum(dim=1)
        rank = own.new_empty(0)
        if with_rank:
            omitted = omitted_pairs(logits, True)
            rank = torch.cat([closer(v, w, w, omitted), closer(w, v, v, omitted)])
    return losses, shift, inverse_sum, u, scale, rank


def clip_loss_backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    temperature: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i: to the raw rows (2N, D) and to τ.

    With the images v and the texts w, G_ij = g_i (P_ij − δ_ij) + g_j (P_ji − δ_ij) over images i and texts j:
    dL/dv = G·w/τ, dL/dw = Gᵀ·v/τ, and since each sees every pair, dL/dτ = −Σ_i u_i·(dL/du)_i / 2τ.
    """
    v, w = u.chunk(2)
    (of_images, of_texts), (image_shift, text_shift) = (grad * inverse_sum).chunk(2), shift.chunk(2)
    cosine = v @ w.T
    g = torch.exp((cosine - image_shift[:, None]) / temperature) * of_images[:, None]
    g = g + torch.exp((cosine - text_shift) / temperature) * of_texts
    pull_images, pull_texts = (grad * torch.expm1(-losses)).chunk(2)  # P − 1 of the positive, without cancellation
    g = g.diagonal_scatter(pull_images + pull_texts)
    du = torch.cat([g @ w, g.T @ v]) / temperature
    return project(du, u, scale), -(du * u).sum() / (2 * temperature)


# --- siglip_loss: SigLIP's sigmoid loss (Zhai et al. 2023, https://arxiv.org/abs/2303.15343, section 3.2) ---


def siglip_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: float | Tensor,
    logit_bias: float | Tensor,
    *,
    unit: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """loss_i = Σ_j log(1 + exp(−y_ij·(scale·cosine_ij + bias))), y = 1 for the own text of an image, −1 for others;
    without `unit`, of rows as they are."""
    v, w = (normalize(x)[0] if unit else x for x in (image, text))
    losses, *_ = siglip_sums(v, w, None, True, logit_scale, logit_bias)
    return reduced(losses, reduction)


def siglip_sums(
    v: Tensor, w: Tensor, factor: Tensor | None, own: bool, logit_scale: float | Tensor, logit_bias: float | Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of z_ij = −y_ij·(scale·v_i·w_j + bias): the losses Σ_j log(1 + exp z_ij) (N,), and with W_ij = −y_ij·σ(z_ij),
    times factor_i if given, Σ_j W_ij (N,), Σ_j W_ij w_j (N, D) and Σ_i W_ij v_i (N, D).

    W is the derivative to the logits. Without `own`, y is −1 also for i = j.
    """
    y = torch.full((len(v), len(w)), -1, dtype=v.dtype, device=v.device)
    if own:
        y = y.fill_diagonal_(1)
    z = -y * (logit_scale * (v @ w.T) + logit_bias)
    losses = -F.logsigmoid(-z).sum(dim=1)
    weights = -y * torch.sigmoid(z)
    if factor is not None:
        weights = weights * factor[:, None]
    return losses, weights.sum(dim=1), weights @ w, weights.T @ v
