"""Causal language modelling: Radford et al. 2019, GPT-2 (Language Models are Unsupervised Multitask Learners)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sslfast.config import TextConfig
from sslfast.data import Passages
from sslfast.data.tokenizer import PAD
from sslfast.methods.base import Method, Panel
from sslfast.methods.masking import IGNORE, check_backbone, word_scores
from sslfast.methods.mlm import word_panel
from sslfast.models.text import TextBackbone


@dataclass(frozen=True, kw_only=True)
class CLMConfig(TextConfig):
    """CLM's fields."""

    method: ClassVar[str] = "clm"

    backbone: str = "gpt2-tiny"
    """Network to train: gpt2-tiny, gpt2-mini or gpt2."""


class CLM(Method):
    """The network guesses every word from those before it.

    Args:
        backbone: a GPT-2.
        config: the run's.

    Raises:
        ValueError: the backbone is no causal text model.
    """

    Config = CLMConfig

    def __init__(self, backbone: TextBackbone, config: CLMConfig) -> None:
        super().__init__()
        check_backbone(backbone, "clm", causal=True)
        self.backbone = backbone

    def views(self, source: Passages, generator: torch.Generator | None = None) -> tuple[Tensor]:
        """The passages as running text, (B, L); nothing is random."""
        return (source.joined(separated=False),)

    def forward(self, batch: tuple[Tensor]) -> dict[str, Any]:
        """Position t is asked for token t + 1; the head is the token embeddings, as in GPT-2."""
        (tokens,) = batch
        hidden = self.backbone.hidden(tokens)  # (B, L, F)
        following = tokens[:, 1:]
        targets = following.where(following != PAD, IGNORE)
        scores = word_scores(self._logits(hidden[:, :-1]), targets)
        return {**scores, "embeddings": hidden[:, 1].detach()}

    def illustrate(self, source: Passages, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """Each passage's words, with the guess at each from those before it."""
        (tokens,) = self.views(source)
        guesses = self._logits(self.backbone.hidden(tokens)[:, :-1]).argmax(dim=2)
        return [
            [word_panel(source.vocabulary, *pair) for pair in zip(row[1:].tolist(), guess.tolist()) if pair[0] != PAD]
            for row, guess in zip(tokens, guesses)
        ]

    def _logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.backbone.embeddings)
