"""CLIP's loss of images and their texts: both directions from one pass, without the matrix of similarities."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from sslfast.kernels import reference_image_text
from sslfast.kernels.cpu import clip_loss as cpu
from sslfast.ops.checks import Reduction, check_embeddings, check_scalar, check_temperature
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.pair_loss import define_pair_loss
from sslfast.ops.precision import precise

TEMPERATURE = 0.07


@overload
def clip_loss(
    image: Tensor,
    text: Tensor,
    temperature: float | Tensor | None = ...,
    *,
    logit_scale: float | Tensor | None = ...,
    return_rank: Literal[False] = ...,
    reduction: Reduction = ...,
    group: Group = ...,
    gather: Gather = ...,
    check_ranks: bool = ...,
) -> Tensor: ...


@overload
def clip_loss(
    image: Tensor,
    text: Tensor,
    temperature: float | Tensor | None = ...,
    *,
    logit_scale: float | Tensor | None = ...,
    return_rank: Literal[True],
    reduction: Reduction = ...,
    group: Group = ...,
    gather: Gather = ...,
    check_ranks: bool = ...,
) -> tuple[Tensor, Tensor]: ...


def clip_loss(
    image: Tensor,
    text: Tensor,
    temperature: float | Tensor | None = None,
    *,
    logit_scale: float | Tensor | None = None,
    return_rank: bool = False,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
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
        temperature: a positive number, or a tensor of one element on the same device, which may require grad; the
            value of a tensor is not checked, one that is not positive gives NaN. 0.07 if neither it nor logit_scale is
            given.
        logit_scale: instead of it its inverse, what cosines are multiplied by: CLIP's `logit_scale.exp()`.
        return_rank: return also how many texts are closer to an image than its own, and images to a text, int64 (2, N):
            `image_to_text, text_to_image = rank`, and `(rank < 5).float().mean(dim=1)` is the recall among the first
            five both ways; counted in the same pass, with a group among the rows of all ranks. See `info_nce` for ties.
        reduction: "mean" over the 2N losses, "sum", or "none": (2N,), those of the images first.
        group: process group whose images and texts are negatives too, "world" for the default one; None for this
            process alone. Every rank returns the losses of its own N pairs; see `nt_xent` for the contract.
        gather: "all" holds the rows of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (2N,) with reduction="none"; with return_rank (loss, rank).
        Differentiable with respect to image, text and temperature or logit_scale; beyond the first derivative by the
        formula, at its memory, and not with a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, is empty, the temperature or the
            logit_scale is not positive and finite, or both are given; ranks disagree on any of these or on the op.
        RuntimeError: a rank of the group is gone.

    Source: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision",
    https://arxiv.org/abs/2103.00020, figure 3
    """
    image, text = check_embeddings("clip_loss", image=image, text=text)
    number, tau = _temperature(temperature, logit_scale, image.device)
    result = _clip_loss(image, text, number, tau, return_rank, reduction, group, gather, check_ranks)
    return (result[0], result[1].unflatten(0, (2, -1))) if isinstance(result, tuple) else result


def _temperature(temperature, logit_scale, device: torch.device) -> tuple[float, Tensor | None]:
    """(number, tensor): one of them holds the temperature."""
    if logit_scale is None:
        return check_temperature("clip_loss", TEMPERATURE if temperature is None else temperature, device)
    if temperature is not None:
        raise ValueError("clip_loss: temperature must be None with a logit_scale, which is its inverse; got both")
    number, scale = check_scalar("clip_loss", "logit_scale", logit_scale, device, positive=True)
    if scale is None:
        return 1 / number, None
    return 0.0, precise(scale).reciprocal()  # in float32 its rounding would be another temperature


def _both_ways(u, *own):
    """Of the unit rows u (2N, D): images meet texts, texts meet images."""
    v, w = u.chunk(2)
    of_images, of_texts = zip(*(x.chunk(2) for x in own))
    yield v, w, of_images, of_texts
    yield w, v, of_texts, of_images


_clip_loss = define_pair_loss(
    "clip_loss",
    "image",
    "text",
    forward=reference_image_text.clip_loss_forward,
    backward=reference_image_text.clip_loss_backward,
    cpu=cpu,
    pairings=_both_ways,
)
