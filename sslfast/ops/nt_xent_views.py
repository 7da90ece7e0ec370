"""NT-Xent of any number of views, decoupled or not, with images marked as alike; without the matrix of similarities."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.classes import class_places
from sslfast.ops import agreement, among, distributed, unit_rows
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import (
    Reduction,
    check_dense,
    check_embeddings,
    check_flag,
    check_labels,
    check_reduction,
    check_temperature,
)
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.precision import precise


def nt_xent_views(
    z: Tensor,
    temperature: float | Tensor = 0.5,
    *,
    ids: Tensor | None = None,
    decoupled: bool = False,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor:
    """NT-Xent of V views of N images, as multi-crop makes them, from raw projections; rows are L2-normalised inside.

    With s the (V, N, V, N) cosines/temperature, the loss of view v of image i is the mean over its other views w of

        negatives = s[v, i][:, ids != ids[i]].flatten()  # by default all views of other images
        F.cross_entropy(torch.cat([s[v, i, w, i, None], negatives]), torch.tensor(0))
        torch.logsumexp(negatives, dim=0) - s[v, i, w, i]  # if decoupled

    so that every pair of views of an image is compared with the views of other images, and with these alone; but no
    tensor of all pairs is ever held. Two views are `nt_xent`. A view without any negative has the loss 0. In `sup_con`,
    with `labels = torch.arange(N).repeat(V)`, the other views of the image are in the sum of exponentials too.

    Args:
        z: projections (V, N, D), V at least 2, float32, bfloat16, float16, or float64 through the reference. `z[:, i]`
            comes from image i.
        temperature: a positive number, or a tensor of one element on the same device, which may require grad; the
            value of a tensor is not checked, one that is not positive gives NaN.
        ids: (N,) integers of any value, on the same device: images of one id are no negatives of each other, as
            duplicates in the batch, or images known to show the same, should not be.
        decoupled: leave the positive out of the sum of exponentials, as decoupled contrastive learning does; small
            batches then lose less.
        reduction: "mean" over the V·N views, "sum", or "none": (V, N).
        group: process group whose views are negatives too, "world" for the default one; None for this process alone.
            ids are compared between all ranks. See `nt_xent` for the contract.
        gather: "all" holds the views of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (V, N) with reduction="none". Differentiable with respect to z
        and temperature; beyond the first derivative by the formula, at its memory, and not with a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, is empty, or the temperature is
            not positive and finite; ranks disagree on any of these or on the op.
        RuntimeError: a rank of the group is gone.

    Sources: Chen et al. 2020, "A Simple Framework for Contrastive Learning", https://arxiv.org/abs/2002.05709; Yeh et
    al. 2022, "Decoupled Contrastive Learning", https://arxiv.org/abs/2110.06848, equation 6
    """
    check_dense("nt_xent_views", "z", z, " (V, N, D)")
    if z.dim() != 3 or z.shape[0] < 2:
        raise ValueError(f"nt_xent_views: z must be (V, N, D) with at least two views V, got shape {tuple(z.shape)}")
    options = ids, decoupled, False, reduction, group, gather, check_ranks
    return cast(Tensor, views_loss("nt_xent_views", z, None, temperature, *options))


def views_loss(
    op: str,
    z: Tensor,
    second: Tensor | None,
    temperature: float | Tensor,
    ids: Tensor | None,
    decoupled: bool,
    return_rank: bool,
    reduction: Reduction,
    group: Group,
    gather: Gather,
    check_ranks: bool,
) -> Tensor | tuple[Tensor, Tensor]:
    """The same in the name of another op, whose losses these are: of z (V, N, D), or of two views (N, D) each; with
    return_rank (loss, rank) of two views."""
    if second is None:
        check_embeddings(op, z=z[0])
    ids = None if ids is None else check_labels(op, "ids", ids, z[0] if second is None else z)
    check_flag(op, "decoupled", decoupled)
    check_flag(op, "return_rank", return_rank)
    number, tau = check_temperature(op, temperature, z.device)
    check_reduction(op, reduction)
    group = distributed.find_group(op, group, gather)
    if group is not None and check_ranks:
        numbers = {"temperature": number if tau is None else tau, "decoupled": decoupled, "with_ids": ids is not None}
        agreement.check_ranks_agree(op, group, z, gather=gather, reduction=reduction, **numbers)
    with_cosines = may_be_differentiated(z, second, tau)
    name = distributed.name_of(group)
    choice = decoupled, return_rank, with_cosines, reduction
    loss, rank = _nt_xent_views(z, second, tau, ids, number, *choice, name, gather)
    return (loss, rank) if return_rank else loss


def _together(z: Tensor, second: Tensor | None) -> Tensor:
    return z if second is None else torch.stack([z, second])


class _Saved(NamedTuple):
    """Of the M = V·N views: E_ij = exp((u_i·u_j − shift_i)/τ) over the negatives j, and P of the positives."""

    unit: Tensor  # u, (M, D)
    scale: Tensor  # (M,), the factors that made them so
    shift: Tensor  # (M,)
    factor: Tensor  # (M,), the mean of pull over Σ_j E_ij
    pull: Tensor  # (V − 1, V, N), 1 − P of the view d + 1 places before, d the first index; 1 if decoupled
    places: Tensor  # (M,) int32, equal for views that are no negatives of each other
    cosines: Tensor  # that a CPU kernel keeps


def _value(args):
    ids, tau, temperature, group = args.ids, args.tau, args.temperature, args.group
    z, second = args.z, args.second
    exact = torch.promote_types(z.dtype, torch.float32)
    views, n = z.shape[:2] if second is None else (2, z.shape[0])
    unit, scale = unit_rows.normalize(z.flatten(0, 1) if second is None else z, second)
    if ids is None:
        places = among.first_row(n, group) + torch.arange(n, dtype=torch.int32, device=z.device)
    else:
        places = class_places(ids, among.ordered_labels(ids, group))
    places = places.repeat(views)
    options = temperature, tau, args.with_cosines, group, args.gather, args.with_rank
    shift, total, _, cosines, rank = among.forward(unit, places, None, *options)

    t = temperature if tau is None else precise(torch.where(tau > 0, tau, float("nan")))
    above, sums = precise(shift).view(views, n), precise(total).view(views, n)
    positive = precise(unit_rows.view_cosines(unit, views))
    if args.decoupled:
        losses = torch.where(sums == 0, 0, torch.log(sums) + (above - positive) / t)
        pull = torch.where(sums == 0, 0, torch.ones_like(losses))
    else:
        losses, *_ = reference.with_positive(above, sums, positive, t)
        pull = -torch.expm1(-losses)  # of the positive, 1 − P
    factor = torch.where(sums == 0, 0, pull.mean(dim=0) / sums).flatten()
    losses = losses.mean(dim=0).to(exact)
    losses = losses if args.second is None else losses.flatten()
    saved = _Saved(unit, scale, shift, factor.to(exact), pull.to(exact), places, cosines)
    return reference.reduced(losses, args.reduction), rank, saved


def _gradient(wanted, grad, args, saved):
    """dL/du_i = (Σ_j (P_ij g_i + P_ji g_j) u_j − Σ_p (pull_ip g_i + pull_pi g_p) u_p/(V − 1))/τ over all negatives j
    and positives p, Σ_j P_ij being the mean of pull_ip."""
    z, second, tau, temperature, unit = args.z, args.second, args.tau, args.temperature, saved.unit
    shape = z.shape if second is None else (2, *z.shape)
    views, n, _ = shape
    grad = grad / (views * n) if args.reduction == "mean" else grad
    grad = grad.reshape(views, n) if args.reduction == "none" else grad.expand(views, n)
    pull = grad / (views - 1) * saved.pull
    factor, options = grad.reshape(-1) * saved.factor, (temperature, tau, args.group, args.gather)
    du = among.backward(unit, saved.places, None, factor, saved.shift, None, saved.cosines, *options)
    dz, along = unit_rows.project(du, unit, saved.scale, *unit_rows.over(temperature, tau), pull)
    dz = dz.view(shape)
    return *((dz, None) if second is None else dz.unbind()), unit_rows.to_temperature(along, tau)


def _formula(args):
    distributed.check_alone("nt_xent_views", args.group)
    z, temperature = _together(args.z, args.second), args.temperature if args.tau is None else args.tau
    z, reduction = z.to(torch.promote_types(z.dtype, torch.float32)), args.reduction
    losses = reference.nt_xent_views(z, temperature, ids=args.ids, decoupled=args.decoupled, reduction=reduction)
    return losses.flatten() if args.second is not None and reduction == "none" else losses


_nt_xent_views = differentiable(
    "nt_xent_views(Tensor z, Tensor? second, Tensor? tau, Tensor? ids, float temperature, bool decoupled,"
    " bool with_rank, bool with_cosines, str reduction, str? group, str gather) -> (Tensor, Tensor)",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=3,
    saved=_Saved,
    constants=1,
)
