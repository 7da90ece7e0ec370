"""SigLIP's sigmoid loss of images and their texts, and both sides' gradients, without the matrix of similarities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslfast.kernels import reference, reference_image_text
from sslfast.kernels.cpu import siglip_loss as cpu
from sslfast.ops import agreement, distributed, unit_rows
from sslfast.ops.autograd import differentiable, may_be_differentiated
from sslfast.ops.checks import Reduction, check_embeddings, check_flag, check_reduction, check_scalar
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.registry import define_op, lazily


def siglip_loss(
    image: Tensor,
    text: Tensor,
    logit_scale: float | Tensor,
    logit_bias: float | Tensor,
    *,
    normalize: bool = True,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor:
    """SigLIP's loss of N images and their texts: of every pair by itself, whether its image and text belong together.

    From raw embeddings, whose rows are L2-normalised inside to v and w, it equals

        logits = logit_scale * v @ w.T + logit_bias
        y = 2 * torch.eye(N) - 1  # an image's own text, and all others
        -F.logsigmoid(y * logits).sum() / N

    but never holds an (N, N) tensor, and makes the logits once for the loss and, with reduction "mean" or "sum" and in
    one process, both sides' gradients. A zero row has cosine 0 to all others and gradient zero.

    Args:
        image, text: embeddings (N, D), alike in dtype (float32, bfloat16, float16, or float64 through the reference;
            autocast promotes mixed ones) and device; row i of both belongs together.
        logit_scale: what cosines are multiplied by, a number or a tensor of one element on the same device, which may
            require grad. A model that learns its logarithm passes `log_scale.exp()`; the paper begins at 10.
        logit_bias: what is added, likewise; the paper begins at -10.
        normalize: False takes the rows as they are, as those of a model that has normalised them. Of rows so long that
            their products overflow in float32, the loss is infinite or NaN.
        reduction: "mean" over the N images, each with the sum of its N pairs, "sum", or "none": (N,).
        group: process group whose texts every image meets, "world" for the default one; None for this process alone.
            Every rank returns the losses of its own N images; see `nt_xent` for the contract.
        gather: "all" holds the rows of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (N,) with reduction="none". Differentiable with respect to
        image, text, logit_scale and logit_bias; beyond the first derivative by the formula, at its memory, and not with
        a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, is empty, or not finite where it
            is a number; ranks disagree on any of these or on the op.
        RuntimeError: a rank of the group is gone.

    Source: Zhai et al. 2023, "Sigmoid Loss for Language Image Pre-Training", https://arxiv.org/abs/2303.15343, section
    3.2 and algorithm 1
    """
    image, text = check_embeddings("siglip_loss", image=image, text=text)
    number, scale = check_scalar("siglip_loss", "logit_scale", logit_scale, image.device)
    bias_number, bias = check_scalar("siglip_loss", "logit_bias", logit_bias, image.device)
    check_reduction("siglip_loss", reduction)
    check_flag("siglip_loss", "normalize", normalize)
    group = distributed.find_group("siglip_loss", group, gather)
    if group is not None and check_ranks:
        agreement.check_ranks_agree(
            "siglip_loss",
            group,
            image,
            gather=gather,
            reduction=reduction,
            logit_scale=number if scale is None else scale,
            logit_bias=bias_number if bias is None else bias,
            normalize=normalize,
        )
    at_once = reduction != "none" and group is None  # the gradient will be the same multiple of every row's
    for_image = at_once and may_be_differentiated(image, scale, bias)
    for_text = at_once and may_be_differentiated(text)
    return _siglip_loss(
        image,
        text,
        scale,
        bias,
        number,
        bias_number,
        normalize,
        for_image,
        for_text,
        reduction,
        distributed.name_of(group),
        gather,
    )


class _Saved(NamedTuple):
    """Of N images v and texts w, with W_ij the derivatives to the logits; what was not asked for has no rows."""

    u: Tensor  # (2N, D), v and w
    factor: Tensor  # (2N,), what made them of unit length; (0,) of rows taken as they are
    weights: Tensor  # (N,), Σ_j W_ij
    dimage: Tensor  # (N, D), Σ_j W_ij w_j
    dtext: Tensor  # (N, D), Σ_i W_ij v_i


def _value(args):
    image, text = args.image, args.text
    if args.normalize:
        u, factor = unit_rows.normalize(image, text)
    else:
        u = torch.cat([image, text])
        factor = u.new_empty(0, dtype=torch.promote_types(u.dtype, torch.float32))
    (v, w), logits = _sides(u), _logits(args)
    losses, *sums = _sums(v, w, None, True, *logits, True, args.for_image, args.for_text)
    if args.group is not None:
        losses = _add_losses(v, w, losses, *logits, args.group, args.gather)
    return reference.reduced(losses, args.reduction), _Saved(u, factor, *sums)


def _gradient(wanted, grad, args, saved):
    u, factor, weights, dimage, dtext = saved
    (v, w), n, scale, group = _sides(u), u.shape[0] // 2, args.scale, args.group
    if args.reduction == "mean":
        grad = grad / n
    if args.reduction == "none" or group is not None:
        logits, sides = _logits(args), (wanted[0] or wanted[2] or wanted[3], wanted[1])
        rows = grad.expand(n).to(weights.dtype).contiguous()
        _, weights, dimage, dtext = _sums(v, w, rows, True, *logits, False, *sides)
        if group is not None:
            weights, dimage, dtext = _add_sums(v, w, rows, weights, dimage, dtext, *logits, group, args.gather)
        grad = grad.new_ones(())
    dv = dw = dscale = dbias = None
    of_images, of_texts = _sides(factor) if args.normalize else (None, None)
    if wanted[0] or wanted[2]:
        dv, along = _to_raw(grad, dimage, v, of_images, args.logit_scale, scale)
        dscale = (grad * along).to(scale.dtype) if wanted[2] else None
    if wanted[1]:
        dw, _ = _to_raw(grad, dtext, w, of_texts, args.logit_scale, scale)
    if wanted[3]:
        dbias = (grad * weights.sum()).to(args.bias.dtype)
    return dv, dw, dscale, dbias


def _logits(args):
    """What makes logits of cosines, as the ops below take it."""
    return args.logit_scale, args.logit_bias, args.scale, args.bias


def _sides(x):
    """Of images and of texts."""
    n = x.shape[0] // 2
    return x[:n], x[n:]


def _to_raw(grad, sums, rows, factor, logit_scale, scale):
    """grad times the gradient to raw rows, from the weighted sums of the rows of the other side; and Σ sums·rows, which
    with rows as they are nobody but a scale wants."""
    number, by = (logit_scale, grad) if scale is None else (1.0, grad * scale)
    if factor is not None:
        return unit_rows.project(sums, rows, factor, number, by)
    return (sums * (number * by)).to(rows.dtype), None if scale is None else (sums * rows).sum()


def _formula(args):
    distributed.check_alone("siglip_loss", args.group)
    exact = torch.promote_types(args.image.dtype, torch.float32)
    logit_scale = args.logit_scale if args.scale is None else args.scale
    logit_bias = args.logit_bias if args.bias is None else args.bias
    image, text = args.image.to(exact), args.text.to(exact)
    return reference_image_text.siglip_loss(
        image, text, logit_scale, logit_bias, unit=args.normalize, reduction=args.reduction
    )


# --- across processes: an image meets the texts of all ranks, a text the images of all ---


def _add_losses_across(v, w, losses, logit_scale, logit_bias, scale, bias, group, gather):
    """Losses of the images, with the texts of the other ranks too."""
    logits = logit_scale, logit_bias, scale, bias
    numbers = [x.detach().reshape(1) for x in (scale, bias) if x is not None]
    losses = losses.clone()
    for texts, *there in distributed.other_ranks([w, *numbers], distributed.group_named(group), gather):
        losses += _sums(v, texts, None, False, *logits, True, False, False)[0]
        for number, other in zip(numbers, there):  # where ranks differ in it, the loss is NaN
            losses += torch.where(other == number, 0.0, float("nan"))
    return losses


def _add_sums_across(v, w, grad, weights, dimage, dtext, logit_scale, logit_bias, scale, bias, group, gather):
    """What the other ranks' texts add to this rank's images, and their images, with their gradients, to its texts."""
    logits = logit_scale, logit_bias, scale, bias
    weights, dimage, dtext = weights.clone(), dimage.clone(), dtext.clone()
    for images, texts, grad_there in distributed.other_ranks([v, w, grad], distributed.group_named(group), gather):
        if len(dimage):
            _, more, sums, _ = _sums(v, texts, grad, False, *logits, False, True, False)
            weights, dimage = weights + more, dimage + sums
        if len(dtext):
            dtext += _sums(images, w, grad_there, False, *logits, False, False, True)[3]
    return weights, dimage, dtext


# --- the parts of it that have kernels ---


def _reference_sums(v, w, factor, own, logit_scale, logit_bias, scale, bias, with_loss, with_image, with_text):
    exact = torch.promote_types(v.dtype, torch.float32)
    losses, weights, dimage, dtext = reference_image_text.siglip_sums(
        v.to(exact),
        w.to(exact),
        factor,
        own,
        logit_scale if scale is None else scale.to(exact),
        logit_bias if bias is None else bias.to(exact),
    )
    wanted = with_loss, with_image or with_text, with_image, with_text
    return tuple(x if kept else x[:0] for x, kept in zip((losses, weights, dimage, dtext), wanted))


def _fake_sums(v, w, factor, own, logit_scale, logit_bias, scale, bias, with_loss, with_image, with_text):
    n, d = v.shape
    losses, weights, image, text = (n if x else 0 for x in (with_loss, with_image or with_text, with_image, with_text))
    dtype = torch.promote_types(v.dtype, torch.float32)
    return tuple(v.new_empty(shape, dtype=dtype) for shape in ((losses,), (weights,), (image, d), (text, d)))


_sums = define_op(
    "siglip_sums(Tensor image, Tensor text, Tensor? factor, bool own, float logit_scale, float logit_bias,"
    " Tensor? scale, Tensor? bias, bool with_loss, bool with_image, bool with_text)"
    " -> (Tensor losses, Tensor weights, Tensor dimage, Tensor dtext)",
    fake=_fake_sums,
    reference=_reference_sums,
    cpu=cpu.sums,
    cuda=lazily("sslfast.kernels.triton.siglip_loss", "sums"),
    layout={"image": "N D: float", "text": "N D: image", "factor": "N: exact image"}
    | dict.fromkeys(("scale", "bias"), ": float"),
)


_add_losses = distributed.define_exchange(
    "siglip_add_losses(Tensor image, Tensor text, Tensor losses, float logit_scale, float logit_bias, Tensor? scale,"
    " Tensor? bias, str group, str gather) -> Tensor",
    _add_losses_across,
    lambda image, text, losses, *_: torch.empty_like(losses),
)
_add_sums = distributed.define_exchange(
    "siglip_add_sums(Tensor image, Tensor text, Tensor grad, Tensor weights, Tensor dimage, Tensor dtext,"
    " float logit_scale, float logit_bias, Tensor? scale, Tensor? bias, str group, str gather)"
    " -> (Tensor, Tensor, Tensor)",
    _add_sums_across,
    lambda image, text, grad, *sums, **_: tuple(map(torch.empty_like, sums[:3])),
)
_siglip_loss = differentiable(
    "siglip_loss(Tensor image, Tensor text, Tensor? scale, Tensor? bias, float logit_scale, float logit_bias,"
    " bool normalize, bool for_image, bool for_text, str reduction, str? group, str gather) -> Tensor",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=4,
    saved=_Saved,
)
