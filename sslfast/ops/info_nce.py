"""MoCo's contrastive loss against a queue or the batch, without the matrix of similarities."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.cpu import info_nce as cpu
from sslfast.ops import agreement, distributed
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import Reduction, check_embeddings, check_queue, check_reduction, check_temperature, promoted
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.layout import require
from sslfast.ops.registry import HAS_CPU_KERNELS, define_op, lazily


def info_nce(
    query: Tensor,
    key: Tensor,
    queue: Tensor | None = None,
    temperature: float | Tensor = 0.07,
    *,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor:
    """InfoNCE of N queries and their keys, from raw projections; both are L2-normalised inside.

    With q and k the normalised rows and, against a queue of K negatives, it equals

        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / temperature
        F.cross_entropy(logits, torch.zeros(N, dtype=torch.long), reduction=reduction)

    and without one, the other keys of the batch being the negatives,

        F.cross_entropy(q @ k.T / temperature, torch.arange(N), reduction=reduction)

    but never holds an (N, K) or (N, N) tensor. A zero row has cosine 0 to all others and gradient zero.

    Args:
        query, key: projections (N, D), alike in dtype (float32, bfloat16, float16, or float64 through the reference;
            autocast promotes mixed ones) and device; row i of both comes from image i. MoCo's keys require no grad;
            they may.
        queue: negatives (K, D), rows of unit length, as `sslfast.KeyQueue` keeps them, on the same device; they get no
            gradient. Rows of another length are taken as they are; on CUDA those so long that an exponential overflows
            float32 give NaN, at temperatures of 1/64 and above. Another float dtype is converted, in a copy. None: the
            keys of the batch.
        temperature: a positive number that float32 can hold, or a 0-dim tensor on the same device, which may require
            grad; the value of a tensor is not checked, one that is not positive gives NaN.
        reduction: "mean" over the N queries, "sum", or "none": (N,).
        group: without a queue, the process group whose keys are negatives too, "world" for the default one; None for
            this process alone. See `nt_xent` for the contract. Not with a queue, which holds the keys of all already.
        gather: "all" holds the keys of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (N,) with reduction="none". Differentiable with respect
        to query, key and temperature; beyond the first derivative by the formula, at its memory, and not with a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, is empty, the temperature is not
            positive and finite in float32, the queue requires grad, or both queue and group are given; ranks disagree
            on any of these or on the op.

    Source: He et al. 2020, "Momentum Contrast", https://arxiv.org/abs/1911.05722, equation 1
    """
    query, key = promoted(query, key)
    check_embeddings("info_nce", query=query, key=key)
    check_queue("info_nce", queue, query)
    number, tau = check_temperature("info_nce", temperature, query.device)
    check_reduction("info_nce", reduction)
    group = distributed.find_group("info_nce", group, gather)
    if group is not None:
        if queue is not None:
            raise ValueError("info_nce: group must be None with a queue, which already holds the keys of every rank")
        if check_ranks:
            agreement.check_ranks_agree(
                "info_nce", group, query, temperature=number if tau is None else tau, gather=gather, reduction=reduction
            )
    if queue is not None:
        queue = queue.to(query.dtype).contiguous()
    with_mean, with_cosines = may_be_differentiated(query, tau), may_be_differentiated(key)
    return _info_nce(
        query, key, tau, queue, number, with_mean, with_cosines, reduction, distributed.name_of(group), gather
    )


def _value(query, key, tau, queue, temperature, with_mean, with_cosines, reduction, group, gather):
    outputs = _forward(query, key, queue, temperature, tau, with_mean, with_cosines)
    losses, shift, inverse_sum, mean, u, scale, cosines = outputs
    if group is not None:
        q, k = u.chunk(2)
        losses, shift, inverse_sum, mean = distributed.add_negatives(
            q, k, losses, shift, inverse_sum, mean, temperature, tau, group, gather
        )
    return reference.reduced(losses, reduction), losses, shift, inverse_sum, mean, u, scale, cosines


def _gradient(
    wanted, grad, query, key, tau, queue, temperature, with_mean, with_cosines, reduction, group, gather,
    losses, shift, inverse_sum, mean, u, scale, cosines,
):  # fmt: skip
    n = u.shape[0] // 2
    grad = (grad / n if reduction == "mean" else grad).expand(n)
    if not with_mean:  # only the key is asked for
        mean = torch.zeros_like(u[:n], dtype=losses.dtype)
    dquery, dkey, dtau = _backward(
        grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, queue is None, wanted[1]
    )
    if group is not None and wanted[1]:
        q, k = u.chunk(2)
        own = [grad * inverse_sum, shift]
        du, _ = distributed.weighted_negatives(k, q, [], own, temperature, tau, group, gather)
        dkey += reference.project(du, k.to(du.dtype), scale[n:]).to(dkey.dtype)
    return dquery, dkey, None if tau is None else dtau.to(tau.dtype)


def _formula(query, key, tau, queue, temperature, with_mean, with_cosines, reduction, group, gather):
    distributed.check_alone("info_nce", group)
    exact = torch.promote_types(query.dtype, torch.float32)
    query, key, queue = (None if x is None else x.to(exact) for x in (query, key, queue))
    return reference.info_nce(query, key, queue, temperature if tau is None else tau, reduction=reduction)


def _reference_forward(query, key, queue, temperature, tau, with_mean, with_cosines):
    exact = torch.promote_types(query.dtype, torch.float32)
    queue = None if queue is None else queue.to(exact)
    temperature = temperature if tau is None else tau
    *outputs, u, scale = reference.info_nce_forward(query.to(exact), key.to(exact), queue, temperature, with_mean)
    return *outputs, u.to(query.dtype), scale, scale.new_empty(0, dtype=torch.float32)


def _reference_backward(
    grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, in_batch, with_key
):
    temperature = temperature if tau is None else tau
    dq, dk, dtau = reference.info_nce_backward(
        grad, u.to(scale.dtype), scale, losses, shift, inverse_sum, mean, temperature, in_batch, with_key
    )
    return dq.to(u.dtype), dk.to(u.dtype), dtau


def _fake_forward(query, key, queue, temperature, tau, with_mean, with_cosines):
    n, d = query.shape
    losses, shift, inverse_sum, mean, scale = (
        query.new_empty(shape, dtype=torch.promote_types(query.dtype, torch.float32))
        for shape in (n, n, n, (n if with_mean else 0, d), 2 * n)
    )
    kept = cpu.cosines(query, queue, with_cosines and HAS_CPU_KERNELS)
    cosines = query.new_empty(kept, dtype=torch.float32)
    return losses, shift, inverse_sum, mean, query.new_empty(2 * n, d), scale, cosines


def _fake_backward(grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, in_batch, with_key):
    n, d = mean.shape
    return u.new_empty(n, d), u.new_empty(n if with_key else 0, d), scale.new_empty(())


_triton_forward = lazily("sslfast.kernels.triton.info_nce", "forward")
_triton_backward = lazily("sslfast.kernels.triton.info_nce", "backward")


@functools.wraps(_triton_forward)
def _cuda_forward(query, key, queue, temperature, tau, with_mean, with_cosines):
    outputs = _triton_forward(query, key, queue, temperature, tau, with_mean)
    return *outputs, query.new_empty(0, dtype=torch.float32)


@functools.wraps(_triton_backward)
def _cuda_backward(grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, in_batch, with_key):
    return _triton_backward(grad, u, scale, losses, shift, inverse_sum, mean, temperature, tau, in_batch, with_key)


# `cosines` are those that a CPU kernel keeps for the backward pass, as far as they fit its workspace.
_forward = define_op(
    "info_nce_forward(Tensor query, Tensor key, Tensor? queue, float temperature, Tensor? tau, bool with_mean,"
    " bool with_cosines) -> (Tensor losses, Tensor shift, Tensor inverse_sum, Tensor mean, Tensor u, Tensor scale,"
    " Tensor cosines)",
    fake=_fake_forward,
    reference=_reference_forward,
    cpu=cpu.forward,
    cuda=_cuda_forward,
    layout={"query": "N D: float", "key": "N D: query", "queue": "K D: query", "tau": ": float"},
)
_backward = define_op(
    "info_nce_backward(Tensor grad, Tensor u, Tensor scale, Tensor losses, Tensor shift, Tensor inverse_sum,"
    " Tensor mean, Tensor cosines, float temperature, Tensor? tau, bool in_batch, bool with_key)"
    " -> (Tensor dquery, Tensor dkey, Tensor dtau)",
    fake=_fake_backward,
    reference=_reference_backward,
    cpu=cpu.backward,
    cuda=_cuda_backward,
    layout={"u": "M D: float", "scale": "M: exact u", "mean": "N D: exact u", "cosines": "C: float32", "tau": ": float"}
    | dict.fromkeys(("grad", "losses", "shift", "inverse_sum"), "N: exact u"),
    requires=lambda grad, u, *_: require(
        "info_nce", "u", "the rows of queries and keys", len(u) == 2 * len(grad), len(u)
    ),
)
_info_nce = differentiable(
    "info_nce(Tensor query, Tensor key, Tensor? tau, Tensor? queue, float temperature, bool with_mean,"
    " bool with_cosines, str reduction, str? group, str gather) -> Tensor",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=3,
    borrowed=(3,),
)
