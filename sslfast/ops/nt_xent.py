"""SimCLR's normalised temperature-scaled cross entropy, without the matrix of similarities."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.cpu import nt_xent as cpu
from sslfast.ops import agreement, distributed
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import Reduction, check_embeddings, check_reduction, check_temperature, promoted
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.nt_xent_views import views_loss
from sslfast.ops.registry import HAS_CPU_KERNELS, define_op, lazily


def nt_xent(
    z1: Tensor,
    z2: Tensor,
    temperature: float | Tensor = 0.5,
    *,
    ids: Tensor | None = None,
    decoupled: bool = False,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor:
    """NT-Xent of two views of N images, from raw projections; rows are L2-normalised inside.

    Over the 2N views, with s = cosine/temperature and i' the other view of i's image, it equals

        s = F.normalize(torch.cat([z1, z2])) @ F.normalize(torch.cat([z1, z2])).T / temperature
        F.cross_entropy(s.fill_diagonal_(-torch.inf), torch.arange(2 * N).roll(N), reduction=reduction)

    but never holds a (2N, 2N) tensor. A zero row has cosine 0 to all others and gradient zero. For more than two views,
    and how ids and decoupled change the formula: `nt_xent_views`.

    Args:
        z1, z2: projections of the first and of the second views, (N, D) each, alike in dtype (float32, bfloat16,
            float16, or float64 through the reference; autocast promotes mixed ones) and device. Row k of both comes
            from image k.
        temperature: a positive number that float32 can hold, or a 0-dim tensor on the same device, which may require
            grad; the value of a tensor is not checked, one that is not positive gives NaN.
        ids: (N,) integers of any value, one an image: images of one id are no negatives of each other, as duplicates in
            the batch, or images known to show the same, should not be. None: all images differ.
        decoupled: leave the positive out of the sum of exponentials, as decoupled contrastive learning does.
        reduction: "mean" over the 2N views, "sum", or "none": (2N,), views in the order z1 then z2.
        group: process group whose views are negatives too, "world" for the default one (if there is one); None for
            this process alone. Every rank returns the losses of its own 2N views. With reduction="mean" and DDP's
            averaging of gradients, W ranks of N images train as one process with W·N images does: the mean of the
            ranks' losses and all parameter gradients are the same. See docs/distributed.md.
        gather: "all" holds the views of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (2N,) with reduction="none". Differentiable with respect
        to z1, z2 and temperature; beyond the first derivative by the formula, at its memory, and not with a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, is empty, or the temperature is
            not positive and finite in float32; ranks disagree on any of these or on the op.
        RuntimeError: a rank of the group is gone.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning", https://arxiv.org/abs/2002.05709
    """
    z1, z2 = promoted(z1, z2)
    check_embeddings("nt_xent", z1=z1, z2=z2)
    if ids is not None or decoupled is not False:
        options = ids, decoupled, reduction, group, gather, check_ranks
        return views_loss("nt_xent", z1, z2, temperature, *options)
    number, tau = check_temperature("nt_xent", temperature, z1.device)
    check_reduction("nt_xent", reduction)
    group = distributed.find_group("nt_xent", group, gather)
    if group is not None and check_ranks:
        agreement.check_ranks_agree(
            "nt_xent", group, z1, temperature=number if tau is None else tau, gather=gather, reduction=reduction
        )
    with_cosines = may_be_differentiated(z1, z2, tau)
    return _nt_xent(z1, z2, tau, number, with_cosines, reduction, distributed.name_of(group), gather)


def _value(z1, z2, tau, temperature, with_cosines, reduction, group, gather):
    losses, shift, inverse_sum, u, scale, cosines = _forward(z1, z2, temperature, tau, with_cosines)
    if group is not None:
        no_mean = u.new_empty(0, u.shape[1])
        losses, shift, inverse_sum, _ = distributed.add_negatives(
            u, u, losses, shift, inverse_sum, no_mean, temperature, tau, group, gather
        )
    return reference.reduced(losses, reduction), losses, shift, inverse_sum, u, scale, cosines


def _gradient(
    wanted, grad, z1, z2, tau, temperature, with_cosines, reduction, group, gather,
    losses, shift, inverse_sum, u, scale, cosines,
):  # fmt: skip
    grad = (grad / u.shape[0] if reduction == "mean" else grad).expand(u.shape[0])
    dz, dtau = _backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau)
    if group is not None:
        own = [grad * inverse_sum, shift]
        du, radial = distributed.weighted_negatives(u, u, own, own, temperature, tau, group, gather)
        dz += reference.project(du, u.to(du.dtype), scale).to(dz.dtype)
        dtau = dtau + radial / 2  # a pair of views counts from both sides
    return *dz.chunk(2), None if tau is None else dtau.to(tau.dtype)


def _formula(z1, z2, tau, temperature, with_cosines, reduction, group, gather):
    distributed.check_alone("nt_xent", group)
    exact = torch.promote_types(z1.dtype, torch.float32)
    return reference.nt_xent(z1.to(exact), z2.to(exact), temperature if tau is None else tau, reduction=reduction)


def _reference_forward(z1, z2, temperature, tau, with_cosines):
    exact = torch.promote_types(z1.dtype, torch.float32)
    outputs = reference.nt_xent_forward(z1.to(exact), z2.to(exact), temperature if tau is None else tau)
    losses, shift, inverse_sum, u, scale = outputs
    return losses, shift, inverse_sum, u.to(z1.dtype), scale, scale.new_empty(0, dtype=torch.float32)


def _reference_backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau):
    temperature = temperature if tau is None else tau
    dz, dtau = reference.nt_xent_backward(grad, u.to(scale.dtype), scale, losses, shift, inverse_sum, temperature)
    return dz.to(u.dtype), dtau


def _fake_forward(z1, z2, temperature, tau, with_cosines):
    n, d = z1.shape
    losses, shift, inverse_sum, scale = (
        z1.new_empty(2 * n, dtype=torch.promote_types(z1.dtype, torch.float32)) for _ in range(4)
    )
    cosines = z1.new_empty(cpu.cosines(z1, with_cosines and HAS_CPU_KERNELS), dtype=torch.float32)
    return losses, shift, inverse_sum, z1.new_empty(2 * n, d), scale, cosines


def _fake_backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau):
    return torch.empty_like(u), scale.new_empty(())


_triton_forward = lazily("sslfast.kernels.triton.nt_xent", "forward")
_triton_backward = lazily("sslfast.kernels.triton.nt_xent", "backward")


@functools.wraps(_triton_forward)
def _cuda_forward(z1, z2, temperature, tau, with_cosines):
    return *_triton_forward(z1, z2, temperature, tau), z1.new_empty(0, dtype=torch.float32)


@functools.wraps(_triton_backward)
def _cuda_backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau):
    return _triton_backward(grad, u, scale, losses, shift, inverse_sum, temperature, tau)


# `cosines` are those that a CPU kernel keeps for the backward pass, as far as they fit its workspace.
_forward = define_op(
    "nt_xent_forward(Tensor z1, Tensor z2, float temperature, Tensor? tau, bool with_cosines)"
    " -> (Tensor losses, Tensor shift, Tensor inverse_sum, Tensor u, Tensor scale, Tensor cosines)",
    fake=_fake_forward,
    reference=_reference_forward,
    cpu=cpu.forward,
    cuda=_cuda_forward,
    layout={"z1": "N D: float", "z2": "N D: z1", "tau": ": float"},
)
_backward = define_op(
    "nt_xent_backward(Tensor grad, Tensor u, Tensor scale, Tensor losses, Tensor shift, Tensor inverse_sum,"
    " Tensor cosines, float temperature, Tensor? tau) -> (Tensor dz, Tensor dtau)",
    fake=_fake_backward,
    reference=_reference_backward,
    cpu=cpu.backward,
    cuda=_cuda_backward,
    layout={"u": "M D: float", "cosines": "C: float32", "tau": ": float"}
    | dict.fromkeys(("grad", "scale", "losses", "shift", "inverse_sum"), "M: exact u"),
)
_nt_xent = differentiable(
    "nt_xent(Tensor z1, Tensor z2, Tensor? tau, float temperature, bool with_cosines, str reduction, str? group,"
    " str gather) -> Tensor",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=3,
)
