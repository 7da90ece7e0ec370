"""A text small enough to train on in a test, and the configurations to do so."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from sslfast.config import TextConfig
from sslfast.data import Passages
from sslfast.methods import METHODS, Method
from sslfast.models.text import TextBackbone, build_text_backbone

NOUNS = {
    "Ships": "ship sail harbour captain sea",
    "Bread": "flour oven dough crust baker",
    "Stars": "sky night orbit telescope comet",
}
TINY = {
    "vocabulary": 120, "length": 16, "epochs": 2, "batch_size": 8, "warmup_epochs": 0.5, "learning_rate": 3e-3,
    "log_every": 2, "knn_every": 0, "accelerator": "cpu",
}  # fmt: skip


def write_text(path: Path, words: int = 200) -> str:
    """Three documents with titles, whose words follow each other in a fixed order; returns `text:FILE`."""
    parts = []
    for title, nouns in NOUNS.items():
        names = nouns.split()
        sentence = [f"the {names[k % 5]} of {names[(k * k + 1) % 5]} was near ." for k in range(words // 6)]
        parts.append(f" = {title} = \n\n" + "\n".join(sentence))
    path.write_text("\n\n".join(parts), encoding="utf-8")
    return f"text:{path}"


def tiny_config(method: str, data: str, **changes: Any) -> TextConfig:
    return METHODS[method].Config(**{**TINY, "data": data, **changes})


def random_passages(count: int = 8, size: int = 6, vocabulary: int = 50, documents: int = 3) -> Passages:
    """Segments of 1 to `size` tokens."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(5, vocabulary, (count, 2, size), generator=generator)
    lengths = torch.randint(1, size + 1, (count, 2, 1), generator=generator)
    tokens = tokens.masked_fill(torch.arange(size) >= lengths, 0)
    return Passages(tokens, torch.arange(count) % documents, tuple(f"word{k}" for k in range(vocabulary)))


def tiny_backbone(name: str = "bert-tiny", vocabulary: int = 50, length: int = 15) -> TextBackbone:
    torch.manual_seed(0)
    return build_text_backbone(name, vocabulary=vocabulary, length=length)


def overfit(method: Method, batch: tuple[torch.Tensor, ...], steps: int = 40) -> dict[str, Any]:
    """What a method says of a batch that it has been trained on alone."""
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-3)
    for _ in range(steps):
        method(batch)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return method.eval()(batch)


def build(method: str, backbone: TextBackbone | None = None, **changes: Any) -> Method:
    cls = METHODS[method]
    default = cls.Config()
    return cls(backbone or tiny_backbone(default.backbone), dataclasses.replace(default, **changes))
