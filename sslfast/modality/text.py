"""Text."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast._extras import require
from sslfast._files import write_text
from sslfast.config import PretrainConfig
from sslfast.data import Passages, TokenSet, load_text
from sslfast.data.text import split_texts
from sslfast.data.tokenizer import MASK, read_tokenizer, train_tokenizer
from sslfast.modality.base import Modality
from sslfast.models.text import GPT2, build_text_backbone, export_text, load_text_backbone, without_head

TOKENIZER = "tokenizer.json"


class Text(Modality):
    """Passages of two segments, which backbones take joined to one row of tokens."""

    unit = "passages"

    def __init__(self, config: PretrainConfig, folder: Path | None = None) -> None:
        super().__init__(config, folder)
        require("transformers", extra="text")  # said at once, and not imported between a seed and its use

    @cached_property
    def tokenizer(self) -> Any:
        """That of the run's folder; for a new run one learned from the training split."""
        if self.folder is not None:
            return read_tokenizer(self.folder / TOKENIZER)
        config = self.config
        texts, _ = split_texts(config.data, "train", length=config.length)
        causal = config.backbone in GPT2
        return train_tokenizer([text for _, text in texts], config.tokenizer, config.vocabulary, causal=causal)

    def load(
        self,
        split: str,
        *,
        data: str | None = None,
        root: Path | None = None,
        download: bool = False,
        skip_corrupt: bool = False,
    ) -> TokenSet:
        given = {"data_root": root is not None, "download": download, "skip_corrupt": skip_corrupt}
        if unfit := [name for name, is_given in given.items() if is_given]:
            raise ValueError(f"{', '.join(unfit)}: images have this, {data or self.config.data} is text")
        return load_text(data or self.config.data, split, tokenizer=self.tokenizer, length=self.config.length)

    def save(self, folder: Path) -> None:
        write_text(folder / TOKENIZER, self.tokenizer.to_str(pretty=True))

    def build_backbone(self) -> nn.Module:
        size = self.tokenizer.get_vocab_size()
        return build_text_backbone(self.config.backbone, vocabulary=size, length=self.config.length)

    def inputs(self, source: Passages) -> Tensor:
        return source.joined(separated=self.config.backbone not in GPT2)

    def baselines(self) -> dict[str, nn.Module]:
        return {"bag_of_words": BagOfWords(self.tokenizer.get_vocab_size())}

    def describe(self) -> dict[str, Any]:
        return {"length": self.config.length, "vocabulary": self.tokenizer.get_vocab_size()}

    def read_weights(self, path: Path) -> dict[str, Tensor]:
        beside = path.parent / TOKENIZER
        if beside.is_file() and read_tokenizer(beside).get_vocab() != self.tokenizer.get_vocab():
            raise ValueError(f"{path} was trained with other tokens than those of {self.config.data}: see {beside}")
        return {f"model.{name}": weight for name, weight in without_head(super().read_weights(path)).items()}

    def export(self, backbone: nn.Module, folder: Path, *, head: nn.Module | None = None) -> None:
        export_text(backbone, folder, tokenizer=self.tokenizer, length=self.config.length, head=head)

    def load_exported(self, folder: Path) -> nn.Module:
        return load_text_backbone(folder)


class BagOfWords(nn.Module):
    """The network that learned nothing: rows of tokens (B, L) -> log(1 + how often each occurs), (B, vocabulary).

    Special tokens do not count, and every row has unit length.
    """

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, tokens: Tensor) -> Tensor:
        counts = torch.zeros(len(tokens), self.vocabulary, dtype=torch.float32, device=tokens.device)
        counts.scatter_add_(1, tokens, (tokens > MASK).float())
        return F.normalize(counts.log1p(), dim=1)
