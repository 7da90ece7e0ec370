"""Supervised contrastive learning: any number of views of any number of classes, without the matrix of similarities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslfast.kernels import reference, reference_sup_con
from sslfast.kernels.classes import class_counts, class_places, pair_ids
from sslfast.ops import agreement, among, distributed, unit_rows
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import Reduction, check_embeddings, check_labels, check_reduction, check_temperature
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.precision import precise


def sup_con(
    z: Tensor,
    labels: Tensor,
    temperature: float | Tensor = 0.1,
    *,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor:
    """SupCon of N labelled rows, from raw projections; rows are L2-normalised inside.

    The positives of a row are all other rows of its label. With s = cosine/temperature it equals, for every row i,

        others = torch.arange(N) != i
        log_p = torch.log_softmax(s[i, others], dim=0)
        loss_i = -log_p[labels[others] == labels[i]].mean()

    the paper's L_out, but never holds an (N, N) tensor. A row whose label no other row has is a negative of the others,
    has no loss (0 with reduction="none") and does not count in the mean; if there are such rows only, the mean is 0.
    Views of an image have its label: `labels.repeat(2)` for `torch.cat([z1, z2])`. With the number of the image as its
    label it is SimCLR's loss of any number of views. SupContrast's SupConLoss is this, times its temperature divided by
    its base_temperature.

    Args:
        z: projections (N, D), float32, bfloat16, float16, or float64 through the reference.
        labels: (N,) integers of any value, on the same device.
        temperature: a positive number, or a tensor of one element on the same device, which may require grad; the
            value of a tensor is not checked, one that is not positive gives NaN.
        reduction: "mean" over the rows that have a positive, "sum", or "none": (N,).
        group: process group whose rows are positives and negatives too, "world" for the default one; None for this
            process alone. The mean is over the rows of all ranks; see `nt_xent` for the contract.
        gather: "all" holds the rows of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (N,) with reduction="none". Differentiable with respect to z and
        temperature; beyond the first derivative by the formula, at its memory, and not with a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, is empty, or the temperature is
            not positive and finite; ranks disagree on any of these or on the op.
        RuntimeError: a rank of the group is gone.

    Source: Khosla et al. 2020, "Supervised Contrastive Learning", https://arxiv.org/abs/2004.11362, equation 2
    """
    check_embeddings("sup_con", z=z)
    labels = check_labels("sup_con", "labels", labels, z)
    number, tau = check_temperature("sup_con", temperature, z.device)
    check_reduction("sup_con", reduction)
    group = distributed.find_group("sup_con", group, gather)
    if group is not None and check_ranks:
        agreement.check_ranks_agree(
            "sup_con", group, z, temperature=number if tau is None else tau, gather=gather, reduction=reduction
        )
    with_cosines = may_be_differentiated(z, tau)
    return _sup_con(z, tau, labels, number, with_cosines, reduction, distributed.name_of(group), gather)


class _Saved(NamedTuple):
    """Of the N rows their softmaxes, P_ij = exp((u_i·u_j − shift_i)/τ)·inverse_sum_i."""

    unit: Tensor  # u, (N, D)
    scale: Tensor  # (N,), the factors that made them so
    shift: Tensor  # (N,)
    inverse_sum: Tensor  # (N,), 0 for a row without a positive
    pull: Tensor  # (N,), what each positive weighs in the gradient
    share: Tensor  # 0-dim, of a row in the mean
    positives: Tensor  # (N,), how many
    ids: Tensor  # (N,) int32, equal for the two rows of a class of two
    places: Tensor  # (N,) int32, equal for the rows of a class
    cosines: Tensor  # that a CPU kernel keeps


def _value(args):
    z, labels, tau, temperature, group = args.z, args.labels, args.tau, args.temperature, args.group
    exact = torch.promote_types(z.dtype, torch.float32)
    unit, scale = unit_rows.normalize(z)
    ordered = among.ordered_labels(labels, group)
    places = class_places(labels, ordered)
    members = class_counts(labels, ordered, places)
    count = members - 1
    # A positive that is alone joins the softmax at the end, so that a tiny loss is exact; several are summed with it.
    ids = pair_ids(places, members, among.first_row(labels.shape[0], group))
    sums = among.forward(unit, ids, places, temperature, tau, args.with_cosines, group, args.gather)
    shift, total, positive, cosines, _ = sums

    t = temperature if tau is None else precise(tau)
    shift, total = precise(shift), precise(total)
    positive = precise(positive) / count  # the mean of the cosines
    losses, largest, inverse_sum = reference.with_positive(shift, total, positive, t)
    alone = count == 1
    losses = torch.where(alone, losses, torch.log(total) + (shift - positive) / t)
    losses = torch.where(count > 0, losses, 0).to(exact)
    shift = torch.where(alone, largest, shift).to(exact)
    inverse_sum = torch.where(count > 0, torch.where(alone, inverse_sum, 1 / total), 0).to(exact)
    pull = torch.where(alone, -torch.expm1(-losses), torch.where(count > 0, 1 / count.to(exact), 0))
    if args.reduction == "mean":  # such that the mean of the ranks' results is the mean over their rows
        if group is not None:
            members = class_counts(ordered, ordered, class_places(ordered, ordered))
        valid = (members > 1).sum().clamp_min(1)
        share = (ordered.shape[0] // labels.shape[0]) / valid.to(exact)
        result = losses.sum() * share
    else:
        result, share = reference.reduced(losses, args.reduction), losses.new_ones(())
    return result, _Saved(unit, scale, shift, inverse_sum, pull, share, count, ids, places, cosines)


def _gradient(wanted, grad, args, saved):
    """dL/du_i = (Σ_j (P_ij g_i + P_ji g_j) u_j − Σ_p (pull_i + pull_p) u_p)/τ over all others j and positives p."""
    tau, temperature, unit, count = args.tau, args.temperature, saved.unit, saved.positives
    grad = (grad * saved.share).expand(unit.shape[0])
    pull = grad * saved.pull
    # What a row is pulled by in all is what it is pushed by: where 1/count is rounded, so are both.
    factor = torch.where(count == 1, grad, precise(pull) * count) * saved.inverse_sum
    factor, options = factor.to(pull.dtype), (temperature, tau, args.group, args.gather)
    du = among.backward(unit, saved.ids, saved.places, factor, saved.shift, pull, saved.cosines, *options)
    dz, along = unit_rows.project(du, unit, saved.scale, *unit_rows.over(temperature, tau))
    return dz, unit_rows.to_temperature(along, tau)


def _formula(args):
    distributed.check_alone("sup_con", args.group)
    z = args.z.to(torch.promote_types(args.z.dtype, torch.float32))
    temperature = args.temperature if args.tau is None else args.tau
    return reference_sup_con.sup_con(z, args.labels, temperature, reduction=args.reduction)


_sup_con = differentiable(
    "sup_con(Tensor z, Tensor? tau, Tensor labels, float temperature, bool with_cosines, str reduction, str? group,"
    " str gather) -> Tensor",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=2,
    saved=_Saved,
)
