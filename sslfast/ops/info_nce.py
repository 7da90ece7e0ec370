"""MoCo's contrastive loss against a queue or the batch, without the matrix of similarities."""

from __future__ import annotations

from typing import Literal, NamedTuple, overload

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.classes import class_places
from sslfast.ops import agreement, distributed, info_nce_passes
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import (
    Reduction,
    check_candidates,
    check_embeddings,
    check_flag,
    check_labels,
    check_queue,
    check_reduction,
    check_temperature,
)
from sslfast.ops.distributed import Gather, Group


@overload
def info_nce(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None = ...,
    temperature: float | Tensor = ...,
    *,
    targets: Tensor | None = ...,
    ids: Tensor | None = ...,
    normalize: bool = ...,
    return_rank: Literal[False] = ...,
    reduction: Reduction = ...,
    group: Group = ...,
    gather: Gather = ...,
    check_ranks: bool = ...,
) -> Tensor: ...


@overload
def info_nce(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None = ...,
    temperature: float | Tensor = ...,
    *,
    targets: Tensor | None = ...,
    ids: Tensor | None = ...,
    normalize: bool = ...,
    return_rank: Literal[True],
    reduction: Reduction = ...,
    group: Group = ...,
    gather: Gather = ...,
    check_ranks: bool = ...,
) -> tuple[Tensor, Tensor]: ...


def info_nce(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    *,
    targets: Tensor | None = None,
    ids: Tensor | None = None,
    normalize: bool = True,
    return_rank: bool = False,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """InfoNCE of N queries and their keys, from raw projections; both are L2-normalised inside.

    With q and k the normalised rows and, against a queue of K negatives, it equals

        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / temperature
        F.cross_entropy(logits, torch.zeros(N, dtype=torch.long), reduction=reduction)

    and without one, the other candidates k being the negatives,

        F.cross_entropy(q @ k.T / temperature, targets, reduction=reduction)  # by default torch.arange(N)

    but never holds an (N, K) or (N, M) tensor. A zero row has cosine 0 to all others and gradient zero. Hard negatives
    are more candidates: `torch.cat([positives, hard_negatives])`, one or several a query, which all queries see.

    Args:
        query: projections (N, D), float32, bfloat16, float16, or float64 through the reference; autocast promotes mixed
            dtypes.
        key: candidates (M, D) of the same dtype and device; row i is that of query i, and the rows from N on belong to
            no query. With a queue M is N. MoCo's keys require no grad; they may, and so may all candidates.
        queue: negatives (K, D), rows of unit length, as `sslfast.KeyQueue` keeps them, on the same device; they get no
            gradient. Rows of another length are taken as they are; on CUDA those so long that an exponential overflows
            float32 give NaN, at temperatures of 1/64 and above. Another float dtype is converted, in a copy. None: the
            other candidates.
        temperature: a positive number that float32 can hold, or a tensor of one element on the same device, which may
            require grad; the value of a tensor is not checked, one that is not positive gives NaN.
        targets: (N,) integers in [0, M), the candidate that is each query's, in place of its own number; several
            queries may have the same. What is out of range raises on the CPU and gives NaN on CUDA. Not with a queue.
        ids: (M,) integers of any value: candidates of the same id as a query's own are no negatives of it, as texts
            that come twice. Not with a queue or a group.
        normalize: False takes rows as they are: dot products in place of cosines. Rows longer than 2^50, about 1e15,
            give NaN: their products over a temperature may overflow float32. Not with a group.
        return_rank: return also how many negatives are closer than the positive, int64 (N,): 0 is a hit at the first
            place, below 5 one among the first five, so that `(rank == 0).float().mean()` is the contrastive accuracy;
            counted in the same pass, with a group among the candidates of all ranks. On the CPU equal candidates are
            not closer; on CUDA they may seem so by rounding. Nothing is closer than NaN.
        reduction: "mean" over the N queries, "sum", or "none": (N,).
        group: without a queue, the process group whose candidates are negatives too, "world" for the default one; None
            for this process alone. See `nt_xent` for the contract. Not with a queue, which holds the keys of all
            already.
        gather: "all" holds the candidates of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (N,) with reduction="none"; with return_rank (loss, rank).
        Differentiable with respect to query, key and temperature; beyond the first derivative by the formula, at its
        memory, and not with a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype, device or range, is empty, the temperature
            is not positive and finite in float32, the queue requires grad, or arguments do not go together; ranks
            disagree on any of these or on the op.

    Source: He et al. 2020, "Momentum Contrast", https://arxiv.org/abs/1911.05722, equation 1
    """
    if queue is None:
        query, key = check_candidates("info_nce", query, key, least=None if targets is None else 1)
    else:
        query, key = check_embeddings("info_nce", query=query, key=key)
    check_queue("info_nce", queue, query)
    number, tau = check_temperature("info_nce", temperature, query.device)
    check_reduction("info_nce", reduction)
    check_flag("info_nce", "normalize", normalize)
    check_flag("info_nce", "return_rank", return_rank)
    group = distributed.find_group("info_nce", group, gather)
    _check_together(queue, group, targets=targets, ids=ids, normalize=normalize)
    if targets is not None:
        targets = check_labels("info_nce", "targets", targets, query)
    if ids is not None:
        ids = check_labels("info_nce", "ids", ids, key)
        ids = class_places(ids, ids.sort().values)
    if group is not None and check_ranks:
        numbers = {"temperature": number if tau is None else tau, "candidates": key.shape[0]}
        agreement.check_ranks_agree("info_nce", group, query, gather=gather, reduction=reduction, **numbers)
    if queue is not None:
        queue = queue.to(query.dtype).contiguous()
    choice = targets, ids, number, normalize, return_rank
    with_mean, with_cosines = may_be_differentiated(query, tau), may_be_differentiated(key)
    ranks = distributed.name_of(group), gather
    loss, rank = _info_nce(query, key, tau, queue, *choice, with_mean, with_cosines, reduction, *ranks)
    return (loss, rank) if return_rank else loss


def _check_together(queue, group, *, targets, ids, normalize):
    if queue is not None:
        for name, given, why in (
            ("group", group, "which already holds the keys of every rank"),
            ("targets", targets, "where the key of a query is that of its number"),
            ("ids", ids, "whose rows have none"),
        ):
            if given is not None:
                raise ValueError(f"info_nce: {name} must be None with a queue, {why}")
    if group is not None:
        for name, given in (("ids", ids is not None), ("normalize=False", not normalize)):
            if given:
                raise ValueError(f"info_nce: group must be None with {name}, which is served in one process")


class _Saved(NamedTuple):
    """Of N queries q and their M candidates k, the rows of u: P_ij = exp((q_i·n_j − shift_i)/τ)·inverse_sum_i over the
    negatives n, other candidates or the queue."""

    u: Tensor  # (N + M, D), q and k, of unit length if they are normalised
    scale: Tensor  # (N + M,), the factors that made them so
    losses: Tensor  # (N,)
    shift: Tensor  # (N,)
    inverse_sum: Tensor  # (N,)
    mean: Tensor  # (N, D), Σ_j P_ij n_j; (0, D) if no gradient to the queries was asked for
    cosines: Tensor  # that a CPU kernel keeps


def _value(args):
    tau, temperature, targets, group = args.tau, args.temperature, args.targets, args.group
    losses, shift, inverse_sum, mean, u, scale, cosines, rank = info_nce_passes.forward(
        args.query,
        args.key,
        args.queue,
        temperature,
        tau,
        args.with_mean,
        args.with_cosines,
        targets,
        args.ids,
        args.normalize,
        args.with_rank,
    )
    if group is not None:
        n = losses.shape[0]
        positives = (u[n : 2 * n] if targets is None else u[n:][targets]) if args.with_rank else None
        losses, shift, inverse_sum, mean, rank = distributed.add_negatives(
            u[:n], u[n:], losses, shift, inverse_sum, mean, rank, positives, temperature, tau, group, args.gather
        )
    saved = _Saved(u, scale, losses, shift, inverse_sum, mean, cosines)
    return reference.reduced(losses, args.reduction), rank, saved


def _gradient(wanted, grad, args, saved):
    tau, temperature, u, scale, n = args.tau, args.temperature, saved.u, saved.scale, saved.losses.shape[0]
    grad = (grad / n if args.reduction == "mean" else grad).expand(n)
    if not args.with_mean:  # only the key is asked for
        saved = saved._replace(mean=torch.zeros_like(u[:n], dtype=saved.losses.dtype))
    choice = args.targets, args.ids, args.normalize
    dquery, dkey, dtau = info_nce_passes.backward(
        grad, *saved, temperature, tau, args.queue is None, wanted[1], *choice
    )
    if args.group is not None and wanted[1]:
        q, k = u[:n], u[n:]
        own = [grad * saved.inverse_sum, saved.shift]
        du, _ = distributed.weighted_negatives(k, q, [], own, temperature, tau, args.group, args.gather)
        dkey += reference.project(du, k.to(du.dtype), scale[n:]).to(dkey.dtype)
    return dquery, dkey, None if tau is None else dtau.to(tau.dtype)


def _formula(args):
    distributed.check_alone("info_nce", args.group)
    exact = torch.promote_types(args.query.dtype, torch.float32)
    query, key, queue = args.query.to(exact), args.key.to(exact), None if args.queue is None else args.queue.to(exact)
    temperature = args.temperature if args.tau is None else args.tau
    choice = {"targets": args.targets, "ids": args.ids, "unit": args.normalize}
    return reference.info_nce(query, key, queue, temperature, **choice, reduction=args.reduction)


_info_nce = differentiable(
    "info_nce(Tensor query, Tensor key, Tensor? tau, Tensor? queue, Tensor? targets, Tensor? ids, float temperature,"
    " bool normalize, bool with_rank, bool with_mean, bool with_cosines, str reduction, str? group, str gather)"
    " -> (Tensor, Tensor)",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=3,
    saved=_Saved,
    borrowed=("queue",),
    constants=1,
)
