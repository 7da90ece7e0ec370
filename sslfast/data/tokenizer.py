"""Tokenizers learned from a text, the same from run to run, with the special tokens at the same ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sslfast._extras import require

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(5)
ACCENTS = "[\u0300-\u036f]"
PREFIX = "##"  # of a token inside a word, in WordPiece


def train_tokenizer(texts: Sequence[str], kind: str, vocabulary: int, *, causal: bool = False) -> Any:
    """A `tokenizers.Tokenizer` learned from `texts`; the same texts give the same tokens in every process.

    Args:
        texts: what it learns from.
        kind: "wordpiece", lower-cased as BERT's, without the accents of Latin, Greek and Cyrillic letters; or "bpe"
            over bytes as GPT-2's.
        vocabulary: tokens at most, the special ones, ids 0 to 4, included.
        causal: whether what it encodes is to be continued: without a [SEP] behind it.

    Raises:
        ValueError: an unknown kind, or the vocabulary is too small for the single characters. ImportError: tokenizers
            is not installed.
    """
    if kind not in ("wordpiece", "bpe"):
        raise ValueError(f"tokenizer must be wordpiece or bpe, got {kind!r}")
    tokenizer = (_wordpiece if kind == "wordpiece" else _bpe)(texts, vocabulary)
    if (least := tokenizer.get_vocab_size()) > vocabulary:
        raise ValueError(f"vocabulary must be at least {least}, the characters of this text, got {vocabulary}")
    template = require("tokenizers.processors", extra="text").TemplateProcessing
    tokenizer.post_processor = template(
        single="[CLS] $A" if causal else "[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)],
    )
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def read_tokenizer(path: Path) -> Any:
    """The tokenizer that was saved to `path`.

    Raises:
        FileNotFoundError: it is not there. ValueError: it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; sslfast pretrain writes it when a run on text begins")
    try:
        return require("tokenizers", extra="text").Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing more specific
        raise ValueError(f"{path} is damaged: {error}") from error


def words(tokenizer: Any) -> tuple[str, ...]:
    """What each token of the vocabulary is to a reader."""
    size = tokenizer.get_vocab_size()
    if type(tokenizer.model).__name__ == "WordPiece":
        return tuple(tokenizer.id_to_token(index) for index in range(size))
    return tuple(tokenizer.decode([index], skip_special_tokens=False).strip() for index in range(size))


def _wordpiece(texts: Sequence[str], vocabulary: int) -> Any:
    tokenizers = require("tokenizers", extra="text")
    normal, split = tokenizers.normalizers, tokenizers.pre_tokenizers
    # BERT's own takes every mark off, also the vowel signs of Hindi and of Thai (tokenizers#572).
    plain = normal.BertNormalizer(strip_accents=False)
    normalizer = normal.Sequence([plain, normal.NFD(), normal.Replace(tokenizers.Regex(ACCENTS), ""), normal.NFC()])
    # The model takes a word of more than 100 characters for unknown.
    pieces = split.Split(tokenizers.Regex(r"\S{1,100}"), "isolated")
    splitter = split.Sequence([split.BertPreTokenizer(), pieces])

    def around(model: Any) -> Any:
        tokenizer = tokenizers.Tokenizer(model)
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
        return tokenizer

    # The trainer numbers "##a" in the order of a random hash, and ties between merges go by number: number them first.
    letters = sorted(set().union(*(normalizer.normalize_str(text) for text in texts)) - {" "})
    learner = around(tokenizers.models.WordPiece(unk_token="[UNK]"))
    trainer = tokenizers.trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *(PREFIX + letter for letter in letters)],
        continuing_subword_prefix=PREFIX,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    model = tokenizers.models.WordPiece(learner.get_vocab(), unk_token="[UNK]", continuing_subword_prefix=PREFIX)
    tokenizer = around(model)
    tokenizer.decoder = tokenizers.decoders.WordPiece(prefix=PREFIX)
    return tokenizer


def _bpe(texts: Sequence[str], vocabulary: int) -> Any:
    tokenizers = require("tokenizers", extra="text")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
