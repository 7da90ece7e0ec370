"""Sentence order prediction: Lan et al. 2019, ALBERT (https://arxiv.org/abs/1909.11942)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sslfast.data import Passages
from sslfast.data.tokenizer import PAD
from sslfast.methods.segment_pairs import PairConfig, PairMethod, half


@dataclass(frozen=True, kw_only=True)
class SOPConfig(PairConfig):
    """SOP's fields."""

    method: ClassVar[str] = "sop"


class SOP(PairMethod):
    """Two consecutive segments, half of the pairs swapped: which came first?"""

    Config = SOPConfig
    answers = ("swapped", "in order")

    def pair(self, source: Passages, generator: torch.Generator | None) -> tuple[Passages, Tensor]:
        """Both segments are as long as the shorter: the halves of a passage are not, and that would tell the order."""
        swapped = half(len(source), generator, source.tokens.device)
        tokens = source.tokens.masked_fill((source.tokens == PAD).any(dim=1, keepdim=True), PAD)
        tokens = tokens.flip(1).where(swapped[:, None, None], tokens)
        return Passages(tokens, source.document, source.vocabulary), (~swapped).long()
