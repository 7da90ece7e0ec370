"""Next sentence prediction: Devlin et al. 2018, BERT (https://arxiv.org/abs/1810.04805)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sslfast.data import Passages
from sslfast.data.tokenizer import PAD
from sslfast.methods.segment_pairs import PairConfig, PairMethod, half


@dataclass(frozen=True, kw_only=True)
class NSPConfig(PairConfig):
    """NSP's fields."""

    method: ClassVar[str] = "nsp"


class NSP(PairMethod):
    """A segment and the one that follows it, or, in half of the pairs, the second segment of another document."""

    Config = NSPConfig
    answers = ("from elsewhere", "next")

    def pair(self, source: Passages, generator: torch.Generator | None) -> tuple[Passages, Tensor]:
        """A passage keeps its own second segment if the whole batch is of one document.

        Whichever second segment is shown, it is cut to the shorter of its own and the other: the halves of a passage
        are about as long, and that would tell which belong together.
        """
        count, device = len(source), source.tokens.device
        other = source.document[:, None] != source.document  # (B, B)
        noise = torch.rand(count, count, generator=generator, dtype=torch.float32, device=device)
        partner = noise.masked_fill(~other, -1).fill_diagonal_(-0.5).argmax(dim=1)  # itself if there is no other
        strange = half(count, generator, device) & other.any(dim=1)
        first, own = source.tokens.unbind(1)  # (B, S)
        foreign = own[partner]
        second = foreign.where(strange[:, None], own).masked_fill((own == PAD) | (foreign == PAD), PAD)
        return Passages(torch.stack([first, second], dim=1), source.document, source.vocabulary), (~strange).long()
