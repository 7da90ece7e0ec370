"""SimSiam: Chen & He 2020, Exploring Simple Siamese Representation Learning (https://arxiv.org/abs/2011.10566)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from sslfast.config import ImageConfig
from sslfast.losses import NegativeCosineSimilarity
from sslfast.methods.two_views import TwoViews
from sslfast.models import ProjectionHead


@dataclass(frozen=True, kw_only=True)
class SimSiamConfig(ImageConfig):
    """SimSiam's fields. The paper's: SGD, 0.05 x batch/256, weight decay 1e-4, no warm-up, 2048 features."""

    method: ClassVar[str] = "simsiam"

    projection_layers: int = 3
    """Linear layers of the projector, each followed by BatchNorm; the paper has 2 on CIFAR-10."""
    projection_features: int = 2048
    """Width of the projector's layers and of the embedding; the predictor's hidden layer has a quarter of it."""
    predictor: bool = True
    """Predict the other view's embedding; without it the embeddings collapse, which is what the switch shows."""
    stop_gradient: bool = True
    """No gradient to what is predicted; with one the embeddings collapse, which is what the switch shows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(projection_layers=1, projection_features=4)


class SimSiam(TwoViews):
    """Of one view, predict the embedding of the other, which gets no gradient; no negatives, no second network.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features).
        config: the run's.
    """

    Config = SimSiamConfig
    constant_lr = ("predictor.",)
    # The last BatchNorm centres the embeddings: where nearly all have collapsed, the few that have not keep it above 0.
    collapse_std = 0.5

    def __init__(self, backbone: nn.Module, config: SimSiamConfig) -> None:
        super().__init__(backbone, config)
        width = config.projection_features
        self.projector = ProjectionHead(
            backbone.num_features, width, width, layers=config.projection_layers, output_norm="plain"
        )
        self.predictor = ProjectionHead(width, width // 4, width) if config.predictor else nn.Identity()
        self.stop_gradient = config.stop_gradient
        self.similarity = NegativeCosineSimilarity()

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """The mean loss of both directions; each view passes alone, so that BatchNorm never sees the two together."""
        z1, z2 = (self.projector(self.backbone(view)) for view in batch)  # (B, D) each
        p1, p2 = self.predictor(z1), self.predictor(z2)
        t1, t2 = (z1.detach(), z2.detach()) if self.stop_gradient else (z1, z2)
        loss = (self.similarity(p1, t2) + self.similarity(p2, t1)) / 2
        return {"loss": loss, "embeddings": z1.detach()}
