"""BYOL: Grill et al. 2020, Bootstrap Your Own Latent (https://arxiv.org/abs/2006.07733)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from sslfast.config import ImageConfig
from sslfast.ema import EMA
from sslfast.losses import NegativeCosineSimilarity
from sslfast.methods.two_views import TwoViews
from sslfast.models import ProjectionHead


@dataclass(frozen=True, kw_only=True)
class BYOLConfig(ImageConfig):
    """BYOL's fields. The paper's: LARS, 0.2 x batch/256, weight decay 1.5e-6, heads 4096-256, momentum from 0.996."""

    method: ClassVar[str] = "byol"

    base_momentum: float = 0.996
    """Momentum of the target network at the first step; it rises to 1 by a cosine."""
    projection_hidden: int = 4096
    """Width of the hidden layer of projector and predictor."""
    projection_features: int = 256
    """Width of the embedding and of its prediction."""
    predictor: bool = True
    """Predict the target's embedding; without it the embeddings collapse, which is what the switch shows."""
    stop_gradient: bool = True
    """Compare with the target network, which gets no gradient; otherwise the trained network is its own target."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(base_momentum=0, projection_hidden=1, projection_features=1)
        if self.base_momentum > 1:
            raise ValueError(f"base_momentum must be at most 1, got {self.base_momentum}")


class BYOL(TwoViews):
    """Of one view, predict what a slowly moving average of the network makes of the other; no negatives.

    Args:
        backbone: (B, C, H, W) -> (B, backbone.num_features).
        config: the run's.
    """

    Config = BYOLConfig

    def __init__(self, backbone: nn.Module, config: BYOLConfig) -> None:
        super().__init__(backbone, config)
        hidden, features = config.projection_hidden, config.projection_features
        self.projector = ProjectionHead(backbone.num_features, hidden, features)
        self.predictor = ProjectionHead(features, hidden, features) if config.predictor else nn.Identity()
        self.target = None
        if config.stop_gradient:
            # Its BatchNorm has statistics of its own; the length of the schedule is known at the first step only.
            schedule = {"schedule": "cosine", "total_steps": 1}
            self.target = EMA(self.online, config.base_momentum, **schedule, buffers="ignore")
        self.similarity = NegativeCosineSimilarity()

    @property
    def online(self) -> nn.Sequential:
        """What the target follows: (B, C, H, W) -> (B, projection_features)."""
        return nn.Sequential(self.backbone, self.projector)

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Any]:
        """The loss of both directions; each view passes alone, so that BatchNorm never sees the two together."""
        z1, z2 = map(self.online, batch)  # (B, D) each
        t1, t2 = (z1, z2) if self.target is None else map(self.target, batch)
        q1, q2 = self.predictor(z1), self.predictor(z2)
        loss = 4 + 2 * (self.similarity(q1, t2) + self.similarity(q2, t1))  # ‖q − t‖² of unit vectors, twice
        return {"loss": loss, "embeddings": z1.detach()}

    def on_step(self, step: int, total: int) -> None:
        """Moves the target towards what the optimizer step before this one has made of the network."""
        if self.target is None:
            return
        self.target.total_steps = total
        if step > 0:
            self.target.update(step - 1)
        else:  # the backbone's weights may have been loaded since the copy was made
            self.target.module.load_state_dict(self.online.state_dict())
