"""What sentence order and next sentence prediction share: a question about two segments, with masked words besides."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.config import TextConfig
from sslfast.data import Passages
from sslfast.data.tokenizer import PAD
from sslfast.methods.base import Method, Panel
from sslfast.methods.masking import MaskedWords, check_backbone, mask_tokens
from sslfast.models.text import TextBackbone


@dataclass(frozen=True, kw_only=True)
class PairConfig(TextConfig):
    """Fields of the methods that ask about two segments."""

    mlm_weight: float = 0.0
    """Weight of the loss of guessing masked words besides; 0 masks none."""
    mask_ratio: float = 0.15
    """Share of a passage's tokens to guess then; of these 80 % are masked, 10 % replaced, 10 % kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(mlm_weight=0)
        if not 0 < self.mask_ratio <= 1:
            raise ValueError(f"mask_ratio must be above 0 and at most 1, got {self.mask_ratio}")


class PairMethod(Method):
    """Two segments of which half the batch is changed; the network tells whether they are as they were written.

    Args:
        backbone: a BERT.
        config: the run's.

    Raises:
        ValueError: the backbone is no bidirectional text model.
    """

    Config = PairConfig
    answers: ClassVar[tuple[str, str]]
    """What the labels 0 and 1 mean."""

    def __init__(self, backbone: TextBackbone, config: PairConfig) -> None:
        super().__init__()
        check_backbone(backbone, config.method, causal=False)
        self.backbone = backbone
        width = backbone.num_features
        self.head = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))  # BERT's pooler, classifier
        self.weight, self.ratio = config.mlm_weight, config.mask_ratio
        if self.weight:
            self.words = MaskedWords(backbone)

    @abstractmethod
    def pair(self, source: Passages, generator: torch.Generator | None) -> tuple[Passages, Tensor]:
        """The passages to show, and their labels (B,) int64: 1 for those left as they were."""

    def views(self, source: Passages, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """The pairs (B, L) and their labels (B,); with masked words also where these are and what they were, (B, K)."""
        pairs, labels = self.pair(source, generator)
        tokens = pairs.joined()
        if not self.weight:
            return tokens, labels
        options = {"vocabulary": self.backbone.vocabulary, "ratio": self.ratio, "generator": generator}
        tokens, positions, targets = mask_tokens(tokens, **options)
        return tokens, labels, positions, targets

    def forward(self, batch: tuple[Tensor, ...]) -> dict[str, Any]:
        """The question is answered from the state of [CLS]; "accuracy" is that of the answers."""
        tokens, labels, *masked = batch
        hidden = self.backbone.hidden(tokens)  # (B, L, F)
        logits = self.head(hidden[:, 0]).float()
        loss = F.cross_entropy(logits, labels)
        output = {"accuracy": (logits.argmax(dim=1) == labels).float().mean()}
        if masked:
            words = self.words(hidden, *masked, self.backbone.embeddings)
            output |= {"pair_loss": loss.detach(), "mlm_loss": words["loss"].detach()}
            output |= {"mlm_accuracy": words["accuracy"], "perplexity": words["perplexity"]}
            loss = loss + self.weight * words["loss"]
        return {"loss": loss, **output, "embeddings": hidden[:, 1].detach()}

    def exported_head(self) -> nn.Module | None:
        return self.words.head if self.weight else None

    def illustrate(self, source: Passages, generator: torch.Generator | None = None) -> list[list[Panel]]:
        """Each pair's two segments as they were shown, and what the network said of them."""
        pairs, labels = self.pair(source, generator)
        answers = self.head(self.backbone.hidden(pairs.joined())[:, 0]).argmax(dim=1)
        rows = []
        for segments, label, answer in zip(pairs.tokens.tolist(), labels.tolist(), answers.tolist()):
            first, second = (
                " ".join(source.vocabulary[token] for token in segment if token != PAD).replace(" ##", "")
                for segment in segments
            )
            verdict = f"{self.answers[label]}; guessed {self.answers[answer]}"
            mark = "hit" if label == answer else "miss"
            rows.append([Panel(first, "first segment", "query"), Panel(second, verdict, mark)])
        return rows


def half(count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """(count,) bool, half of them (rounded down) true."""
    return torch.rand(count, generator=generator, dtype=torch.float32, device=device).argsort() < count // 2
