from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from textruns import build, random_passages, tiny_backbone, tiny_config, write_text
from train.toys import assert_resumes_exactly

from sslfast.data import Passages
from sslfast.data.tokenizer import PAD
from sslfast.train import pretrain

PASSAGES = random_passages()


def test_position_t_is_asked_for_token_t_plus_1_and_padding_for_nothing() -> None:
    method = build("clm").eval()
    (tokens,) = method.views(PASSAGES)
    assert tokens.shape == (8, 14)
    assert (tokens == PAD).any()
    output = method((tokens,))
    losses = []
    for row in tokens:
        row = row[row != PAD][None]
        logits = F.linear(method.backbone.hidden(row), method.backbone.embeddings)
        losses += [F.cross_entropy(logits[0, t], row[0, t + 1]) for t in range(row.shape[1] - 1)]
    torch.testing.assert_close(output["loss"], torch.stack(losses).mean())
    torch.testing.assert_close(output["perplexity"], output["loss"].exp())


def test_no_word_is_seen_before_its_turn() -> None:
    method = build("clm").eval()
    (tokens,) = method.views(PASSAGES)
    hidden = method.backbone.hidden(tokens)
    later = tokens.clone()
    later[:, 5] = 7
    after = method.backbone.hidden(later)
    torch.testing.assert_close(after[:, :5], hidden[:, :5])
    assert not torch.equal(after[:, 5:], hidden[:, 5:])


def test_segments_are_running_text_and_nothing_is_random() -> None:
    tokens = torch.tensor([[[7, 8, 0], [9, 0, 0]]])
    (row,) = build("clm").views(Passages(tokens, torch.zeros(1, dtype=torch.long)))
    assert row.tolist() == [[2, 7, 8, 9, 3, 0, 0, 0]]


def test_illustration_has_a_guess_at_every_word() -> None:
    with torch.no_grad():
        rows = build("clm").eval().illustrate(PASSAGES)
    lengths = (PASSAGES.tokens != PAD).sum(dim=(1, 2)) + 1  # and the [SEP] at the end
    assert [len(row) for row in rows] == lengths.tolist()
    assert all((panel.mark == "hit") == (panel.content == panel.caption) for row in rows for panel in row)


def test_a_network_that_sees_what_comes_is_refused() -> None:
    with pytest.raises(ValueError, match="backbone of clm must be gpt2-tiny, gpt2-mini or gpt2, got BertModel"):
        build("clm", tiny_backbone("bert-tiny"))


def test_it_learns(tmp_path: Path) -> None:
    config = tiny_config("clm", write_text(tmp_path / "a.txt"), epochs=3, vocabulary=300, tokenizer="bpe", log_every=4)
    pretrain(config, tmp_path / "run")
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < 0.8 * losses[0]


def test_resumes_exactly_with_dropout(tmp_path: Path) -> None:
    assert_resumes_exactly(tiny_config("clm", write_text(tmp_path / "a.txt")), tmp_path, 7)
