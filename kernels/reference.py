"""The mathematics of every op in plain PyTorch: oracle, specification, and the path for float64."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-12  # of F.normalize
LONGEST = 2.0**50  # of raw rows: of longer ones a dot product over a temperature may overflow float32


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """Their mean, their sum, or with "none" the losses."""
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses.clone()


# --- nt_xent: SimCLR's loss (Chen et al. 2020, https://arxiv.org/abs/2002.05709, equation 1) ---


def normalize(z: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of unit length and the factors that made them so; a zero row has factor zero, hence gradient zero."""
    largest = z.detach().abs().amax(dim=-1, keepdim=True)
    far = torch.where(largest > 2.0**64, 2.0**-64, torch.ones_like(largest))  # of rows whose length may overflow
    z, largest = z * far, largest * far
    largest = torch.where(largest > 0, largest, 1)  # scaled by it, no square overflows or vanishes
    norm = largest * torch.linalg.vector_norm(z / largest, dim=-1, keepdim=True)
    divisor = norm.clamp_min(EPS)
    return torch.where(norm == 0, 0, z / divisor), torch.where(norm == 0, 0, far / divisor).squeeze(-1)


def nt_xent(z1: Tensor, z2: Tensor, temperature: float | Tensor = 0.5, *, reduction: str = "mean") -> Tensor:
    """loss_i = −s(i, i') + log Σ_{j≠i} exp s(i, j) over the 2N views, s = cosine/τ."""
    losses, *_ = nt_xent_forward(z1, z2, temperature)
    return reduced(losses, reduction)


def nt_xent_forward(z1: Tensor, z2: Tensor, temperature: float | Tensor, with_rank: bool = False) -> tuple[Tensor, ...]:
    """Losses (2N,); shift and inverse_sum (2N,), P_ij = exp((u_i·u_j − shift_i)/τ)·inverse_sum_i; u (2N, D); scale; how
    many views are closer than the partner, (2N,), or (0,) if not wanted."""
    u, scale = normalize(torch.cat([z1, z2]))
    s = (u @ u.T / temperature).fill_diagonal_(float("-inf"))
    partner = torch.arange(len(u), device=u.device).roll(len(z1))
    losses = F.cross_entropy(s, partner, reduction="none")
    with torch.no_grad():
        largest = s.amax(dim=1)
        shift, inverse_sum = largest * temperature, 1 / torch.exp(s - largest[:, None]).sum(dim=1)
        images = partner % len(z1)
        rank = closer(u, u[partner], u, omitted_pairs(s, False, images, images)) if with_rank else partner.new_empty(0)
    return losses, shift, inverse_sum, u, scale, rank


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
    return project(du, u, scale), -(du * u).sum() / (2 * temperature)


def nt_xent_views(
    z: Tensor,
    temperature: float | Tensor = 0.5,
    *,
    ids: Tensor | None = None,
    decoupled: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """loss_vi = Σ_{w≠v} (−s(vi, wi) + log(exp s(vi, wi) + Σ_j exp s(vi, j)))/(V − 1) of V views (V, N, D), j all views
    of other ids; decoupled (Yeh et al. 2022, https://arxiv.org/abs/2110.06848) without the positive's exponential."""
    views, n, _ = z.shape
    u = normalize(z)[0].flatten(0, 1)
    s = u @ u.T / temperature
    positive = s.view(views, n, views, n).diagonal(dim1=1, dim2=3)  # (V, V, N)
    ids = torch.arange(n, device=z.device) if ids is None else ids
    alike = (ids[:, None] == ids).repeat(views, views)
    negatives = torch.logsumexp(s.masked_fill(alike, float("-inf")), dim=1).view(views, 1, n)
    losses = negatives - positive
    losses = (
        losses.masked_fill(alike.all(dim=1).view(views, 1, n), 0)
        if decoupled
        else torch.logaddexp(losses, torch.zeros_like(losses))
    )
    itself = torch.eye(views, dtype=torch.bool, device=z.device)[..., None]
    return reduced(losses.masked_fill(itself, 0).sum(dim=1) / (views - 1), reduction)


# --- info_nce: MoCo's loss (He et al. 2020, https://arxiv.org/abs/1911.05722, equation 1) ---


def info_nce(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    *,
    targets: Tensor | None = None,
    ids: Tensor | None = None,
    unit: bool = True,
    reduction: str = "mean",
) -> Tensor:
    """loss_i = −s(q_i, k_i) + log(exp s(q_i, k_i) + Σ_j exp s(q_i, n_j)); negatives n: the queue, else other keys."""
    q, k = (rows_and_scale(x, unit)[0] for x in (query, key))
    if queue is not None:
        logits = torch.cat([(q * k).sum(dim=1, keepdim=True), q @ queue.T], dim=1)
        return F.cross_entropy(logits / temperature, torch.zeros_like(first_candidates(query)), reduction=reduction)
    targets = first_candidates(query) if targets is None else targets
    logits = q @ k.T / temperature
    if ids is not None:
        same = (ids[targets][:, None] == ids).scatter(1, targets[:, None], False)
        logits = logits.masked_fill(same, float("-inf"))
    return F.cross_entropy(logits, targets, reduction=reduction)


def first_candidates(query: Tensor) -> Tensor:
    """The targets (N,) of queries that have none: their own numbers."""
    return torch.arange(len(query), device=query.device)


def candidate_ids(key: Tensor, ids: Tensor | None) -> Tensor:
    """(M,), by default all different."""
    return torch.arange(len(key), device=key.device) if ids is None else ids


def rows_and_scale(z: Tensor, unit: bool) -> tuple[Tensor, Tensor]:
    """As `normalize` has them, or as they are, and NaN if longer than LONGEST."""
    if unit:
        return normalize(z)
    length = torch.linalg.vector_norm(z.detach(), dim=-1, keepdim=True)
    return z * torch.where(length <= LONGEST, 1.0, torch.nan), z.new_ones(len(z))


def info_nce_forward(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None,
    temperature: float | Tensor,
    with_mean: bool,
    targets: Tensor | None = None,
    ids: Tensor | None = None,
    unit: bool = True,
    with_rank: bool = False,
) -> tuple[Tensor, ...]:
    """Losses, shift, inverse_sum (N,), P_ij = exp((q_i·n_j − shift_i)/τ)·inverse_sum_i; mean; u, scale of q, k; rank.

    mean (N, D) = Σ_j P_ij n_j is what the gradient needs of the negatives, rank (N,) how many of them are closer than
    the positive; (0, D) and (0,) if not wanted.
    """
    (q, q_scale), (k, k_scale) = (rows_and_scale(x, unit) for x in (query, key))
    targets = first_candidates(query) if targets is None else targets
    numbers = candidate_ids(k, ids)
    negatives, *own = (k, numbers[targets], numbers) if queue is None else (queue, None, None)
    positives = k[targets]
    shift, total, weighted, rank = negatives_forward(
        q, negatives, False, temperature, with_mean, *own, positives if with_rank else None
    )
    losses, largest, inverse_sum = with_positive(shift, total, (q * positives).sum(dim=1), temperature)
    mean = weighted * (torch.exp((shift - largest) / temperature) * inverse_sum)[: len(weighted), None]
    return losses, largest, inverse_sum, mean, torch.cat([q, k]), torch.cat([q_scale, k_scale]), rank


def info_nce_backward(
    grad: Tensor,
    u: Tensor,
    scale: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    mean: Tensor,
    temperature: float | Tensor,
    in_batch: bool,
    with_key: bool,
    targets: Tensor | None = None,
    ids: Tensor | None = None,
    unit: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i: to the raw queries (N, D), to the raw keys ((0, D) if not wanted), and to τ.

    With k_i the target of query i: dL/dq_i = g_i (Σ_j P_ij n_j + (P_ii − 1) k_i)/τ, and dL/dτ = −Σ_i q_i·(dL/dq_i)/τ.
    In the batch a key is also the negative of other queries: Σ_j g_j P_ji q_j joins.
    """
    n = len(grad)
    q, k = u[:n], u[n:]
    targets = first_candidates(q) if targets is None else targets
    pull = (grad * torch.expm1(-losses))[:, None]  # P − 1 of the positive, without cancellation
    dq = (grad[:, None] * mean + pull * k[targets]) / temperature
    dtau = -(dq * q).sum() / temperature
    raw = project if unit else lambda du, u, scale: du
    if not with_key:
        return raw(dq, q, scale[:n]), q.new_empty(0, q.shape[1]), dtau
    dk = torch.zeros_like(k).index_put((targets,), pull * q, accumulate=True)
    if in_batch:
        numbers = candidate_ids(k, ids)
        factors = (None, None, grad * inverse_sum, shift)
        dk = dk + negatives_backward(k, q, False, *factors, temperature, numbers, numbers[targets])
    return raw(dq, q, scale[:n]), raw(dk / temperature, k, scale[n:]), dtau


def project(du: Tensor, u: Tensor, scale: Tensor) -> Tensor:
    """The gradient to raw rows from that to unit rows; the factor of a row shorter than EPS is constant."""
    radial = torch.where(scale < 1 / EPS, (du * u).sum(dim=1), 0)
    return (du - radial[:, None] * u) * scale[:, None]


def view_cosines(u: Tensor, views: int) -> Tensor:
    """Of the rows (V·N, D), V views of N images, the cosines with the views 1 to V − 1 before, (V − 1, V, N)."""
    x = u.unflatten(0, (views, -1))
    return torch.stack([(x * x.roll(distance, 0)).sum(dim=-1) for distance in range(1, views)])


def pulled(du: Tensor, u: Tensor, pull: Tensor) -> Tensor:
    """du (V·N, D) less the other views of each image, times what both pull with: pull (V − 1, V, N), of each view by
    those 1 to V − 1 before."""
    views = pull.shape[1]
    x, du = u.unflatten(0, (views, -1)), du.unflatten(0, (views, -1))
    for distance in range(1, views):
        both = pull[distance - 1] + pull[views - distance - 1].roll(distance, 0)
        du = du - both[..., None] * x.roll(distance, 0)
    return du.flatten(0, 1)


# --- negatives: the streaming softmax that the contrastive losses share; rows and columns have unit length ---


def with_positive(
    shift: Tensor, total: Tensor, positive: Tensor, temperature: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses log(1 + Σ_j E_ij/exp((positive_i − shift_i)/τ)), exact also where they are tiny, from the sums over the
    negatives; the shift and 1/sum of the softmax that has the positive too."""
    largest = torch.maximum(shift, positive)
    rest = total * torch.exp((shift - largest) / temperature)
    losses = torch.logaddexp(torch.log(rest) - (positive - largest) / temperature, torch.zeros_like(rest))
    return losses, largest, 1 / (rest + torch.exp((positive - largest) / temperature))


def negatives_forward(
    rows: Tensor,
    columns: Tensor,
    skip_diagonal: bool,
    temperature: float | Tensor,
    with_weighted: bool,
    row_ids: Tensor | None = None,
    column_ids: Tensor | None = None,
    positives: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """E_ij = exp((rows_i·columns_j − shift_i)/τ): shift (R,), Σ_j E_ij (R,) and Σ_j E_ij columns_j (R, D) or (0, D);
    how many of these columns are closer than the row of positives (R, D), (R,) or (0,).

    E is zero where i is j, if skip_diagonal, and where both have the same id, if they have ids.
    """
    cosine = rows @ columns.T
    omitted = omitted_pairs(cosine, skip_diagonal, row_ids, column_ids)
    cosine = cosine.masked_fill(omitted, float("-inf"))
    shift = cosine.amax(dim=1)
    shift = torch.where(shift == float("-inf"), -2, shift)  # finite without any negative
    e = torch.exp((cosine - shift[:, None]) / temperature)
    weighted = e @ columns if with_weighted else rows.new_empty(0, rows.shape[1])
    rank = first_candidates(rows[:0]) if positives is None else closer(rows, positives, columns, omitted)
    return shift, e.sum(dim=1), weighted, rank


def closer(rows: Tensor, positives: Tensor, columns: Tensor, omitted: Tensor) -> Tensor:
    """How many columns (C, D), but those omitted (R, C), are closer to a row than its positive, (R, D) each."""
    cosine = rows @ torch.cat([positives, columns]).T  # one product, so that of equal candidates none is closer
    return ((cosine[:, len(rows) :] > cosine.diagonal()[:, None]) & ~omitted).sum(dim=1)


def negatives_backward(
    rows: Tensor,
    columns: Tensor,
    skip_diagonal: bool,
    row_factor: Tensor | None,
    row_shift: Tensor | None,
    column_factor: Tensor | None,
    column_shift: Tensor | None,
    temperature: float | Tensor,
    row_ids: Tensor | None = None,
    column_ids: Tensor | None = None,
) -> Tensor:
    """Σ_j W_ij columns_j (R, D), W_ij = exp((c_ij − row_shift_i)/τ)·row_factor_i + the same with column_…_j."""
    cosine = rows @ columns.T
    w = torch.zeros_like(cosine)
    if row_factor is not None:
        w = w + torch.exp((cosine - row_shift[:, None]) / temperature) * row_factor[:, None]
    if column_factor is not None:
        w = w + torch.exp((cosine - column_shift) / temperature) * column_factor
    return w.masked_fill(omitted_pairs(w, skip_diagonal, row_ids, column_ids), 0) @ columns


def omitted_pairs(
    pairs: Tensor, diagonal: bool, row_ids: Tensor | None = None, column_ids: Tensor | None = None
) -> Tensor:
    """Which pairs of rows and columns are no negatives."""
    omitted = torch.zeros_like(pairs, dtype=torch.bool)
    if diagonal:
        omitted.fill_diagonal_(True)
    return omitted if row_ids is None else omitted | (row_ids[:, None] == column_ids)


# --- negative_cosine_similarity: SimSiam's loss (Chen & He 2021, https://arxiv.org/abs/2011.10566, equation 1) ---


def negative_cosine_similarity(p: Tensor, z: Tensor, *, reduction: str = "mean") -> Tensor:
    """loss_i = −cosine(p_i, z_i)."""
    losses = negative_cosine_similarity_forward(p, z)
    return reduced(losses, reduction)


def negative_cosine_similarity_forward(p: Tensor, z: Tensor) -> Tensor:
    return -(normalize(p)[0] * normalize(z)[0]).sum(dim=1)


def negative_cosine_similarity_backward(
    grad: Tensor, p: Tensor, z: Tensor, with_p: bool, with_z: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of Σ_i grad_i·loss_i to p and to z, (N, D), or (0, D) where not wanted; dL/dp̂ = −grad·ẑ."""
    (u, p_scale), (v, z_scale) = normalize(p), normalize(z)
    weight, nothing = -grad[:, None], p.new_empty(0, p.shape[1])
    dp = project(weight * v, u, p_scale) if with_p else nothing
    return dp, project(weight * u, v, z_scale) if with_z else nothing.clone()
