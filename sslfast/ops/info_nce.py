"""MoCo's contrastive loss against a queue or the batch, without the matrix of similarities."""

from __future__ import annotations

import functools
from typing import Literal, overload

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.classes import class_places
from sslfast.kernels.cpu import info_nce as cpu
from sslfast.ops import agreement, distributed
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import (
    Reduction,
    check_candidates,
    check_embeddings,
    check_flag,
    check_labels,
    check_queue,
    check_range,
    check_reduction,
    check_temperature,
)
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.layout import require
from sslfast.ops.registry import HAS_CPU_KERNELS, define_op, lazily


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
        temperature: a positive number that float32 can hold, or a 0-dim tensor on the same device, which may require
            grad; the value of a tensor is not checked, one that is not positive gives NaN.
        targets: (N,) integers in [0, M), the candidate that is each query's, in place of its own number; several
            queries may have the same. What is out of range raises on the CPU and gives NaN on CUDA. Not with a queue.
        ids: (M,) integers of any value: candidates of the same id as a query's own are no negatives of it, as texts
            that come twice. Not with a queue or a group.
        normalize: False takes rows as they are: dot products in place of cosines, of any size. Not with a group.
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
        agreement.check_ranks_agree(
            "info_nce", group, query, temperature=number if tau is None else tau, gather=gather, reduction=reduction,
            candidates=key.shape[0],
        )  # fmt: skip
    if queue is not None:
        queue = queue.to(query.dtype).contiguous()
    with_mean, with_cosines = may_be_differentiated(query, tau), may_be_differentiated(key)
    loss, rank = _info_nce(
        query, key, tau, queue, targets, ids, number, normalize, return_rank, with_mean, with_cosines, reduction,
        distributed.name_of(group), gather,
    )  # fmt: skip
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


def _value(
    query, key, tau, queue, targets, ids, temperature, normalize, with_rank, with_mean, with_cosines, reduction, group,
    gather,
):  # fmt: skip
    outputs = _forward(query, key, queue, temperature, tau, with_mean, with_cosines, targets, ids, normalize, with_rank)
    losses, shift, inverse_sum, mean, u, scale, cosines, rank = outputs
    if group is not None:
        n = losses.shape[0]
        positives = (u[n : 2 * n] if targets is None else u[n:][targets]) if with_rank else None
        losses, shift, inverse_sum, mean, rank = distributed.add_negatives(
            u[:n], u[n:], losses, shift, inverse_sum, mean, rank, positives, temperature, tau, group, gather
        )
    return reference.reduced(losses, reduction), rank, losses, shift, inverse_sum, mean, u, scale, cosines


def _gradient(
    wanted, grad, query, key, tau, queue, targets, ids, temperature, normalize, with_rank, with_mean, with_cosines,
    reduction, group, gather, rank, losses, shift, inverse_sum, mean, u, scale, cosines,
):  # fmt: skip
    n = losses.shape[0]
    grad = (grad / n if reduction == "mean" else grad).expand(n)
    if not with_mean:  # only the key is asked for
        mean = torch.zeros_like(u[:n], dtype=losses.dtype)
    dquery, dkey, dtau = _backward(
        grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, queue is None, wanted[1], targets,
        ids, normalize,
    )  # fmt: skip
    if group is not None and wanted[1]:
        q, k = u[:n], u[n:]
        own = [grad * inverse_sum, shift]
        du, _ = distributed.weighted_negatives(k, q, [], own, temperature, tau, group, gather)
        dkey += reference.project(du, k.to(du.dtype), scale[n:]).to(dkey.dtype)
    return dquery, dkey, None if tau is None else dtau.to(tau.dtype)


def _formula(
    query, key, tau, queue, targets, ids, temperature, normalize, with_rank, with_mean, with_cosines, reduction, group,
    gather,
):  # fmt: skip
    distributed.check_alone("info_nce", group)
    exact = torch.promote_types(query.dtype, torch.float32)
    query, key, queue = (None if x is None else x.to(exact) for x in (query, key, queue))
    temperature = temperature if tau is None else tau
    return reference.info_nce(
        query, key, queue, temperature, targets=targets, ids=ids, unit=normalize, reduction=reduction
    )


def _reference_forward(
    query, key, queue, temperature, tau, with_mean, with_cosines, targets=None, ids=None, normalize=True,
    with_rank=False,
):  # fmt: skip
    exact = torch.promote_types(query.dtype, torch.float32)
    queue = None if queue is None else queue.to(exact)
    temperature = temperature if tau is None else tau
    *outputs, u, scale, rank = reference.info_nce_forward(
        query.to(exact), key.to(exact), queue, temperature, with_mean, targets, ids, normalize, with_rank
    )
    return *outputs, u.to(query.dtype), scale, scale.new_empty(0, dtype=torch.float32), rank


def _reference_backward(
    grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, in_batch, with_key, targets=None,
    ids=None, normalize=True,
):  # fmt: skip
    temperature = temperature if tau is None else tau
    dq, dk, dtau = reference.info_nce_backward(
        grad, u.to(scale.dtype), scale, losses, shift, inverse_sum, mean, temperature, in_batch, with_key, targets, ids,
        normalize,
    )  # fmt: skip
    return dq.to(u.dtype), dk.to(u.dtype), dtau


def _fake_forward(
    query, key, queue, temperature, tau, with_mean, with_cosines, targets=None, ids=None, normalize=True,
    with_rank=False,
):  # fmt: skip
    (n, d), m = query.shape, key.shape[0]
    losses, shift, inverse_sum, mean, scale = (
        query.new_empty(shape, dtype=torch.promote_types(query.dtype, torch.float32))
        for shape in (n, n, n, (n if with_mean else 0, d), n + m)
    )
    kept = cpu.cosines(query, key, queue, with_cosines and HAS_CPU_KERNELS)
    cosines = query.new_empty(kept, dtype=torch.float32)
    rank = query.new_empty(n if with_rank else 0, dtype=torch.int64)
    return losses, shift, inverse_sum, mean, query.new_empty(n + m, d), scale, cosines, rank


def _fake_backward(
    grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, in_batch, with_key, *_
):  # fmt: skip
    n, d = mean.shape
    return u.new_empty(n, d), u.new_empty(u.shape[0] - n if with_key else 0, d), scale.new_empty(())


_triton_forward = lazily("sslfast.kernels.triton.info_nce", "forward")
_triton_backward = lazily("sslfast.kernels.triton.info_nce", "backward")


@functools.wraps(_triton_forward)
def _cuda_forward(query, key, queue, temperature, tau, with_mean, with_cosines, *choice):
    *outputs, rank = _triton_forward(query, key, queue, temperature, tau, with_mean, *choice)
    return *outputs, query.new_empty(0, dtype=torch.float32), rank


@functools.wraps(_triton_backward)
def _cuda_backward(grad, u, scale, losses, shift, inverse_sum, mean, cosines, *rest):
    return _triton_backward(grad, u, scale, losses, shift, inverse_sum, mean, *rest)


def _require_forward(query, key, queue, temperature, tau, with_mean, with_cosines, targets=None, *_):
    _require_candidates("info_nce_forward", len(query), len(key), queue is None, targets)


def _require_backward(
    grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, in_batch, with_key, targets=None,
    ids=None, *_,
):  # fmt: skip
    m = len(u) - len(grad)
    _require_candidates("info_nce_backward", len(grad), m, in_batch, targets)
    require("info_nce_backward", "ids", f"of {m} candidates", ids is None or len(ids) == m, ids)


def _require_candidates(op: str, n: int, m: int, in_batch: bool, targets: Tensor | None) -> None:
    """What is read of m keys is there."""
    if targets is not None:
        check_range("info_nce", "targets", targets, m)
    else:
        require(op, "key", f"{n} rows{' at least' * in_batch}", m >= n if in_batch else m == n, m)


# `cosines` are those that a CPU kernel keeps for the backward pass, as far as they fit its workspace.
_forward = define_op(
    "info_nce_forward(Tensor query, Tensor key, Tensor? queue, float temperature, Tensor? tau, bool with_mean,"
    " bool with_cosines, Tensor? targets=None, Tensor? ids=None, bool normalize=True, bool with_rank=False)"
    " -> (Tensor losses, Tensor shift, Tensor inverse_sum, Tensor mean, Tensor u, Tensor scale, Tensor cosines,"
    " Tensor rank)",
    fake=_fake_forward,
    reference=_reference_forward,
    cpu=cpu.forward,
    cuda=_cuda_forward,
    layout={"query": "N D: float", "key": "M D: query", "queue": "K D: query", "tau": ": float"}
    | {"targets": "N: int64", "ids": "M: int32"},
    requires=_require_forward,
)
_backward = define_op(
    "info_nce_backward(Tensor grad, Tensor u, Tensor scale, Tensor losses, Tensor shift, Tensor inverse_sum,"
    " Tensor mean, Tensor cosines, float temperature, Tensor? tau, bool in_batch, bool with_key,"
    " Tensor? targets=None, Tensor? ids=None, bool normalize=True) -> (Tensor dquery, Tensor dkey, Tensor dtau)",
    fake=_fake_backward,
    reference=_reference_backward,
    cpu=cpu.backward,
    cuda=_cuda_backward,
    layout={"u": "M D: float", "scale": "M: exact u", "mean": "N D: exact u", "cosines": "C: float32", "tau": ": float"}
    | {"targets": "N: int64", "ids": "K: int32"}
    | dict.fromkeys(("grad", "losses", "shift", "inverse_sum"), "N: exact u"),
    requires=_require_backward,
)
_info_nce = differentiable(
    "info_nce(Tensor query, Tensor key, Tensor? tau, Tensor? queue, Tensor? targets, Tensor? ids, float temperature,"
    " bool normalize, bool with_rank, bool with_mean, bool with_cosines, str reduction, str? group, str gather)"
    " -> (Tensor, Tensor)",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=3,
    borrowed=(3,),
    constants=1,
)
