from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from textruns import build, overfit, random_passages, tiny_backbone, tiny_config, write_text
from train.toys import assert_resumes_exactly

from sslfast.data.tokenizer import MASK, PAD
from sslfast.methods import SOP
from sslfast.methods.masking import IGNORE

PASSAGES = random_passages(9)


def test_half_of_the_pairs_are_swapped_and_labelled_so() -> None:
    method = build("sop")
    pairs, labels = method.pair(PASSAGES, torch.Generator().manual_seed(0))
    assert (labels == 0).sum() == 4  # of 9
    real = pairs.tokens != PAD
    assert torch.equal(real[:, 0], real[:, 1])  # a length tells nothing of the order
    assert torch.equal(real.sum(dim=(1, 2)), 2 * (PASSAGES.tokens != PAD).sum(dim=2).amin(dim=1))
    for before, now, kept, label in zip(PASSAGES.tokens, pairs.tokens, real, labels):
        assert torch.equal(now[kept], (before if label else before.flip(0))[kept])
    others = [method.pair(PASSAGES, torch.Generator().manual_seed(seed))[1] for seed in range(400)]
    often = torch.stack(others).double().mean(dim=0)
    torch.testing.assert_close(often, torch.full_like(often, 5 / 9), atol=0.1, rtol=0)


def test_views_come_from_the_generator_alone_and_hide_no_words_unless_told() -> None:
    method = build("sop")
    tokens, labels = method.views(PASSAGES, torch.Generator().manual_seed(3))
    torch.rand(3)
    again = method.views(PASSAGES, torch.Generator().manual_seed(3))
    assert torch.equal(tokens, again[0])
    assert torch.equal(labels, again[1])
    assert not (tokens == MASK).any()


def test_the_second_segment_has_its_own_type() -> None:
    method = build("sop").eval()
    tokens, labels = method.views(PASSAGES, torch.Generator().manual_seed(3))
    bert = method.backbone.model
    row = tokens[0]
    first = int((row == 3).nonzero()[0])
    types = (torch.arange(len(row)) > first).long()
    wanted = bert(input_ids=row[None], token_type_ids=types[None], attention_mask=(row != 0).long()[None])
    real = row != 0
    torch.testing.assert_close(method.backbone.hidden(tokens)[0, real], wanted.last_hidden_state[0, real])
    logits = method.head(method.backbone.hidden(tokens)[:, 0])
    torch.testing.assert_close(method((tokens, labels))["loss"], F.cross_entropy(logits, labels))


def test_with_masked_words_both_losses_are_added() -> None:
    method = build("sop", mlm_weight=0.5, mask_ratio=0.3).eval()
    batch = method.views(PASSAGES, torch.Generator().manual_seed(3))
    assert (batch[0] == MASK).any()
    assert (batch[3] != IGNORE).any(dim=1).all()
    output = method(batch)
    torch.testing.assert_close(output["loss"], output["pair_loss"] + 0.5 * output["mlm_loss"])
    torch.testing.assert_close(output["perplexity"], output["mlm_loss"].exp())
    assert {"accuracy", "mlm_accuracy"} <= output.keys()
    output["loss"].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters())


def test_illustration_shows_both_segments_and_the_verdict() -> None:
    method = build("sop").eval()
    with torch.no_grad():
        rows = method.illustrate(PASSAGES, torch.Generator().manual_seed(3))
    _, labels = method.views(PASSAGES, torch.Generator().manual_seed(3))
    assert len(rows) == 9
    for (first, second), label in zip(rows, labels):
        assert first.content.startswith("word")
        truth, guess = second.caption.split("; guessed ")
        assert truth == ("in order" if label else "swapped")
        assert (second.mark == "hit") == (truth == guess)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"backbone of sop must be .*BERT, got GPT2Model"):
        build("sop", tiny_backbone("gpt2-tiny"))
    for field in ("mlm_weight", "mask_ratio"):
        with pytest.raises(ValueError, match=field):
            dataclasses.replace(SOP.Config(), **{field: -1.0})


def test_it_learns_the_pairs_of_a_batch() -> None:
    method = build("sop")
    batch = method.views(PASSAGES, torch.Generator().manual_seed(3))
    assert overfit(method, batch)["loss"] < 0.1  # ln 2 is chance


def test_resumes_exactly_with_dropout(tmp_path: Path) -> None:
    config = tiny_config("sop", write_text(tmp_path / "a.txt"), mlm_weight=1.0)
    assert_resumes_exactly(config, tmp_path, 7)
