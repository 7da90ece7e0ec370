"""What the training loop asks of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from sslfast.config import PretrainConfig


class Panel(NamedTuple):
    """A picture or a word of an illustration.

    Args:
        content: (1 or 3, H, W), uint8 or float in [0, 1], not normalised; or a word.
        caption: what it is, or what the network guessed.
        mark: "query" for what was asked, "hit" or "miss" for a guess that is right or wrong, else "".
    """

    content: Tensor | str
    caption: str
    mark: str = ""


class Method(nn.Module, ABC):
    """Networks, and the loss they are trained with; it knows nothing about devices, loops or files.

    A subclass has its own `Config`, a `PretrainConfig` with the method's fields, sets `self.backbone`, and writes
    `views` and `forward`. Everything a run must remember (queues, momentum encoders) is a parameter or a buffer.
    """

    Config: ClassVar[type[PretrainConfig]] = PretrainConfig
    """Its configuration; `Config.method` is its name."""
    constant_lr: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the names of parameters that keep the peak learning rate while the others follow the schedule."""
    pairs: ClassVar[bool] = False
    """Whether it learns from two views of every image by `ImageConfig.preset`, which the report then shows."""
    collapse_std: ClassVar[float] = 0.1
    """The collapse alarm goes off below this standard deviation of the normalised embeddings (1 is healthy)."""
    backbone: nn.Module
    """What is exported and evaluated: (B, C, H, W) -> (B, F)."""

    @abstractmethod
    def views(self, source: Any, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """What the networks get to see of a batch as the data set has it: images are uint8 (B, C, H, W) on the device.

        All of a method's randomness that is not dropout is drawn here, from `generator`.
        """

    @abstractmethod
    def forward(self, batch: tuple[Tensor, ...]) -> dict[str, Any]:
        """The loss of one batch of `views`.

        Returns:
            "loss", a scalar to differentiate; "embeddings", (B, D) without gradient, which the collapse alarm watches;
            any other scalar tensor is logged under its key, e.g. "accuracy" of a pretext task.
        """

    def illustrate(self, source: Any, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """What the method asks of its networks and what they answer, a row an example of `source`; empty if nothing.

        `source` is as in `views`. Called in eval mode without gradient; the report shows it.
        """
        return []

    def exported_head(self) -> nn.Module | None:
        """What is exported beside the backbone, as other libraries know it: a head over words."""
        return None

    def on_step(self, step: int, total: int) -> None:
        """Called before the forward passes of optimizer step `step` of `total`, counted from 0.

        Momentum encoders and schedules of the method live here; `step` is exact after a resume.
        """
