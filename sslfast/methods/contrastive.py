"""What methods that compare the images of a batch with each other have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from sslfast.config import ImageConfig
from sslfast.methods.two_views import TwoViews


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(ImageConfig):
    """Adds what `accumulate` means where a loss has negatives."""

    accumulate_mode: Literal["contrast", "average"] = "contrast"
    """Of the accumulated passes, contrast: one loss over the embeddings of all, whose gradients a second pass takes
    back; average: the mean of a loss a pass, each with its own images. BatchNorm sees one pass in both."""


class Contrastive(TwoViews):
    """A method in two steps: embeddings, which a part of a batch has by itself, and a loss over all of them."""

    @abstractmethod
    def embed(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The networks' outputs of one batch of `views`: rows an image, (B, ...), and 0-dim what is learned beside."""

    @abstractmethod
    def compare(self, *embeddings: Tensor) -> dict[str, Any]:
        """What `forward` returns, of the outputs of `embed`, of one batch or the rows of several together."""

    def forward(self, batch: tuple[Tensor, ...]) -> dict[str, Any]:
        return self.compare(*self.embed(batch))
