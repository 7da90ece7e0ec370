"""Passages of text: two consecutive segments of tokens each, with the document they are from as their label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sslfast.data.documents import read_documents, split_documents
from sslfast.data.examples import ExampleSet
from sslfast.data.tokenizer import CLS, PAD, SEP, words


@dataclass(frozen=True)
class Passages:
    """Some passages, each of two segments that follow each other in its document.

    Args:
        tokens: (B, 2, S) int64, padded behind; every segment has a token.
        document: (B,) int64, which document a passage is from.
        vocabulary: what each token is to a reader.
    """

    tokens: Tensor
    document: Tensor
    vocabulary: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: Tensor | slice) -> Passages:
        return Passages(self.tokens[index], self.document[index], self.vocabulary)

    def to(self, device: torch.device | str) -> Passages:
        return Passages(self.tokens.to(device), self.document.to(device), self.vocabulary)

    def joined(self, *, separated: bool = True) -> Tensor:
        """Each passage as one row: [CLS] first [SEP] second [SEP], padded behind.

        Args:
            separated: with the [SEP] in the middle.

        Returns:
            (B, 2 S + 3) int64, or (B, 2 S + 2) if not `separated`.
        """
        first, second = self.tokens.unbind(1)  # (B, S)
        cls, sep = (self.tokens.new_full((len(self), 1), token) for token in (CLS, SEP))
        row = torch.cat([cls, first, *([sep] if separated else []), second, sep], dim=1)
        return row.gather(1, (row == PAD).int().argsort(dim=1, stable=True))  # padding goes behind


class TokenSet(ExampleSet):
    """Passages in memory; a label is the index of the document.

    Args:
        passages: N of them, on the CPU.
        classes: names of the documents.
    """

    def __init__(self, passages: Passages, classes: Sequence[str]) -> None:
        super().__init__(passages.document, classes)
        if passages.tokens.dtype != torch.int64 or passages.tokens.dim() != 3 or passages.tokens.shape[1] != 2:
            tokens = passages.tokens
            raise ValueError(f"tokens must be (N, 2, S) int64, got {tuple(tokens.shape)} of {tokens.dtype}")
        self.passages = passages
        self._copies: dict[torch.device, Passages] = {}

    def on(self, device: torch.device | str) -> Passages:
        """The passages on a device, copied there once."""
        device = torch.device(device)
        if device not in self._copies:
            self._copies[device] = self.passages.to(device)
        return self._copies[device]


def split_texts(name: str, split: str, *, length: int) -> tuple[list[tuple[str, str]], list[str]]:
    """The stretches of text of a split, each with the name of its document; and the names of all documents.

    Held out are blocks of about half as many words as a passage has tokens, see `split_documents`.

    Raises:
        ValueError: `split` is not train or test, or no document is long enough to have a test passage.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    documents = read_documents(name)
    block = max(2, length // 2)
    texts = list(split_documents(documents, split, block=block))
    if not texts:
        raise ValueError(f"{name} has no document of more than {2 * block} words, so no passage can be held out")
    return texts, list(documents)


def load_text(name: str, split: str, *, tokenizer: Any, length: int) -> TokenSet:
    """A split of a text as passages; the same arguments give the same passages in the same order.

    A stretch of a document is cut into passages of equal length, as few as `length` allows, and each passage into two
    halves. Nothing is lost but a stretch of a single token, which cannot be halved.

    Args:
        name: docs or text:FILE, see `read_documents`.
        split: train or test.
        tokenizer: a `tokenizers.Tokenizer`.
        length: tokens of a passage at most, with three special ones.

    Raises:
        ValueError, FileNotFoundError, IsADirectoryError: the text or the split cannot be had, see `read_documents` and
            `split_texts`.
    """
    texts, classes = split_texts(name, split, length=length)
    size = (length - 3) // 2
    tokenizer.encode_special_tokens = True  # a "[SEP]" that somebody wrote is text
    encoded = tokenizer.encode_batch([text for _, text in texts], add_special_tokens=False)
    number = {document: k for k, document in enumerate(classes)}
    halves: list[list[int]] = []
    documents: list[int] = []
    for (document, _), encoding in zip(texts, encoded):
        ids = encoding.ids
        passages = math.ceil(len(ids) / (2 * size)) if len(ids) > 1 else 0
        bounds = [len(ids) * k // max(1, 2 * passages) for k in range(2 * passages + 1)]
        halves += [ids[start:end] for start, end in pairwise(bounds)]
        documents += [number[document]] * passages
    if not halves:
        raise ValueError(f"{name} has too few words for a {split} passage")
    padded = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(half) for half in halves], batch_first=True, padding_value=PAD
    )
    tokens = torch.full((len(halves), size), PAD)
    tokens[:, : padded.shape[1]] = padded
    return TokenSet(Passages(tokens.unflatten(0, (-1, 2)), torch.tensor(documents), words(tokenizer)), classes)
