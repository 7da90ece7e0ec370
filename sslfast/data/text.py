"""Passages of text: two consecutive segments of tokens each, with the document they are from as their label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from sslfast.data.documents import read_documents, short, split_documents
from sslfast.data.examples import NO_LABELS, ExampleSet
from sslfast.data.tokenizer import CLS, PAD, SEP, UNK, words

MOST_UNKNOWN = 0.05
WHOLE = f"whole documents are held out for testing, which are too short to be divided; {NO_LABELS}"


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
        classes: names of the documents; none if they are not to be told apart.
    """

    def __init__(self, passages: Passages, classes: Sequence[str]) -> None:
        super().__init__(passages.document if classes else torch.zeros_like(passages.document), classes)
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

    There are no names if whole documents are held out: a network cannot know one of which it has seen nothing.

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
        raise ValueError(
            f"{name} has no document of more than {2 * block} words, nor three documents, so nothing can be held out"
        )
    return texts, [] if short(documents, block=block) else list(documents)


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
        ValueError, FileNotFoundError, IsADirectoryError: the text or the split cannot be had, see `read_documents`,
            `split_texts` and `unknown_share`.
    """
    texts, classes = split_texts(name, split, length=length)
    size = (length - 3) // 2
    tokenizer.encode_special_tokens = True  # a "[SEP]" that somebody wrote is text
    encoded = tokenizer.encode_batch([text for _, text in texts], add_special_tokens=False)
    number = {document: k for k, document in enumerate(dict.fromkeys(document for document, _ in texts))}
    if classes:
        number = {document: k for k, document in enumerate(classes)}
    notes = unknown_share(encoded, name)
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
    found = TokenSet(Passages(tokens.unflatten(0, (-1, 2)), torch.tensor(documents), words(tokenizer)), classes)
    found.notes = (notes,) if classes else (notes, WHOLE)
    return found


def unknown_share(encoded: Sequence[Any], name: str) -> str:
    """How many of the tokens are [UNK], in words.

    Raises:
        ValueError: more than 5 % are.
    """
    total = sum(len(encoding.ids) for encoding in encoded)
    unknown = sum(encoding.ids.count(UNK) for encoding in encoded)
    share = f"{unknown / max(1, total):.2%} of the {total} tokens of {name} are unknown, [UNK]"
    if unknown > MOST_UNKNOWN * total:
        raise ValueError(
            f"{share}, more than {MOST_UNKNOWN:.0%}: there is nothing to learn from them; --tokenizer bpe has none"
        )
    return share
