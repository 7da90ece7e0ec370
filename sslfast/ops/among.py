"""Rows among themselves and, with a group, among the rows of all ranks: what losses with labels need of all pairs."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from sslfast.kernels.classes import class_sums
from sslfast.ops import distributed, negatives


def first_row(rows: int, group: str | None) -> int:
    """The number, among those of all ranks, of this rank's first row."""
    return 0 if group is None else rows * dist.get_rank(distributed.group_named(group))


def ordered_labels(labels: Tensor, group: str | None) -> Tensor:
    """The labels of all ranks in rising order."""
    return (labels if group is None else _labels_of_all(labels, group)).sort().values


def forward(
    unit: Tensor,
    ids: Tensor,
    places: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    with_cosines: bool,
    group: str | None,
    gather: str,
    with_rank: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of every row, over all others: shift, Σ_j exp((c_ij − shift_i)/τ) but of pairs of one id, and, with the places of
    classes, Σ_p c_ip over the pairs of one place; the cosines that are kept for the backward pass; how many of these
    others are closer than the row R / 2 apart, (R,), or (0,) if not wanted.

    ids, places: int32, comparable between ranks.
    """
    *sums, cosines, rank = negatives.among_forward(unit, ids, places, temperature, tau, with_cosines, with_rank)
    if group is not None:
        *sums, rank = _add_others(unit, ids, places, *sums, rank, temperature, tau, group, gather)
    return *sums, cosines, rank


def backward(
    unit: Tensor,
    ids: Tensor,
    places: Tensor | None,
    factor: Tensor,
    shift: Tensor,
    pull: Tensor | None,
    cosines: Tensor,
    temperature: float,
    tau: Tensor | None,
    group: str | None,
    gather: str,
) -> Tensor:
    """Σ_j (factor_i E_ij + factor_j E_ji) u_j over the pairs of `forward`, E its exponentials; less, with places,
    Σ_p (pull_i + pull_p) u_p over the pairs of one place."""
    du = negatives.among_backward(unit, ids, places, factor, shift, pull, cosines, temperature, tau)
    if group is not None:
        du = du + _weighted_others(unit, ids, places, factor, shift, pull, temperature, tau, group, gather)
    return du


def _from_others(unit, ids, places, shift, total, positive, rank, temperature, tau, group, gather):
    t, exact = temperature if tau is None else tau.double(), shift.dtype
    shift, total, positive = shift.double(), total.double(), positive.to(torch.float64, copy=True)
    ours = [unit, ids] if places is None else [unit, ids, places]
    partners = unit.roll(unit.shape[0] // 2, 0) if len(rank) else None
    rank = rank.clone()
    for block, their_ids, *their_places in distributed.other_ranks(ours, distributed.group_named(group), gather):
        *part, closer = negatives.forward(unit, block, False, temperature, tau, False, ids, their_ids, partners)
        part_shift, part_total = (x.double() for x in part[:2])
        rank += closer
        shift, total, *_ = distributed.joined(shift, total, part_shift, part_total, t)
        if their_places:
            positive += (unit * class_sums(places, block.to(exact), *their_places)).sum(dim=1)
    return shift.to(exact), total.to(exact), positive.to(exact), rank


def _weighted_from_others(unit, ids, places, factor, shift, pull, temperature, tau, group, gather):
    du = torch.zeros(unit.shape, dtype=factor.dtype, device=unit.device)
    ours = [unit, ids, factor, shift] + ([] if places is None else [places, pull])
    theirs = distributed.other_ranks(ours, distributed.group_named(group), gather)
    for block, their_ids, their_factor, their_shift, *positives in theirs:
        theirs_also = their_factor, their_shift, temperature, tau, ids, their_ids
        du += negatives.backward(unit, block, False, factor, shift, *theirs_also)
        if positives:
            their_places, their_pull = positives
            du -= pull[:, None] * class_sums(places, block.to(du.dtype), their_places)
            du -= class_sums(places, their_pull[:, None] * block.to(du.dtype), their_places)
    return du


_labels_of_all = distributed.define_exchange(
    "labels_of_all(Tensor labels, str group) -> Tensor",
    lambda labels, group: distributed.gather_all(labels, distributed.group_named(group)).flatten(),
    lambda labels, group: labels.new_empty(labels.shape[0] * distributed.group_named(group).size()),
)
_add_others = distributed.define_exchange(
    "among_add_others(Tensor unit, Tensor ids, Tensor? places, Tensor shift, Tensor total, Tensor positive,"
    " Tensor rank, float temperature, Tensor? tau, str group, str gather) -> (Tensor, Tensor, Tensor, Tensor)",
    _from_others,
    lambda unit, ids, places, *same, **_: tuple(map(torch.empty_like, same[:4])),
)
_weighted_others = distributed.define_exchange(
    "among_weighted_others(Tensor unit, Tensor ids, Tensor? places, Tensor factor, Tensor shift, Tensor? pull,"
    " float temperature, Tensor? tau, str group, str gather) -> Tensor",
    _weighted_from_others,
    lambda unit, ids, places, factor, *_: torch.empty_like(unit, dtype=factor.dtype),
)
