"""What the methods that compare two views of an image have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslfast.augment import Images, ViewSampler
from sslfast.config import ImageConfig
from sslfast.data import normalization_of
from sslfast.methods.base import Method


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
        self.mean, self.std = normalization_of(config)

    def views(self, images: Images, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two independent augmentations of `images`, each (B, C, image_size, image_size), normalised."""
        options = {"generator": generator, "mean": self.mean, "std": self.std}
        first, second = (sampler.view(images, **options) for sampler in self.samplers)
        return first, second
