"""What the training loop asks of a method."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslfast.config import PretrainConfig


class Method(nn.Module):
    """Networks, and the loss they are trained with; it knows nothing about devices, loops or files.

    A subclass has its own `Config`, a `PretrainConfig` with the method's fields, sets `self.backbone`, and writes
    `views` and `forward`. Everything a run must remember (queues, momentum encoders) is a parameter or a buffer.
    """

    Config: ClassVar[type[PretrainConfig]] = PretrainConfig
    """Its configuration; `Config.method` is its name."""
    constant_lr: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names of parameters that keep the peak learning rate while the others follow the schedule."""
    backbone: nn.Module
    """What is exported and evaluated: (B, C, H, W) -> (B, F)."""

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """What the networks get to see of `images`, uint8 (B, C, H, W) on the method's device.

        All of a method's randomness that is not dropout is drawn here, from `generator`.
        """
        raise NotImplementedError

    def forward(self, batch: tuple[Tensor, ...]) -> dict[str, Any]:
        """The loss of one batch of `views`.

        Returns:
            "loss", a scalar to differentiate; "embeddings", (B, D) without gradient, which the collapse alarm watches;
            any other scalar tensor is logged under its key.
        """
        raise NotImplementedError

    def on_step(self, step: int, total: int) -> None:
        """Called before the forward passes of optimizer step `step` of `total`, counted from 0.

        Momentum encoders and schedules of the method live here; `step` is exact after a resume.
        """
