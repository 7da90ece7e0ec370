"""What NT-Xent and CLIP's loss share: softmaxes over the cosines of N pairs, whose 2N rows all have a loss."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.ops import agreement, distributed
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import check_flag, check_reduction
from sslfast.ops.registry import HAS_CPU_KERNELS, define_op, lazily


class _Saved(NamedTuple):
    """Of the M = 2N rows their softmaxes, P_ij = exp((u_i·u_j − shift_i)/τ)·inverse_sum_i."""

    u: Tensor  # (M, D), of unit length
    scale: Tensor  # (M,), the factors that made them so
    losses: Tensor  # (M,)
    shift: Tensor  # (M,)
    inverse_sum: Tensor  # (M,)
    cosines: Tensor  # that a CPU kernel keeps, as far as they fit its workspace


def define_pair_loss(
    name: str,
    first: str,
    second: str,
    *,
    forward: Callable,
    backward: Callable,
    cpu: ModuleType,
    pairings: Callable[..., Iterable[tuple]],
) -> Callable[..., Tensor | tuple[Tensor, Tensor]]:
    """Register the ops of a loss of pairs and return what calls it, with arguments that have been checked but for
    reduction, return_rank and group: (first, second, temperature, tau, return_rank, reduction, group, gather,
    check_ranks); with return_rank that is (loss, rank of the 2N rows).

    Args:
        name: of the loss, and of its module among the Triton kernels.
        first, second: names of the rows of the pairs, (N, D) each.
        forward, backward: the reference's, which say what they return.
        cpu: the module of the CPU's kernels.
        pairings: (u, *vectors) of the unit rows u (2N, D), and of vectors with an element a row -> (rows, columns, the
            rows' vectors, the columns' vectors) for every part of the rows and the columns that are compared with it on
            all ranks; the parts hold all rows once, in their order.
    """

    def value(args):
        x, y, tau, temperature, *_ = args
        outputs = forward_op(x, y, temperature, tau, args.with_cosines, args.with_rank)
        losses, shift, inverse_sum, u, scale, cosines, rank = outputs
        if args.group is not None:
            no_mean, no_rank, ranked = u.new_empty(0, u.shape[1]), (rank, None), (rank, u.roll(x.shape[0], 0))
            parts, options = [], (temperature, tau, args.group, args.gather)
            for rows, columns, own, _ in pairings(u, losses, shift, inverse_sum, *(ranked if args.with_rank else ())):
                found = *own[:3], no_mean, *(own[3:] or no_rank)
                parts.append(distributed.add_negatives(rows, columns, *found, *options))
            losses, shift, inverse_sum, _, rank = map(torch.cat, zip(*parts))
        saved = _Saved(u, scale, losses, shift, inverse_sum, cosines)
        return reference.reduced(losses, args.reduction), rank, saved

    def gradient(wanted, grad, args, saved):
        u, temperature, tau, group = saved.u, args.temperature, args.tau, args.group
        grad = (grad / u.shape[0] if args.reduction == "mean" else grad).expand(u.shape[0])
        dz, dtau = backward_op(grad, *saved, temperature, tau)
        if group is not None:
            parts = [
                distributed.weighted_negatives(*met, temperature, tau, group, args.gather)
                for met in pairings(u, grad * saved.inverse_sum, saved.shift)
            ]
            du = torch.cat([du for du, _ in parts])
            dz += reference.project(du, u.to(du.dtype), saved.scale).to(dz.dtype)
            dtau = dtau + sum(along for _, along in parts) / 2  # a pair counts from both sides
        return *dz.chunk(2), None if tau is None else dtau.to(tau.dtype)

    def formula(args):
        x, y, tau, temperature, *_ = args
        distributed.check_alone(name, args.group)
        exact = torch.promote_types(x.dtype, torch.float32)
        losses, *_ = forward(x.to(exact), y.to(exact), temperature if tau is None else tau)
        return reference.reduced(losses, args.reduction)

    def reference_forward(x, y, temperature, tau, with_cosines, with_rank=False):
        exact = torch.promote_types(x.dtype, torch.float32)
        *outputs, u, scale, rank = forward(x.to(exact), y.to(exact), temperature if tau is None else tau, with_rank)
        return *outputs, u.to(x.dtype), scale, scale.new_empty(0, dtype=torch.float32), rank

    def reference_backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau):
        temperature = temperature if tau is None else tau
        dz, dtau = backward(grad, u.to(scale.dtype), scale, losses, shift, inverse_sum, temperature)
        return dz.to(u.dtype), dtau.to(scale.dtype)

    def fake_forward(x, y, temperature, tau, with_cosines, with_rank=False):
        n, d = x.shape
        losses, shift, inverse_sum, scale = (
            x.new_empty(2 * n, dtype=torch.promote_types(x.dtype, torch.float32)) for _ in range(4)
        )
        cosines = x.new_empty(cpu.cosines(x, with_cosines and HAS_CPU_KERNELS), dtype=torch.float32)
        rank = x.new_empty(2 * n if with_rank else 0, dtype=torch.int64)
        return losses, shift, inverse_sum, x.new_empty(2 * n, d), scale, cosines, rank

    def fake_backward(grad, u, scale, *_):
        return torch.empty_like(u), scale.new_empty(())

    triton_forward, triton_backward = (
        lazily(f"sslfast.kernels.triton.{name}", direction) for direction in ("forward", "backward")
    )

    @functools.wraps(triton_forward)
    def cuda_forward(x, y, temperature, tau, with_cosines, with_rank=False):
        *outputs, rank = triton_forward(x, y, temperature, tau, with_rank)
        return *outputs, x.new_empty(0, dtype=torch.float32), rank

    @functools.wraps(triton_backward)
    def cuda_backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau):
        return triton_backward(grad, u, scale, losses, shift, inverse_sum, temperature, tau)

    forward_op = define_op(
        f"{name}_forward(Tensor {first}, Tensor {second}, float temperature, Tensor? tau, bool with_cosines,"
        " bool with_rank=False)"
        " -> (Tensor losses, Tensor shift, Tensor inverse_sum, Tensor u, Tensor scale, Tensor cosines, Tensor rank)",
        fake=fake_forward,
        reference=reference_forward,
        cpu=cpu.forward,
        cuda=cuda_forward,
        layout={first: "N D: float", second: f"N D: {first}", "tau": ": float"},
    )
    backward_op = define_op(
        f"{name}_backward(Tensor grad, Tensor u, Tensor scale, Tensor losses, Tensor shift, Tensor inverse_sum,"
        " Tensor cosines, float temperature, Tensor? tau) -> (Tensor dz, Tensor dtau)",
        fake=fake_backward,
        reference=reference_backward,
        cpu=cpu.backward,
        cuda=cuda_backward,
        layout={"u": "M D: float", "cosines": "C: float32", "tau": ": float"}
        | dict.fromkeys(("grad", "scale", "losses", "shift", "inverse_sum"), "M: exact u"),
    )
    loss_op = differentiable(
        f"{name}(Tensor {first}, Tensor {second}, Tensor? tau, float temperature, bool with_rank, bool with_cosines,"
        " str reduction, str? group, str gather) -> (Tensor, Tensor)",
        value=value,
        gradient=gradient,
        formula=formula,
        leaves=3,
        saved=_Saved,
        constants=1,
    )

    def call(x, y, temperature, tau, return_rank, reduction, group, gather, check_ranks):
        check_flag(name, "return_rank", return_rank)
        check_reduction(name, reduction)
        group = distributed.find_group(name, group, gather)
        if group is not None and check_ranks:
            agreement.check_ranks_agree(
                name, group, x, temperature=temperature if tau is None else tau, gather=gather, reduction=reduction
            )
        with_cosines = may_be_differentiated(x, y, tau)
        group = distributed.name_of(group)
        loss, rank = loss_op(x, y, tau, temperature, return_rank, with_cosines, reduction, group, gather)
        return (loss, rank) if return_rank else loss

    return call
