"""BERT's masked words: which are hidden from the network, and the loss of its guesses."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.data.tokenizer import MASK
from sslfast.models.text import TextBackbone, WordHead

IGNORE = -100
TO_MASK, TO_RANDOM = 0.8, 0.1  # the rest stays as it is


def mask_tokens(
    tokens: Tensor, *, vocabulary: int, ratio: float = 0.15, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose a share of each row's tokens, and hide them as BERT does.

    Of those chosen, 80 % become [MASK], 10 % any other token of the vocabulary or the same, 10 % stay. Special tokens
    and padding are never chosen; of all others in a row, `ratio` rounded, but at least one. (Devlin et al. 2018,
    https://arxiv.org/abs/1810.04805, appendix A.1.)

    Args:
        tokens: (B, L) int64, with at least three special tokens a row.
        vocabulary: tokens there are; random ones are drawn from 5 to `vocabulary` - 1.
        ratio: share of the tokens to choose, in (0, 1].
        generator: on the device of `tokens`.

    Returns:
        corrupted (B, L); positions (B, K) of the chosen tokens, K as many as a row can have; targets (B, K), the tokens
        that were there, or IGNORE in rows that have fewer.
    """
    rows, length = tokens.shape
    options = {"generator": generator, "device": tokens.device}
    candidates = tokens > MASK
    wanted = (candidates.sum(dim=1) * ratio).round().clamp(min=1)  # (B,)
    most = max(1, round((length - 3) * ratio))
    noise = torch.rand(rows, length, dtype=torch.float32, **options).masked_fill(~candidates, 2)
    positions = noise.argsort(dim=1)[:, :most]  # (B, K)
    original = tokens.gather(1, positions)
    chosen = (torch.arange(most, device=tokens.device) < wanted[:, None]) & candidates.gather(1, positions)
    roll = torch.rand(rows, most, dtype=torch.float32, **options)
    words = torch.randint(MASK + 1, vocabulary, (rows, most), **options)
    replaced = original.where(roll >= TO_MASK + TO_RANDOM, words).where(roll >= TO_MASK, MASK)
    corrupted = tokens.scatter(1, positions, replaced.where(chosen, original))
    return corrupted, positions, original.where(chosen, IGNORE)


class MaskedWords(nn.Module):
    """The head that guesses hidden words, at their positions only, and its loss."""

    def __init__(self, backbone: TextBackbone) -> None:
        super().__init__()
        self.head = WordHead(backbone.num_features, backbone.vocabulary)

    def guesses(self, hidden: Tensor, positions: Tensor, embeddings: Tensor) -> Tensor:
        """(B, L, F) hidden states at `positions` (B, K) -> (B, K, vocabulary) logits."""
        return self.head(hidden.gather(1, positions.unsqueeze(2).expand(-1, -1, hidden.shape[2])), embeddings)

    def forward(self, hidden: Tensor, positions: Tensor, targets: Tensor, embeddings: Tensor) -> dict[str, Tensor]:
        """The mean cross-entropy over the hidden words, its exponential, and the share of words guessed right."""
        return word_scores(self.guesses(hidden, positions, embeddings), targets)


def word_scores(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """ "loss", "accuracy" and "perplexity" of (…, vocabulary) logits where `targets` (…) are not IGNORE."""
    loss = F.cross_entropy(logits.float().flatten(0, -2), targets.flatten(), ignore_index=IGNORE)
    right = (logits.argmax(dim=-1) == targets).sum() / (targets != IGNORE).sum()
    return {"loss": loss, "accuracy": right, "perplexity": loss.detach().exp()}


def check_backbone(backbone: nn.Module, method: str, *, causal: bool) -> None:
    """Refuse a network that does not fit.

    Raises:
        ValueError: it is no text model, or sees what it must not see, or does not see what it must.
    """
    if not isinstance(backbone, TextBackbone) or backbone.causal != causal:
        wanted = "gpt2-tiny, gpt2-mini or gpt2" if causal else "bert-tiny or a larger BERT"
        found = type(getattr(backbone, "model", backbone)).__name__
        raise ValueError(f"backbone of {method} must be {wanted}, got {found}")
