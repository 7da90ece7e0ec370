"""Next sentence prediction: Devlin et al. 2018, BERT (https://arxiv.org/abs/1810.04805)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sslfast.data import Passages
from sslfast.methods.pairs import PairConfig, PairMethod, half


@dataclass(frozen=True, kw_only=True)
class NSPConfig(PairConfig):
    """NSP's fields."""

    method: ClassVar[str] = "nsp"


class NSP(PairMethod):
    """A segment and the one that follows it, or, in half of the pairs, the second segment of another document."""

    Config = NSPConfig
    answers = ("from elsewhere", "next")

    def pair(self, source: Passages, generator: torch.Generator | None) -> tuple[Passages, Tensor]:
        """A passage keeps its own second segment if the whole batch is of one document."""
        count, device = len(source), source.tokens.device
        other = source.document[:, None] != source.document  # (B, B)
        noise = torch.rand(count, count, generator=generator, device=device)
        partner = noise.masked_fill(~other, -1).argmax(dim=1)
        strange = half(count, generator, device) & other.any(dim=1)
        second = source.tokens[partner, 1].where(strange[:, None], source.tokens[:, 1])
        tokens = torch.stack([source.tokens[:, 0], second], dim=1)
        return Passages(tokens, source.document, source.vocabulary), (~strange).long()
