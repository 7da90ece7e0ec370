"""InfoNCE's two passes: forward the softmax of every query over its negatives, backward the gradients to raw rows."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.cpu import info_nce as cpu
from sslfast.ops.checks import check_range
from sslfast.ops.layout import require
from sslfast.ops.registry import HAS_CPU_KERNELS, define_op, lazily


def _reference_forward(query, key, queue, temperature, tau, with_mean, with_cosines, *choice):
    exact = torch.promote_types(query.dtype, torch.float32)
    queue = None if queue is None else queue.to(exact)
    temperature = temperature if tau is None else tau
    *outputs, u, scale, rank = reference.info_nce_forward(
        query.to(exact), key.to(exact), queue, temperature, with_mean, *choice
    )
    return *outputs, u.to(query.dtype), scale, scale.new_empty(0, dtype=torch.float32), rank


def _reference_backward(grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, *choice):
    temperature = temperature if tau is None else tau
    dq, dk, dtau = reference.info_nce_backward(
        grad, u.to(scale.dtype), scale, losses, shift, inverse_sum, mean, temperature, *choice
    )
    return dq.to(u.dtype), dk.to(u.dtype), dtau


def _fake_forward(
    query,
    key,
    queue,
    temperature,
    tau,
    with_mean,
    with_cosines,
    targets=None,
    ids=None,
    normalize=True,
    with_rank=False,
):
    (n, d), m = query.shape, key.shape[0]
    losses, shift, inverse_sum, mean, scale = (
        query.new_empty(shape, dtype=torch.promote_types(query.dtype, torch.float32))
        for shape in (n, n, n, (n if with_mean else 0, d), n + m)
    )
    kept = cpu.cosines(query, key, queue, with_cosines and HAS_CPU_KERNELS)
    cosines = query.new_empty(kept, dtype=torch.float32)
    rank = query.new_empty(n if with_rank else 0, dtype=torch.int64)
    return losses, shift, inverse_sum, mean, query.new_empty(n + m, d), scale, cosines, rank


def _fake_backward(grad, u, scale, losses, shift, inverse_sum, mean, cosines, temperature, tau, in_batch, with_key, *_):
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
    grad,
    u,
    scale,
    losses,
    shift,
    inverse_sum,
    mean,
    cosines,
    temperature,
    tau,
    in_batch,
    with_key,
    targets=None,
    ids=None,
    *_,
):
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
forward = define_op(
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
backward = define_op(
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
