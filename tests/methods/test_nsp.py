from __future__ import annotations

from pathlib import Path

import pytest
import torch
from textruns import build, overfit, random_passages, tiny_backbone, tiny_config, write_text
from train.toys import assert_resumes_exactly

from sslfast.data.tokenizer import PAD

PASSAGES = random_passages(12)


def test_half_of_the_second_segments_are_of_another_document_never_of_the_same() -> None:
    method = build("nsp")
    seen = set()
    for seed in range(50):
        pairs, labels = method.pair(PASSAGES, torch.Generator().manual_seed(seed))
        assert (labels == 0).sum() == 6
        assert torch.equal(pairs.tokens[:, 0], PASSAGES.tokens[:, 0])
        for row, (label, second) in enumerate(zip(labels, pairs.tokens[:, 1])):
            begins = ((PASSAGES.tokens[:, 1] == second) | (second == PAD)).all(dim=1)  # cut, but not changed
            assert begins[row] if label else (begins & (PASSAGES.document != PASSAGES.document[row])).any()
            if not label and begins.sum() == 1:
                seen.add(begins.nonzero().item())
    assert seen == set(range(12))


def test_lengths_do_not_depend_on_the_label(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    for strange in (False, True):
        monkeypatch.setattr("sslfast.methods.nsp.half", lambda count, *_, value=strange: torch.full((count,), value))
        pairs, labels = build("nsp").pair(PASSAGES, torch.Generator().manual_seed(0))
        assert (labels == int(not strange)).all()
        lengths.append((pairs.tokens != PAD).sum(dim=2))
    assert torch.equal(*lengths)
    assert lengths[0].min() > 0
    assert (lengths[0] < (PASSAGES.tokens != PAD).sum(dim=2)).any()


def test_passages_of_one_document_keep_their_own_segments() -> None:
    alone = random_passages(6, documents=1)
    pairs, labels = build("nsp").pair(alone, torch.Generator().manual_seed(0))
    assert torch.equal(pairs.tokens, alone.tokens)
    assert labels.all()


def test_illustration_and_refusal() -> None:
    method = build("nsp").eval()
    with torch.no_grad():
        rows = method.illustrate(PASSAGES, torch.Generator().manual_seed(3))
    assert {row[1].caption.partition(";")[0] for row in rows} == {"next", "from elsewhere"}
    with pytest.raises(ValueError, match=r"backbone of nsp must be .*BERT, got GPT2Model"):
        build("nsp", tiny_backbone("gpt2-tiny"))


def test_it_learns_the_pairs_of_a_batch() -> None:
    method = build("nsp")
    batch = method.views(PASSAGES, torch.Generator().manual_seed(3))
    assert overfit(method, batch)["loss"] < 0.1  # ln 2 is chance


def test_resumes_exactly_with_dropout(tmp_path: Path) -> None:
    config = tiny_config("nsp", write_text(tmp_path / "a.txt"), mlm_weight=1.0)
    assert_resumes_exactly(config, tmp_path, 7)
