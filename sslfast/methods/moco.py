"""MoCo: He et al. 2019, Momentum Contrast (https://arxiv.org/abs/1911.05722), and Chen et al. 2020, MoCo v2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sslfast.ema import EMA
from sslfast.key_queue import KeyQueue
from sslfast.losses import InfoNCELoss
from sslfast.methods.contrastive import Contrastive, ContrastiveConfig
from sslfast.models import ProjectionHead, split_batch_norm
from sslfast.ops.distributed import find_group, gather_all


@dataclass(frozen=True, kw_only=True)
class MoCoConfig(ContrastiveConfig):
    """MoCo's fields; the values are those of v2 (https://arxiv.org/abs/2003.04297)."""

    method: ClassVar[str] = "moco"

    sync_batchnorm: bool = False
    """BatchNorm over the batches of all devices (CUDA only); MoCo's is each device's own, of shuffled keys."""
    temperature: float = 0.2
    """Temperature of the InfoNCE loss; 0.07 in v1."""
    queue_size: int = 65536
    """Keys of earlier batches that are the negatives; at least those of one forward pass of all devices."""
    key_momentum: float = 0.999
    """Momentum m of the key encoder: m x its own parameters + (1 - m) x the query encoder's, every step."""
    bn_splits: int = 1
    """Parts of a device's batch that BatchNorm sees apart, as that many devices would; 8 on CIFAR-10."""
    symmetric: bool = False
    """Add the loss of the second view against the keys of the first."""
    projection_layers: int = 2
    """Linear layers of the projection head, without BatchNorm; 1 in v1."""
    projection_hidden: int | None = None
    """Width of the head's hidden layers; the backbone's number of features if not given."""
    projection_features: int = 128
    """Width of the embedding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(bn_splits=1, key_momentum=0)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if not self.key_momentum <= 1:
            raise ValueError(f"key_momentum must be at most 1, got {self.key_momentum}")
        if self.batch_size % self.bn_splits:
            raise ValueError(f"bn_splits must divide the batch_size of {self.batch_size}, got {self.bn_splits}")
        if self.bn_splits > 1 and self.sync_batchnorm:
            raise ValueError("sync_batchnorm joins what bn_splits takes apart: use one of them")
        keys = self.batch_size * (2 if self.symmetric else 1)
        if self.queue_size < keys:
            raise ValueError(f"queue_size must be at least the {keys} keys of a forward pass, got {self.queue_size}")


class MoCo(Contrastive):
    """A query finds the key of the same image, made by a slowly following copy of the network, in a queue of keys.

    Images are shuffled before the key encoder and its keys put back in order, across devices and the parts of
    `bn_splits`: a query's and its key's BatchNorm statistics would otherwise come from the same images, and tell which
    key it is.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features).
        config: the run's.

    Raises:
        ValueError: `bn_splits` above 1 with a backbone that has no BatchNorm2d.
    """

    Config = MoCoConfig

    def __init__(self, backbone: nn.Module, config: MoCoConfig) -> None:
        super().__init__(backbone, config)
        if config.bn_splits > 1:
            split_batch_norm(backbone, config.bn_splits)
        width = backbone.num_features
        self.head = ProjectionHead(
            width,
            config.projection_hidden or width,
            config.projection_features,
            layers=config.projection_layers,
            batch_norm=False,
        )
        # Parameters are averaged; the running statistics of BatchNorm are those of the keys.
        self.key_encoder = EMA(nn.Sequential(self.backbone, self.head), config.key_momentum, buffers="ignore")
        self.queue = KeyQueue(config.queue_size, config.projection_features, group="world")
        self.loss = InfoNCELoss(config.temperature)
        self.symmetric = config.symmetric
        self.begun = False

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Two augmentations of `images`, (B, C, image_size, image_size) each, and the order of the shuffle.

        The order is a permutation of the images of all W devices, (W·B,) int64, the same on all of them.
        """
        first, second = super().views(images, generator)
        group = find_group("MoCo", "world", "all")
        ranks = 1 if group is None else dist.get_world_size(group)
        order = torch.randperm(ranks * len(images), generator=generator, device=images.device)
        if group is not None:
            dist.broadcast(order, src=0, group=group)
        return first, second, order

    def embed(self, batch: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The queries of the first view and the keys of the second, (B, D); symmetric: and the other way round."""
        first, second, order = batch
        pairs = [(first, second), (second, first)] if self.symmetric else [(first, second)]
        return tuple(
            z for view, other in pairs for z in (self.head(self.backbone(view)), self.encode_keys(other, order))
        )

    def compare(self, *embeddings: Tensor) -> dict[str, Any]:
        queries, keys = embeddings[::2], [key.detach() for key in embeddings[1::2]]
        loss = sum(self.loss(query, key, self.queue.keys) for query, key in zip(queries, keys))
        if self.training:  # after the losses: no key is its own negative
            self.queue.enqueue(torch.cat(keys))
        return {"loss": loss, "embeddings": queries[0].detach()}

    @torch.no_grad()
    def encode_keys(self, images: Tensor, order: Tensor) -> Tensor:
        """Keys (B, D) of `images`, each computed in the place, and on the device, where `order` puts its image."""
        group = find_group("MoCo", "world", "all")
        rank, count = 0 if group is None else dist.get_rank(group), len(images)
        mine = slice(rank * count, (rank + 1) * count)
        shuffled = _of_all(images, group)[order[mine]]
        return _of_all(self.key_encoder(shuffled), group)[order.argsort()[mine]]

    def on_step(self, step: int, total: int) -> None:
        """Moves the key encoder, before its forward pass; it starts as a copy of the query encoder.

        The ranks are compared in the first step; as their batches are all full, they agree from then on.
        """
        self.queue.check_ranks, self.begun = not self.begun, True
        if step == 0:  # the weights may have been loaded since it was made
            self.key_encoder.module.load_state_dict(nn.Sequential(self.backbone, self.head).state_dict())
        self.key_encoder.update(step)


def _of_all(x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The rows of every rank in order, (W·B, ...)."""
    return x if group is None else gather_all(x, group).flatten(0, 1)
