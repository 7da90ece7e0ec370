"""Rotation: Gidaris et al. 2018, Unsupervised Representation Learning by Predicting Image Rotations
(https://arxiv.org/abs/1803.07728)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.augment import Images, ViewSampler
from sslfast.config import ImageConfig
from sslfast.data import normalization_of
from sslfast.methods.base import Method, Panel

TURNS = 4  # of 90° counterclockwise: 0 to 3


@dataclass(frozen=True, kw_only=True)
class RotationConfig(ImageConfig):
    """Rotation's fields. A forward pass sees four times the images of its batch."""

    method: ClassVar[str] = "rotation"

    preset: str = "mae"
    """Augmentation before the turn: mae is crop and flip, as published; see show-views for the others."""


class Rotation(Method):
    """By how many quarters a picture was turned, asked of all four turns of every image.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features).
        config: the run's.
    """

    Config = RotationConfig

    def __init__(self, backbone: nn.Module, config: RotationConfig) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.num_features, TURNS)
        self.sampler = ViewSampler(config.preset, config.image_size, strength=config.strength)
        self.mean, self.std = normalization_of(config)

    def views(self, images: Images, generator: torch.Generator | None = None) -> tuple[Tensor]:
        """One augmentation of each image in all its turns, (4, B, C, image_size, image_size), normalised."""
        view = self.sampler.view(images, generator=generator, mean=self.mean, std=self.std)
        return (torch.stack([view.rot90(turn, dims=(2, 3)) for turn in range(TURNS)]),)

    def forward(self, batch: tuple[Tensor]) -> dict[str, Any]:
        """Cross-entropy over the four turns; `embeddings` are the features of the upright pictures."""
        (turned,) = batch
        features, logits = self._predict(turned)  # (4, B, F), (4, B, 4)
        turn = torch.arange(TURNS, device=logits.device)[:, None].expand(logits.shape[:2])
        return {
            "loss": F.cross_entropy(logits.flatten(0, 1), turn.flatten()),
            "accuracy": (logits.argmax(dim=2) == turn).float().mean(),
            "embeddings": features[0].detach(),
        }

    def illustrate(self, source: Tensor, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """A row an image: its four turns, and what the network takes each for."""
        (turned,) = self.views(source, generator)
        guesses = self._predict(turned)[1].argmax(dim=2)  # (4, B)
        column = (-1, 1, 1)
        pictures = turned * turned.new_tensor(self.std).view(column) + turned.new_tensor(self.mean).view(column)
        return [
            [
                Panel(
                    picture.clamp(0, 1),
                    f"turned by {90 * turn}°, guessed {90 * guess}°",
                    "hit" if guess == turn else "miss",
                )
                for turn, (picture, guess) in enumerate(zip(row, guessed))
            ]
            for row, guessed in zip(pictures.transpose(0, 1), guesses.T.tolist())
        ]

    def _predict(self, turned: Tensor) -> tuple[Tensor, Tensor]:
        """Features (4, B, F) and logits (4, B, 4), from one forward pass, so that BatchNorm sees all turns together."""
        features = self.backbone(turned.flatten(0, 1))
        logits = self.head(features).float()
        return features.unflatten(0, turned.shape[:2]), logits.unflatten(0, turned.shape[:2])
