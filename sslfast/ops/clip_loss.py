"""CLIP's loss of images and their texts: both directions from one pass, without the matrix of similarities."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sslfast.kernels import reference, reference_image_text
from sslfast.kernels.cpu import clip_loss as cpu
from sslfast.ops import agreement, distributed
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import Reduction, check_embeddings, check_reduction, check_scalar, check_temperature, promoted
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.registry import HAS_CPU_KERNELS, define_op, lazily

TEMPERATURE = 0.07


def clip_loss(
    image: Tensor,
    text: Tensor,
    temperature: float | Tensor | None = None,
    *,
    logit_scale: float | Tensor | None = None,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor:
    """CLIP's symmetric cross entropy of N images and their texts, from raw embeddings; rows are L2-normalised inside.

    With v and w the normalised rows it equals

        logits = v @ w.T / temperature  # or logit_scale * v @ w.T
        own = torch.arange(N)
        (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    but makes the logits once for both directions and never holds an (N, N) tensor. A zero row has cosine 0 to all
    others and gradient zero.

    Args:
        image, text: embeddings (N, D), alike in dtype (float32, bfloat16, float16, or float64 through the reference;
            autocast promotes mixed ones) and device; row i of both belongs together.
        temperature: a positive number, or a 0-dim tensor on the same device, which may require grad; the value of a
            tensor is not checked, one that is not positive gives NaN. 0.07 if neither it nor logit_scale is given.
        logit_scale: instead of it its inverse, what cosines are multiplied by: CLIP's `logit_scale.exp()`.
        reduction: "mean" over the 2N losses, "sum", or "none": (2N,), those of the images first.
        group: process group whose images and texts are negatives too, "world" for the default one; None for this
            process alone. Every rank returns the losses of its own N pairs; see `nt_xent` for the contract.
        gather: "all" holds the rows of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (2N,) with reduction="none". Differentiable with respect to
        image, text and temperature or logit_scale; beyond the first derivative by the formula, at its memory, and not
        with a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, is empty, the temperature or the
            logit_scale is not positive and finite, or both are given; ranks disagree on any of these or on the op.
        RuntimeError: a rank of the group is gone.

    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
    https://arxiv.org/abs/2103.00020, figure 3
    """
    image, text = promoted(image, text)
    check_embeddings("clip_loss", image=image, text=text)
    number, tau = _temperature(temperature, logit_scale, image.device)
    check_reduction("clip_loss", reduction)
    group = distributed.find_group("clip_loss", group, gather)
    if group is not None and check_ranks:
        agreement.check_ranks_agree(
            "clip_loss", group, image, temperature=number if tau is None else tau, gather=gather, reduction=reduction
        )
    with_cosines = may_be_differentiated(image, text, tau)
    return _clip_loss(image, text, tau, number, with_cosines, reduction, distributed.name_of(group), gather)


def _temperature(temperature, logit_scale, device: torch.device) -> tuple[float, Tensor | None]:
    """(number, tensor): one of them holds the temperature."""
    if logit_scale is None:
        return check_temperature("clip_loss", TEMPERATURE if temperature is None else temperature, device)
    if temperature is not None:
        raise ValueError("clip_loss: temperature must be None with a logit_scale, which is its inverse; got both")
    number, scale = check_scalar("clip_loss", "logit_scale", logit_scale, device, positive=True)
    if scale is None:
        return 1 / number, None
    return 0.0, scale.double().reciprocal()  # in float32 its rounding would be another temperature


def _value(image, text, tau, temperature, with_cosines, reduction, group, gather):
    losses, shift, inverse_sum, u, scale, cosines = _forward(image, text, temperature, tau, with_cosines)
    if group is not None:
        parts = []
        for rows, columns, *own in _both_ways(u, losses, shift, inverse_sum):
            no_mean = rows.new_empty(0, rows.shape[1])
            parts.append(distributed.add_negatives(rows, columns, *own, no_mean, temperature, tau, group, gather)[:3])
        losses, shift, inverse_sum = map(torch.cat, zip(*parts))
    return reference.reduced(losses, reduction), losses, shift, inverse_sum, u, scale, cosines


def _gradient(
    wanted, grad, image, text, tau, temperature, with_cosines, reduction, group, gather,
    losses, shift, inverse_sum, u, scale, cosines,
):  # fmt: skip
    grad = (grad / u.shape[0] if reduction == "mean" else grad).expand(u.shape[0])
    dz, dtau = _backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau)
    if group is not None:
        (v, w, *of_images), (_, _, *of_texts) = _both_ways(u, grad * inverse_sum, shift)
        dv, along_images = distributed.weighted_negatives(v, w, of_images, of_texts, temperature, tau, group, gather)
        dw, along_texts = distributed.weighted_negatives(w, v, of_texts, of_images, temperature, tau, group, gather)
        du = torch.cat([dv, dw])
        dz += reference.project(du, u.to(du.dtype), scale).to(dz.dtype)
        dtau = dtau + (along_images + along_texts) / 2  # a pair counts from both sides
    return *dz.chunk(2), None if tau is None else dtau.to(tau.dtype)


def _both_ways(u: Tensor, *own: Tensor):
    """(rows, columns, what is the rows' own): images and texts, texts and images."""
    v, w = u.chunk(2)
    of_images, of_texts = zip(*(x.chunk(2) for x in own))
    return (v, w, *of_images), (w, v, *of_texts)


def _formula(image, text, tau, temperature, with_cosines, reduction, group, gather):
    distributed.check_alone("clip_loss", group)
    exact = torch.promote_types(image.dtype, torch.float32)
    return reference_image_text.clip_loss(
        image.to(exact), text.to(exact), temperature if tau is None else tau, reduction=reduction
    )


def _reference_forward(image, text, temperature, tau, with_cosines):
    exact = torch.promote_types(image.dtype, torch.float32)
    *outputs, u, scale = reference_image_text.clip_loss_forward(
        image.to(exact), text.to(exact), temperature if tau is None else tau
    )
    return *outputs, u.to(image.dtype), scale, scale.new_empty(0, dtype=torch.float32)


def _reference_backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau):
    dz, dtau = reference_image_text.clip_loss_backward(
        grad, u.to(scale.dtype), scale, losses, shift, inverse_sum, temperature if tau is None else tau
    )
    return dz.to(u.dtype), dtau.to(scale.dtype)


def _fake_forward(image, text, temperature, tau, with_cosines):
    n, d = image.shape
    losses, shift, inverse_sum, scale = (
        image.new_empty(2 * n, dtype=torch.promote_types(image.dtype, torch.float32)) for _ in range(4)
    )
    cosines = image.new_empty(cpu.cosines(image, with_cosines and HAS_CPU_KERNELS), dtype=torch.float32)
    return losses, shift, inverse_sum, image.new_empty(2 * n, d), scale, cosines


def _fake_backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau):
    return torch.empty_like(u), scale.new_empty(())


_triton_forward = lazily("sslfast.kernels.triton.clip_loss", "forward")
_triton_backward = lazily("sslfast.kernels.triton.clip_loss", "backward")


@functools.wraps(_triton_forward)
def _cuda_forward(image, text, temperature, tau, with_cosines):
    return *_triton_forward(image, text, temperature, tau), image.new_empty(0, dtype=torch.float32)


@functools.wraps(_triton_backward)
def _cuda_backward(grad, u, scale, losses, shift, inverse_sum, cosines, temperature, tau):
    return _triton_backward(grad, u, scale, losses, shift, inverse_sum, temperature, tau)


# `cosines` are those that a CPU kernel keeps for the backward pass, as far as they fit its workspace.
_forward = define_op(
    "clip_loss_forward(Tensor image, Tensor text, float temperature, Tensor? tau, bool with_cosines)"
    " -> (Tensor losses, Tensor shift, Tensor inverse_sum, Tensor u, Tensor scale, Tensor cosines)",
    fake=_fake_forward,
    reference=_reference_forward,
    cpu=cpu.forward,
    cuda=_cuda_forward,
    layout={"image": "N D: float", "text": "N D: image", "tau": ": float"},
)
_backward = define_op(
    "clip_loss_backward(Tensor grad, Tensor u, Tensor scale, Tensor losses, Tensor shift, Tensor inverse_sum,"
    " Tensor cosines, float temperature, Tensor? tau) -> (Tensor dz, Tensor dtau)",
    fake=_fake_backward,
    reference=_reference_backward,
    cpu=cpu.backward,
    cuda=_cuda_backward,
    layout={"u": "M D: float", "cosines": "C: float32", "tau": ": float"}
    | dict.fromkeys(("grad", "scale", "losses", "shift", "inverse_sum"), "M: exact u"),
)
_clip_loss = differentiable(
    "clip_loss(Tensor image, Tensor text, Tensor? tau, float temperature, bool with_cosines, str reduction, str? group,"
    " str gather) -> Tensor",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=3,
)
