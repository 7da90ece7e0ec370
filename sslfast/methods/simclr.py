"""SimCLR: Chen et al. 2020, A Simple Framework for Contrastive Learning (https://arxiv.org/abs/2002.05709)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslfast.losses import NTXentLoss
from sslfast.methods.contrastive import Contrastive, ContrastiveConfig
from sslfast.models import ProjectionHead


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig(ContrastiveConfig):
    """SimCLR's fields. The paper's: LARS, 0.3 x batch/256, weight decay 1e-6, temperature 0.1 (0.5 on CIFAR-10)."""

    method: ClassVar[str] = "simclr"

    temperature: float = 0.5
    """Temperature of the NT-Xent loss."""
    learnable_temperature: bool = False
    """Train the temperature too, from that value on."""
    projection_layers: int = 2
    """Linear layers of the projection head."""
    projection_hidden: int | None = None
    """Width of the head's hidden layers; the backbone's number of features if not given."""
    projection_features: int = 128
    """Width of the embedding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")


class SimCLR(Contrastive):
    """Two views of every image, drawn towards each other and away from all other images of the batch.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features).
        config: the run's.
    """

    Config = SimCLRConfig

    def __init__(self, backbone: nn.Module, config: SimCLRConfig) -> None:
        super().__init__(backbone, config)
        width = backbone.num_features
        self.head = ProjectionHead(
            width,
            config.projection_hidden or width,
            config.projection_features,
            layers=config.projection_layers,
        )
        self.loss = NTXentLoss(config.temperature, learnable=config.learnable_temperature, group="world")
        self.begun = False

    def embed(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Both views in one forward pass, so that BatchNorm sees them together; and a learned temperature."""
        z1, z2 = self.head(self.backbone(torch.cat(batch))).chunk(2)  # (B, D) each
        return (z1, z2) if self.loss.log_temperature is None else (z1, z2, self.loss.temperature)

    def compare(self, z1: Tensor, z2: Tensor, temperature: Tensor | None = None) -> dict[str, Any]:
        output = {"loss": self.loss(z1, z2, temperature), "embeddings": z1.detach()}
        if temperature is not None:
            output["temperature"] = temperature.detach()
        return output

    def on_step(self, step: int, total: int) -> None:
        """The ranks are compared in the first step; as their batches are all full, they agree from then on."""
        self.loss.check_ranks, self.begun = not self.begun, True
