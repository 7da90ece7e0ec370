"""What the methods that compare two views of an image have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslfast.augment import ViewSampler
from sslfast.config import ImageConfig
from sslfast.data import normalization
from sslfast.methods.base import Method
from sslfast.ops import augment


class TwoViews(Method):
    """A method whose batch is two augmentations of every image.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features).
        config: the run's.
    """

    pairs = True

    def __init__(self, backbone: nn.Module, config: ImageConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.samplers = ViewSampler.pair(config.preset, config.image_size, strength=config.strength)
        self.size = config.image_size
        self.mean, self.std = normalization(config.data)

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two independent augmentations of `images`, each (B, C, image_size, image_size), normalised."""
        first, second = (
            sampler.sample(len(images), images.shape[-2:], generator=generator, device=images.device)
            for sampler in self.samplers
        )
        normalized = {"mean": self.mean, "std": self.std}
        return augment(images, first, self.size, **normalized), augment(images, second, self.size, **normalized)
