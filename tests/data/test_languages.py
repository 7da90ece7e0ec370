"""Text of many kinds: without spaces, in short documents, with marks that carry meaning; and what nobody can read."""

from __future__ import annotations

from pathlib import Path

import pytest
import textruns
import torch
import transformers

import sslfast
from sslfast.data.documents import read_documents, split_documents
from sslfast.data.text import load_text
from sslfast.data.tokenizer import train_tokenizer
from sslfast.evaluate import Run
from sslfast.report.material import Material
from sslfast.report.page import _possible
from sslfast.train import pretrain

DNA = "".join("ACGT"[(k * k + k // 7) % 4] for k in range(400))
CHINESE = "春眠不觉晓处处闻啼鸟夜来风雨声花落知多少" * 8
HINDI = "हिन्दी में किताब की दुकान है"
THAI = "ที่นี่มีน้ำ"


def written(path: Path, *documents: str) -> str:
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return f"text:{path}"


@pytest.mark.parametrize("text", [DNA, CHINESE], ids=["dna", "chinese"])
def test_text_without_spaces_trains_and_is_tested(text: str, tmp_path: Path) -> None:
    name = written(tmp_path / "text.txt", text, text[::-1], text[7:])
    documents = read_documents(name)
    parts = [list(split_documents(documents, split, block=4)) for split in ("train", "test")]
    assert sum(len(stretch) for part in parts for _, stretch in part) == 3 * len(text) - 7
    tokenizer = train_tokenizer([stretch for _, stretch in parts[0]], "wordpiece", 60)
    for split in ("train", "test"):
        found = load_text(name, split, tokenizer=tokenizer, length=8)
        assert len(found) > 3
        assert not (found.passages.tokens == 1).any()
        assert "0.00% of the" in found.notes[0]


def test_vowel_signs_stay_and_accents_go() -> None:
    tokenizer = train_tokenizer([HINDI, THAI, "Café naïve Привет й"], "wordpiece", 200)
    normal = tokenizer.normalizer.normalize_str
    assert normal(HINDI) == HINDI
    assert normal(THAI) == THAI
    assert normal("Café NAÏVE") == "cafe naive"


def test_unknown_tokens_are_counted_and_too_many_refused(tmp_path: Path) -> None:
    words = "the ships of the sea were near " * 6
    tokenizer = train_tokenizer([words], "wordpiece", 60)
    some = load_text(
        written(tmp_path / "some.txt", "☃ " + words, words, words), "train", tokenizer=tokenizer, length=12
    )
    assert "are unknown, [UNK]" in some.notes[0]
    assert not some.notes[0].startswith("0.00%")
    name = written(tmp_path / "other.txt", CHINESE, CHINESE, CHINESE)
    with pytest.raises(ValueError, match=r"100.00% of the .* are unknown, \[UNK\], more than 5%.*--tokenizer bpe"):
        load_text(name, "train", tokenizer=tokenizer, length=12)


def test_short_documents_are_held_out_as_a_whole(tmp_path: Path) -> None:
    reviews = [f"film {k // 5} was good and long and {'slow' if k % 2 else 'fast'}" for k in range(10)]
    name = written(tmp_path / "reviews.txt", *reviews)
    documents = read_documents(name)
    train, test = ([text for _, text in split_documents(documents, split, block=32)] for split in ("train", "test"))
    assert test == [reviews[2], reviews[7]]
    assert sorted(train + test) == sorted(reviews)
    config = textruns.tiny_config("mlm", name, epochs=1, batch_size=4, length=16)
    pretrain(config, tmp_path / "run")
    run = Run(tmp_path / "run")
    assert not run.modality.load("test").labelled
    assert "whole documents are held out" in (run.folder / "train.log").read_text()
    assert _possible(Material(run.folder)) == ["pretext"]
    entry = sslfast.evaluate(run, "pretext", device="cpu")
    assert (entry["data"], entry["test_examples"]) == (name, 2)
    with pytest.raises(ValueError, match="has no labels, which knn needs"):
        sslfast.evaluate(run, "knn", device="cpu")


def test_masked_words_are_exported_with_their_head(tmp_path: Path) -> None:
    name = textruns.write_text(tmp_path / "text.txt")
    pretrain(textruns.tiny_config("mlm", name, epochs=1), tmp_path / "run")
    run = Run(tmp_path / "run")
    folder = run.folder / "exported"
    model, report = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.architectures == ["BertForMaskedLM"]
    method = run.method()
    tokens = torch.tensor([[2, 9, 4, 11, 3]])
    with torch.no_grad():
        ours = method.words.head(method.backbone.hidden(tokens), method.backbone.embeddings)
        theirs = model.eval()(input_ids=tokens, token_type_ids=torch.zeros_like(tokens)).logits
    torch.testing.assert_close(theirs, ours)
    assert torch.equal(run.backbone().embeddings, method.backbone.embeddings)
    ask = transformers.pipeline("fill-mask", str(folder))
    assert len(ask("the [MASK] of sea")) == 5


def test_prompts_of_a_causal_model_have_no_end(tmp_path: Path) -> None:
    name = textruns.write_text(tmp_path / "text.txt")
    pretrain(textruns.tiny_config("clm", name, tokenizer="bpe", vocabulary=300, epochs=1), tmp_path / "run")
    folder = tmp_path / "run" / "exported"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the ship").input_ids)[0] == "[CLS]"
    assert "[SEP]" not in tokenizer.convert_ids_to_tokens(tokenizer("the ship").input_ids)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    backbone = Run(tmp_path / "run").backbone()
    tokens = torch.tensor([tokenizer("the ship").input_ids])
    with torch.no_grad():
        ours = backbone.hidden(tokens) @ backbone.embeddings.T
        torch.testing.assert_close(model.eval()(tokens).logits, ours)
