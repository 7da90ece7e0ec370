"""Masked language modelling: Devlin et al. 2018, BERT (https://arxiv.org/abs/1810.04805)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslfast.config import TextConfig
from sslfast.data import Passages
from sslfast.data.tokenizer import PAD
from sslfast.methods.base import Method, Panel
from sslfast.methods.masking import IGNORE, MaskedWords, check_backbone, mask_tokens
from sslfast.models.text import TextBackbone


@dataclass(frozen=True, kw_only=True)
class MLMConfig(TextConfig):
    """MLM's fields. The paper's: AdamW, 1e-4, weight decay 0.01, 15 % of the tokens."""

    method: ClassVar[str] = "mlm"

    mask_ratio: float = 0.15
    """Share of a passage's tokens to guess; of these 80 % are masked, 10 % replaced, 10 % kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_ratio <= 1:
            raise ValueError(f"mask_ratio must be above 0 and at most 1, got {self.mask_ratio}")


class MLM(Method):
    """Some words are hidden, and the network guesses them from all the others.

    Args:
        backbone: a BERT.
        config: the run's.

    Raises:
        ValueError: the backbone is no bidirectional text model.
    """

    Config = MLMConfig

    def __init__(self, backbone: TextBackbone, config: MLMConfig) -> None:
        super().__init__()
        check_backbone(backbone, "mlm", causal=False)
        self.backbone = backbone
        self.words = MaskedWords(backbone)
        self.ratio = config.mask_ratio

    def views(self, source: Passages, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The passages with words hidden (B, L), where these are (B, K), and what they were (B, K)."""
        vocabulary = self.backbone.vocabulary
        return mask_tokens(source.joined(), vocabulary=vocabulary, ratio=self.ratio, generator=generator)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, Any]:
        """The head is computed at the hidden words only."""
        tokens, positions, targets = batch
        hidden = self.backbone.hidden(tokens)  # (B, L, F)
        scores = self.words(hidden, positions, targets, self.backbone.embeddings)
        return {**scores, "embeddings": hidden[:, 1].detach()}

    def exported_head(self) -> nn.Module:
        return self.words.head

    def illustrate(self, source: Passages, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """Each passage's words, with a guess at those that were hidden."""
        tokens, positions, targets = self.views(source, generator)
        guesses = self.words.guesses(self.backbone.hidden(tokens), positions, self.backbone.embeddings).argmax(dim=2)
        rows = []
        for row, original in enumerate(source.joined()):
            asked = zip(positions[row].tolist(), guesses[row].tolist(), targets[row].tolist())
            guessed = {at: guess for at, guess, target in asked if target != IGNORE}
            rows.append(
                [
                    word_panel(source.vocabulary, token, guessed.get(at))
                    for at, token in enumerate(original.tolist())
                    if token != PAD
                ]
            )
        return rows


def word_panel(vocabulary: tuple[str, ...], token: int, guess: int | None) -> Panel:
    """A word, with the network's guess at it if it was asked for one."""
    if guess is None:
        return Panel(vocabulary[token], "")
    return Panel(vocabulary[token], vocabulary[guess], "hit" if guess == token else "miss")
