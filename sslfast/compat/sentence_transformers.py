"""sentence-transformers' ranking losses (https://github.com/UKPLab/sentence-transformers, 6.2), by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sslfast import ops
from sslfast.grad_cache import GradCache
from sslfast.ops.checks import as_number, check_module
from sslfast.ops.distributed import Group

DIRECTIONS = {("query_to_doc",), ("query_to_doc", "doc_to_query")}


class MultipleNegativesRankingLoss(nn.Module):
    """Every query finds its document among those of the batch: cross entropy of cosines times `scale`.

    Columns of anchors, positives, and any number of hard negatives are served, one way or both ways apart
    (`partition_mode="per_direction"`). What it cannot serve raises: other similarities, directions and hardness. The
    result is float32 also for bfloat16 and float16.

    Args:
        model: maps the features of a column to a dict with its "sentence_embedding" (N, D).
        scale: what cosines are multiplied by, positive.
        similarity_fct: sentence-transformers' `cos_sim`, or None for it, or its `dot_score`.
        gather_across_devices: the documents of all processes are candidates; not with `dot_score`.
        directions, partition_mode: ("query_to_doc",), or with "doc_to_query" and "per_direction" the mean of both ways.
        hardness_mode, hardness_strength: not served.

    Raises:
        ValueError: scale is not positive; what is not served is asked, there or in the call.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] | None = None,
        gather_across_devices: bool = False,
        directions: tuple[str, ...] = ("query_to_doc",),
        partition_mode: str = "joint",
        hardness_mode: str | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        check_module(name, "model", model)
        if not as_number(name, "scale", scale) > 0:
            raise ValueError(f"{name}: scale must be positive, got {scale}")
        directions = tuple(directions)
        both = len(directions) == 2
        similarity = "cos_sim" if similarity_fct is None else getattr(similarity_fct, "__name__", "")
        served = {"cos_sim"} if gather_across_devices else {"cos_sim", "dot_score"}
        for argument, value, good in (
            ("similarity_fct", similarity_fct, similarity in served),
            ("directions", directions, directions in DIRECTIONS and not (both and partition_mode == "joint")),
            ("partition_mode", partition_mode, partition_mode in ("joint", "per_direction")),
            ("hardness_mode", hardness_mode, hardness_mode is None or hardness_strength == 0),
        ):
            if not good:
                raise ValueError(f"{name}: {argument}={value!r} is not served; use sentence-transformers' own")
        self.model, self.scale, self.gather_across_devices = model, scale, gather_across_devices
        self.directions, self.partition_mode, self._similarity = directions, partition_mode, similarity

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """sentence_features: those of anchors, positives and hard negatives; labels are not looked at."""
        return self.compute_loss_from_embeddings([self._embed(**column) for column in sentence_features], labels)

    def compute_loss_from_embeddings(self, embeddings: list[Tensor], labels: Tensor | None = None) -> Tensor:
        if len(embeddings) < 2:
            raise ValueError(
                f"{type(self).__name__}: sentence_features must be those of anchors and positives at least, got "
                f"{len(embeddings)} columns"
            )
        anchors, positives, *negatives = embeddings
        group: Group = "world" if self.gather_across_devices else None
        cosines, both = self._similarity == "cos_sim", len(self.directions) == 2
        if both and cosines and not negatives:
            return ops.clip_loss(anchors, positives, logit_scale=self.scale, group=group)
        options: dict[str, Any] = {"temperature": 1 / self.scale, "normalize": cosines, "group": group}
        loss = ops.info_nce(anchors, torch.cat([positives, *negatives]) if negatives else positives, **options)
        return (loss + ops.info_nce(positives, anchors, **options)) / 2 if both else loss

    def get_config_dict(self) -> dict[str, Any]:
        return {
            "scale": self.scale,
            "similarity_fct": self._similarity,
            "gather_across_devices": self.gather_across_devices,
            "directions": self.directions,
            "partition_mode": self.partition_mode,
        }

    @property
    def temperature(self) -> float:
        return 1 / self.scale

    def _embed(self, **features: Tensor) -> Tensor:
        return self.model(features)["sentence_embedding"]


class CachedMultipleNegativesRankingLoss(MultipleNegativesRankingLoss):
    """The same over a batch of any size with the memory of `mini_batch_size` texts, by `sslfast.GradCache`.

    Args:
        mini_batch_size: texts of a column that pass the model together.
        mini_batch_num_tokens: not served.
        show_progress_bar: accepted for the signature; there is none.
        The others: as in MultipleNegativesRankingLoss.
    """

    def __init__(
        self,
        model: nn.Module,
        scale: float = 20.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] | None = None,
        mini_batch_size: int = 32,
        mini_batch_num_tokens: int | None = None,
        gather_across_devices: bool = False,
        directions: tuple[str, ...] = ("query_to_doc",),
        partition_mode: str = "joint",
        show_progress_bar: bool = False,
        hardness_mode: str | None = None,
        hardness_strength: float = 0.0,
    ) -> None:
        super().__init__(
            model, scale, similarity_fct, gather_across_devices, directions, partition_mode, hardness_mode,
            hardness_strength,
        )  # fmt: skip
        if mini_batch_num_tokens is not None:
            raise ValueError(
                "CachedMultipleNegativesRankingLoss: mini_batch_num_tokens is not served; use mini_batch_size"
            )
        self.mini_batch_size, self.show_progress_bar = mini_batch_size, show_progress_bar

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """sentence_features: those of anchors, positives and hard negatives; labels are not looked at."""
        columns = list(sentence_features)
        cache = GradCache(
            [self._embed] * len(columns),
            lambda *embeddings: self.compute_loss_from_embeddings(list(embeddings)),
            self.mini_batch_size,
            no_sync=getattr(self.model, "no_sync", None),
        )
        return cache(*columns)

    def get_config_dict(self) -> dict[str, Any]:
        return {**super().get_config_dict(), "mini_batch_size": self.mini_batch_size}
