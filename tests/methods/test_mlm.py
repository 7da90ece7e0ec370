from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from textruns import build, random_passages, tiny_backbone, tiny_config, write_text
from train.toys import assert_resumes_exactly

from sslfast.data.tokenizer import CLS, MASK, PAD, SEP
from sslfast.methods import MLM
from sslfast.methods.masking import IGNORE, mask_tokens
from sslfast.models import build_backbone
from sslfast.train import pretrain

PASSAGES = random_passages()


def rows(count: int, length: int, vocabulary: int, words: int) -> torch.Tensor:
    """`count` rows of `words` words between [CLS] and two [SEP], padded to `length`."""
    tokens = torch.randint(5, vocabulary, (count, length), generator=torch.Generator().manual_seed(1))
    tokens[:, 0], tokens[:, words // 2 + 1], tokens[:, words + 2], tokens[:, words + 3 :] = CLS, SEP, SEP, PAD
    return tokens


def test_of_the_chosen_80_percent_are_masked_10_random_10_kept() -> None:
    tokens = rows(2000, 64, 10_000, 60)
    corrupted, positions, targets = mask_tokens(tokens, vocabulary=10_000, generator=torch.Generator().manual_seed(0))
    chosen = targets != IGNORE
    assert chosen.sum() == 2000 * 9  # 15 % of 60
    now, before = corrupted.gather(1, positions)[chosen], targets[chosen]
    shares = [(now == MASK), (now != MASK) & (now != before), now == before]
    for share, wanted in zip(shares, (0.8, 0.1, 0.1)):
        assert share.double().mean().item() == pytest.approx(wanted, abs=0.012)  # four standard deviations
    replaced = now[shares[1]]
    assert replaced.min() > MASK
    assert replaced.double().mean().item() == pytest.approx(5000, abs=300)  # of the whole vocabulary


def test_every_word_is_chosen_as_often_as_any_other() -> None:
    tokens = rows(1, 24, 100, 20).repeat(5000, 1)
    _, positions, _ = mask_tokens(tokens, vocabulary=100, generator=torch.Generator().manual_seed(0))
    often = torch.bincount(positions.flatten(), minlength=24) / 5000
    words = tokens[0] > MASK
    torch.testing.assert_close(often[words], torch.full((20,), 3 / 20), atol=0.025, rtol=0)
    assert not often[~words].any()


def test_special_tokens_and_padding_are_never_chosen_and_nothing_else_changes() -> None:
    tokens = PASSAGES.joined()
    corrupted, positions, targets = mask_tokens(
        tokens, vocabulary=50, ratio=0.9, generator=torch.Generator().manual_seed(0)
    )
    chosen = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, positions, targets != IGNORE)
    assert not (chosen & (tokens <= MASK)).any()
    assert torch.equal(corrupted[~chosen], tokens[~chosen])
    assert torch.equal(tokens.gather(1, positions)[targets != IGNORE], targets[targets != IGNORE])


@pytest.mark.parametrize("words", [1, 2, 3, 9, 11])
def test_15_percent_of_each_row_but_at_least_one(words: int) -> None:
    _, _, targets = mask_tokens(rows(5, 40, 50, words), vocabulary=50)
    assert torch.equal((targets != IGNORE).sum(dim=1), torch.full((5,), max(1, round(0.15 * words))))


def test_loss_is_cross_entropy_at_the_hidden_words_only() -> None:
    method = build("mlm", mask_ratio=0.5).eval()
    tokens, positions, targets = method.views(PASSAGES, torch.Generator().manual_seed(1))
    output = method((tokens, positions, targets))
    everywhere = method.words.head(method.backbone.hidden(tokens), method.backbone.embeddings)  # (B, L, V)
    labels = torch.full_like(tokens, IGNORE)
    for row, column in (targets != IGNORE).nonzero().tolist():
        labels[row, positions[row, column]] = targets[row, column]
    wanted = F.cross_entropy(everywhere.flatten(0, 1), labels.flatten(), ignore_index=IGNORE)
    torch.testing.assert_close(output["loss"], wanted)
    torch.testing.assert_close(output["perplexity"], wanted.exp())
    hits = (everywhere.argmax(dim=2) == labels).sum() / (labels != IGNORE).sum()
    torch.testing.assert_close(output["accuracy"], hits)
    assert output["embeddings"].shape == (8, 128)
    assert not output["embeddings"].requires_grad


def test_head_sees_hidden_positions_only_and_shares_the_embeddings() -> None:
    method = build("mlm")
    shapes = []
    method.words.head.register_forward_hook(lambda module, inputs, logits: shapes.append(tuple(logits.shape)))
    batch = method.views(PASSAGES)
    method(batch)["loss"].backward()
    assert shapes == [(8, round(0.15 * 12), 50)]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())
    vocabularies = [name for name, p in method.named_parameters() if p.ndim == 2 and 50 in p.shape]
    assert vocabularies == ["backbone.model.embeddings.word_embeddings.weight"]


def test_loss_is_float32_under_autocast() -> None:
    method = build("mlm").eval()
    batch = method.views(PASSAGES, torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        low = method(batch)["loss"]
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, method(batch)["loss"], rtol=0.02, atol=0.02)


def test_illustration_marks_the_guesses_at_hidden_words() -> None:
    method = build("mlm", mask_ratio=0.5).eval()
    with torch.no_grad():
        shown = method.illustrate(PASSAGES, torch.Generator().manual_seed(1))
    _, positions, targets = method.views(PASSAGES, torch.Generator().manual_seed(1))
    assert len(shown) == 8
    for row, panels in enumerate(shown):
        asked = targets[row] != IGNORE
        assert [k for k, panel in enumerate(panels) if panel.mark] == sorted(positions[row][asked].tolist())
        assert all((panel.mark == "hit") == (panel.content == panel.caption) for panel in panels if panel.mark)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="backbone of mlm must be bert-tiny or a larger BERT, got GPT2Model"):
        build("mlm", tiny_backbone("gpt2-tiny"))
    with pytest.raises(ValueError, match=r"backbone of mlm must be .*, got CifarResNet"):
        build("mlm", build_backbone("resnet20"))
    for field, value in {"mask_ratio": 0.0, "vocabulary": 5, "length": 7, "tokenizer": "words"}.items():
        with pytest.raises(ValueError, match=field):
            dataclasses.replace(MLM.Config(), **{field: value})


def test_it_learns(tmp_path: Path) -> None:
    config = tiny_config("mlm", write_text(tmp_path / "a.txt"), epochs=3, log_every=3)
    pretrain(config, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]


def test_resumes_exactly_with_dropout(tmp_path: Path) -> None:
    assert_resumes_exactly(tiny_config("mlm", write_text(tmp_path / "a.txt")), tmp_path, 7)
