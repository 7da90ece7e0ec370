"""SimCLR's normalised temperature-scaled cross entropy, without the matrix of similarities."""

from __future__ import annotations

from typing import Literal, overload

from torch import Tensor

from sslfast.kernels import reference
from sslfast.kernels.cpu import nt_xent as cpu
from sslfast.ops.checks import Reduction, check_embeddings, check_temperature
from sslfast.ops.distributed import Gather, Group
from sslfast.ops.nt_xent_views import views_loss
from sslfast.ops.pair_loss import define_pair_loss


@overload
def nt_xent(
    z1: Tensor,
    z2: Tensor,
    temperature: float | Tensor = ...,
    *,
    ids: Tensor | None = ...,
    decoupled: bool = ...,
    return_rank: Literal[False] = ...,
    reduction: Reduction = ...,
    group: Group = ...,
    gather: Gather = ...,
    check_ranks: bool = ...,
) -> Tensor: ...


@overload
def nt_xent(
    z1: Tensor,
    z2: Tensor,
    temperature: float | Tensor = ...,
    *,
    ids: Tensor | None = ...,
    decoupled: bool = ...,
    return_rank: Literal[True],
    reduction: Reduction = ...,
    group: Group = ...,
    gather: Gather = ...,
    check_ranks: bool = ...,
) -> tuple[Tensor, Tensor]: ...


def nt_xent(
    z1: Tensor,
    z2: Tensor,
    temperature: float | Tensor = 0.5,
    *,
    ids: Tensor | None = None,
    decoupled: bool = False,
    return_rank: bool = False,
    reduction: Reduction = "mean",
    group: Group = None,
    gather: Gather = "all",
    check_ranks: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
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
        temperature: a positive number that float32 can hold, or a tensor of one element on the same device, which may
            require grad; the value of a tensor is not checked, one that is not positive gives NaN.
        ids: (N,) integers of any value, one an image: images of one id are no negatives of each other, as duplicates in
            the batch, or images known to show the same, should not be. None: all images differ.
        decoupled: leave the positive out of the sum of exponentials, as decoupled contrastive learning does.
        return_rank: return also how many of the other views but its partner are closer to a view than that, int64
            (2N,): 0 is a hit at the first place, so that `(rank == 0).float().mean()` is the contrastive accuracy;
            counted in the same pass, with a group among the views of all ranks. Images of one id do not count. See
            `info_nce` for ties.
        reduction: "mean" over the 2N views, "sum", or "none": (2N,), views in the order z1 then z2.
        group: process group whose views are negatives too, "world" for the default one (if there is one); None for
            this process alone. Every rank returns the losses of its own 2N views. With reduction="mean" and DDP's
            averaging of gradients, W ranks of N images train as one process with W·N images does: the mean of the
            ranks' losses and all parameter gradients are the same. See docs/distributed.md.
        gather: "all" holds the views of all ranks at once; "ring" passes them on, one rank's at a time.
        check_ranks: compare what the ranks were called with, in a small exchange between their hosts, so that ranks
            that differ raise instead of waiting for each other; False, once they have agreed, saves its time.

    Returns:
        float32 (float64 for float64 inputs): 0-dim, or (2N,) with reduction="none"; with return_rank (loss, rank).
        Differentiable with respect to z1, z2 and temperature; beyond the first derivative by the formula, at its
        memory, and not with a group.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype or device, is empty, or the temperature is
            not positive and finite in float32; ranks disagree on any of these or on the op.
        RuntimeError: a rank of the group is gone.

    Source: Chen et al. 2020, "A Simple Framework for Contrastive Learning", https://arxiv.org/abs/2002.05709
    """
    z1, z2 = check_embeddings("nt_xent", z1=z1, z2=z2)
    if ids is not None or decoupled is not False:
        options = ids, decoupled, return_rank, reduction, group, gather, check_ranks
        return views_loss("nt_xent", z1, z2, temperature, *options)
    number, tau = check_temperature("nt_xent", temperature, z1.device)
    return _nt_xent(z1, z2, number, tau, return_rank, reduction, group, gather, check_ranks)


def _every_view(u, *own):
    """Of the unit views u (2N, D): each meets every other."""
    yield u, u, own, own


_nt_xent = define_pair_loss(
    "nt_xent",
    "z1",
    "z2",
    forward=reference.nt_xent_forward,
    backward=reference.nt_xent_backward,
    cpu=cpu,
    pairings=_every_view,
)
