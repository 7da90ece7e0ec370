"""SimSiam's loss, minus the cosine of two rows, with both gradients from one read."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.cpu import negative_cosine_similarity as cpu
from sslfast.ops.autograd import differentiable
from sslfast.ops.checks import Reduction, check_embeddings, check_reduction
from sslfast.ops.registry import define_op, lazily


def negative_cosine_similarity(p: Tensor, z: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Minus the cosine of each row of p with the same row of z. It equals

        -(F.normalize(p, dim=1) * F.normalize(z, dim=1)).sum(dim=1).mean()

    but a zero row has gradient zero. SimSiam's loss is half the sum of `negative_cosine_similarity(p1, z2.detach())`
    and `negative_cosine_similarity(p2, z1.detach())`; BYOL's is 2 + 2 times each. Of a detached argument no gradient
    is computed.

    Args:
        p, z: predictions and projections, (N, D) each, alike in dtype (float32, bfloat16, float16, or float64 through
            the reference; autocast promotes mixed ones) and device.
        reduction: "mean" over the N rows, "sum", or "none".

    Returns:
        float32 (float64 for float64 inputs) in [-1, 1], or the sum of such: 0-dim, or (N,) with reduction="none".
        Differentiable with respect to p and z.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, or is empty.

    Source: Chen & He 2021, "Exploring Simple Siamese Representation Learning", https://arxiv.org/abs/2011.10566
    """
    p, z = check_embeddings("negative_cosine_similarity", p=p, z=z)
    check_reduction("negative_cosine_similarity", reduction)
    return _negative_cosine_similarity(p, z, reduction)


def _value(args):
    return reference.reduced(_forward(args.p, args.z), args.reduction), ()


def _gradient(wanted, grad, args, _):
    n = args.p.shape[0]
    grad = grad / n if args.reduction == "mean" else grad
    return _backward(grad.expand(n), args.p, args.z, *wanted)


def _formula(args):
    return reference.reduced(_reference_forward(args.p, args.z), args.reduction)


def _reference_forward(p, z):
    exact = torch.promote_types(p.dtype, torch.float32)
    return reference.negative_cosine_similarity_forward(p.to(exact), z.to(exact))


def _reference_backward(grad, p, z, with_p, with_z):
    exact = torch.promote_types(p.dtype, torch.float32)
    gradients = reference.negative_cosine_similarity_backward(grad, p.to(exact), z.to(exact), with_p, with_z)
    return tuple(gradient.to(p.dtype) for gradient in gradients)


_forward = define_op(
    "negative_cosine_similarity_forward(Tensor p, Tensor z) -> Tensor losses",
    fake=lambda p, z: p.new_empty(p.shape[0], dtype=torch.promote_types(p.dtype, torch.float32)),
    reference=_reference_forward,
    cpu=cpu.forward,
    cuda=lazily("sslfast.kernels.triton.negative_cosine_similarity", "forward"),
    layout={"p": "N D: float", "z": "N D: p"},
)
_backward = define_op(
    "negative_cosine_similarity_backward(Tensor grad, Tensor p, Tensor z, bool with_p, bool with_z)"
    " -> (Tensor dp, Tensor dz)",
    fake=lambda grad, p, z, with_p, with_z: tuple(
        p.new_empty(p.shape[0] if wanted else 0, p.shape[1]) for wanted in (with_p, with_z)
    ),
    reference=_reference_backward,
    cpu=cpu.backward,
    cuda=lazily("sslfast.kernels.triton.negative_cosine_similarity", "backward"),
    layout={"grad": "N: exact p", "p": "N D: float", "z": "N D: p"},
)
_negative_cosine_similarity = differentiable(
    "negative_cosine_similarity(Tensor p, Tensor z, str reduction) -> Tensor",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=2,
)
