"""A small call of every op, for the tests that ask the same of all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sslfast import ops
from sslfast.augment import ViewParams, ViewSampler
from sslfast.kernels import reference, reference_image_text, reference_mae, reference_sup_con


@dataclass(frozen=True)
class Case:
    """`op(*leaves, *others)`: what has a gradient, and what has none; `formula` is the same by the reference."""

    op: Callable[..., Tensor]
    formula: Callable[..., Tensor]
    inputs: Callable[[int, torch.dtype], tuple[list[Tensor], list[Tensor]]]  # of a batch and a dtype: leaves, others

    def leaves(self, batch: int = 3, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        return self.inputs(batch, dtype)[0]

    def bound(self, batch: int = 3, dtype: torch.dtype = torch.float32) -> tuple[Callable, Callable, list[Tensor]]:
        """The op and the formula as functions of the leaves alone, and the leaves."""
        leaves, others = self.inputs(batch, dtype)
        return lambda *xs: self.op(*xs, *others), lambda *xs: self.formula(*xs, *others), leaves


def randn(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(dtype)


def _embeddings(batch: int, dtype: torch.dtype) -> list[Tensor]:
    tau = torch.tensor(0.4, dtype=dtype if dtype == torch.float64 else torch.float32)
    return [randn(batch, 5, dtype=dtype), randn(batch, 5, dtype=dtype, seed=1), tau]


def _bias(dtype: torch.dtype) -> Tensor:
    return torch.tensor(-1.0, dtype=dtype if dtype == torch.float64 else torch.float32)


def _queue(dtype: torch.dtype) -> Tensor:
    return reference.normalize(randn(4, 5, dtype=dtype, seed=2))[0]


def order(batch: int, size: int = 4) -> Tensor:
    """A permutation a row, (B, L)."""
    return randn(batch, size, seed=3).argsort(dim=1)


def _images(batch: int, dtype: torch.dtype) -> Tensor:
    return randn(batch, 3, 4, 4, dtype=dtype, seed=4).abs()


DIFFERENTIABLE: dict[str, Case] = {
    "nt_xent": Case(ops.nt_xent, reference.nt_xent, lambda b, dtype: (_embeddings(b, dtype), [])),
    "nt_xent, none": Case(
        lambda z1, z2, tau: ops.nt_xent(z1, z2, tau, reduction="none"),
        lambda z1, z2, tau: reference.nt_xent(z1, z2, tau, reduction="none"),
        lambda b, dtype: (_embeddings(b, dtype), []),
    ),
    "nt_xent, ids, decoupled": Case(
        lambda z1, z2, tau, ids: ops.nt_xent(z1, z2, tau, ids=ids, decoupled=True, reduction="none"),
        lambda *xs: reference.nt_xent_views(
            torch.stack(xs[:2]), xs[2], ids=xs[3], decoupled=True, reduction="none"
        ).flatten(),
        lambda b, dtype: (_embeddings(b, dtype), [torch.arange(b, device="cpu") // 2]),
    ),
    "multi-crop": Case(  # of nt_xent_views, with the batch first as everywhere here
        lambda z, tau: ops.nt_xent_views(z.transpose(0, 1), tau),
        lambda z, tau: reference.nt_xent_views(z.transpose(0, 1), tau),
        lambda b, dtype: ([randn(b, 3, 5, dtype=dtype), _embeddings(b, dtype)[-1]], []),
    ),
    "info_nce, batch": Case(
        lambda q, k, tau: ops.info_nce(q, k, temperature=tau, reduction="sum"),
        lambda q, k, tau: reference.info_nce(q, k, temperature=tau, reduction="sum"),
        lambda b, dtype: (_embeddings(b, dtype), []),
    ),
    "info_nce, queue": Case(
        lambda q, k, tau, queue: ops.info_nce(q, k, queue, tau),
        lambda q, k, tau, queue: reference.info_nce(q, k, queue, tau),
        lambda b, dtype: (_embeddings(b, dtype), [_queue(dtype)]),
    ),
    "info_nce, candidates": Case(
        lambda q, k, tau, targets, ids: ops.info_nce(q, k, None, tau, targets=targets, ids=ids, normalize=False),
        lambda q, k, tau, targets, ids: reference.info_nce(q, k, None, tau, targets=targets, ids=ids, unit=False),
        lambda b, dtype: (
            [randn(b, 5, dtype=dtype), randn(b + 4, 5, dtype=dtype, seed=1), _embeddings(b, dtype)[2]],
            [torch.arange(b) // 2 * 2 + 1, torch.arange(b + 4) // 3],
        ),
    ),
    "clip_loss": Case(ops.clip_loss, reference_image_text.clip_loss, lambda b, dtype: (_embeddings(b, dtype), [])),
    "clip_loss, scale": Case(
        lambda v, w, scale: ops.clip_loss(v, w, logit_scale=scale, reduction="none"),
        lambda v, w, scale: reference_image_text.clip_loss(v, w, 1 / scale, reduction="none"),
        lambda b, dtype: (_embeddings(b, dtype), []),
    ),
    "siglip_loss": Case(
        ops.siglip_loss, reference_image_text.siglip_loss, lambda b, dtype: ([*_embeddings(b, dtype), _bias(dtype)], [])
    ),
    "siglip_loss, unit rows": Case(
        lambda v, w, scale, bias: ops.siglip_loss(v, w, scale, bias, normalize=False, reduction="none"),
        lambda v, w, scale, bias: reference_image_text.siglip_loss(v, w, scale, bias, unit=False, reduction="none"),
        lambda b, dtype: ([*_embeddings(b, dtype), _bias(dtype)], []),
    ),
    "sup_con": Case(
        lambda z, tau, labels: ops.sup_con(z, labels, tau, reduction="sum"),
        lambda z, tau, labels: reference_sup_con.sup_con(z, labels, tau, reduction="sum"),
        lambda b, dtype: (_embeddings(b, dtype)[::2], [torch.arange(b, device="cpu") % 2]),
    ),
    "negative_cosine_similarity": Case(
        ops.negative_cosine_similarity,
        reference.negative_cosine_similarity,
        lambda b, dtype: (_embeddings(b, dtype)[:2], []),
    ),
    "gather_tokens": Case(
        ops.gather_tokens,
        reference_mae.gather_tokens_forward,
        lambda b, dtype: ([randn(b, 4, 5, dtype=dtype)], [order(b)[:, :2]]),
    ),
    "gather_patches": Case(
        lambda images, keep: ops.gather_patches(images, keep, 2, mean=0.4, std=0.2),
        lambda images, keep: reference_mae.gather_patches_forward(images, keep, 2, [5.0] * 3, [-2.0] * 3, images.dtype),
        lambda b, dtype: ([_images(b, dtype)], [order(b)[:, :2]]),
    ),
    "restore_tokens": Case(
        lambda visible, token, places, restore: ops.restore_tokens(visible, restore, token, places),
        lambda visible, token, places, restore: reference_mae.restore_tokens_forward(visible, restore, token, places),
        lambda b, dtype: (
            [randn(b, 2, 5, dtype=dtype), randn(5, dtype=dtype), randn(4, 5, dtype=dtype)],
            [order(b)],
        ),
    ),
    "masked_patch_loss": Case(
        lambda pred, images, mask: ops.masked_patch_loss(pred, images, mask, 2, mean=0.4, std=0.2),
        lambda pred, images, mask: reference_mae.masked_patch_loss_forward(
            pred, images, mask, 2, True, [5.0] * 3, [-2.0] * 3
        )[0],
        lambda b, dtype: ([randn(b, 4, 12, dtype=dtype)], [_images(b, dtype), order(b) >= 2]),
    ),
}


def views(batch: int = 3) -> tuple[Tensor, ViewParams]:
    """Images, and the parameters of a view of each."""
    params = ViewSampler("simclr", 8).sample(batch, (12, 12), generator=torch.Generator().manual_seed(0))
    return (255 * _images(batch, torch.float32)).to(torch.uint8).repeat(1, 1, 3, 3), params
