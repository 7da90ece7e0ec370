"""Good calls of what stands over the ops: the chunked loss, and the names of other libraries."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sslfast import GradCache, losses
from sslfast.compat import (
    ema_pytorch,
    lightly,
    open_clip,
    pytorch_metric_learning,
    sentence_transformers,
    solo,
    sup_contrast,
    timm,
)
from sslfast.compat.torch import get_ema_multi_avg_fn

Call = tuple[Callable, list[Any], dict[str, Any]]  # function, tensors, other arguments


def faces(draw: random.Random, z1: Tensor, z2: Tensor, tokens: Tensor, order: Tensor) -> dict[str, Call]:
    """Name -> function, tensors, other arguments, all of them good; of embeddings (N, D) and tokens (N, L, D)."""
    n = len(z1)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

    def moved(average: nn.Module) -> Tensor:
        """A weight of an average, after it was told of a step."""
        with torch.no_grad():
            model[1].weight.add_(1)
        average.update(*((model,) if isinstance(average, timm.ModelEmaV3) else ()))
        return next(x for name, x in average.named_parameters() if name.endswith(".1.weight"))

    def averaged(target, source, decay, num_averaged):
        get_ema_multi_avg_fn(decay)([target], [source], num_averaged)
        return target

    def ranking(anchors, positives, scale, mini_batch_size=None):
        columns = [{"sentence_embedding": x} for x in (anchors, positives)]
        if mini_batch_size is None:
            return sentence_transformers.MultipleNegativesRankingLoss(nn.Identity(), scale)(columns)
        cached = sentence_transformers.CachedMultipleNegativesRankingLoss
        return cached(nn.Identity(), scale, mini_batch_size=mini_batch_size)(columns)

    temper = {"temperature": 0.2}
    u1, u2 = (nn.functional.normalize(z) for z in (z1, z2))
    return {
        "GradCache": (
            lambda a, b, chunk_size: GradCache([lambda x: x, lambda x: x], losses.InfoNCELoss(0.2), chunk_size)(a, b),
            [z1, z2], {"chunk_size": 2},
        ),
        "lightly.get_at_index": (lightly.get_at_index, [tokens, order[:, :3]], {}),
        "lightly.random_token_mask": (
            lightly.random_token_mask, [], {"size": (n, 6), "mask_ratio": 0.5, "mask_class_token": False}
        ),
        "pytorch_metric_learning.NTXentLoss": (
            lambda z, labels, temperature: pytorch_metric_learning.NTXentLoss(temperature)(z, labels),
            [torch.cat([z1, z2]), torch.arange(n).repeat(2)], temper,
        ),
        "pytorch_metric_learning.SelfSupervisedLoss": (
            lambda a, b, temperature, symmetric: pytorch_metric_learning.SelfSupervisedLoss(
                pytorch_metric_learning.NTXentLoss(temperature), symmetric
            )(a, b),
            [z1, z2], temper | {"symmetric": draw.choice([True, False])},
        ),
        "sup_contrast.SupConLoss": (
            lambda views, labels, temperature: sup_contrast.SupConLoss(temperature)(views, labels),
            [torch.stack([u1, u2], dim=1), torch.arange(n) // 2], temper,
        ),
        "solo.simclr_loss_func": (solo.simclr_loss_func, [z1, z2], temper),
        "solo.byol_loss_func": (solo.byol_loss_func, [z1, z2], {"simplified": True}),
        "sentence_transformers.Ranking": (ranking, [z1, z2], {"scale": 20.0}),
        "sentence_transformers.CachedRanking": (ranking, [z1, z2], {"scale": 20.0, "mini_batch_size": 2}),
        "open_clip.ClipLoss": (
            lambda a, b, logit_scale, logit_bias: open_clip.ClipLoss()(a, b, logit_scale, logit_bias),
            [u1, u2], {"logit_scale": 10.0, "logit_bias": None},
        ),
        "timm.ModelEmaV3": (
            lambda model, decay: moved(timm.ModelEmaV3(model, decay)), [], {"model": model, "decay": 0.9}
        ),
        "ema_pytorch.EMA": (
            lambda model, beta, update_every: moved(
                ema_pytorch.EMA(model, beta=beta, update_every=update_every, include_online_model=False)
            ),
            [], {"model": model, "beta": 0.9, "update_every": 1},
        ),
        "torch.get_ema_multi_avg_fn": (averaged, [z1, z2], {"decay": 0.9, "num_averaged": 1}),
    }  # fmt: skip
