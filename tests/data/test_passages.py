from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from textruns import NOUNS, random_passages, write_text

from sslfast.data import Passages, TokenSet, batches, load_text
from sslfast.data.documents import read_documents, split_documents
from sslfast.data.text import split_texts
from sslfast.data.tokenizer import CLS, PAD, SEP, SPECIAL, UNK, read_tokenizer, train_tokenizer, words

TRAIN = """
import hashlib, sys
from sslfast.data.text import split_texts
from sslfast.data.tokenizer import train_tokenizer
texts = [text for _, text in split_texts(sys.argv[1], "train", length=16)[0]]
for kind in ("wordpiece", "bpe"):
    print(hashlib.sha256(train_tokenizer(texts, kind, 400).to_str().encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def docs() -> dict[str, str]:
    return read_documents("docs")


def test_docs_are_topics_that_share_no_paragraph(docs: dict[str, str]) -> None:
    assert len(docs) > 60
    assert sum(len(text.split()) for text in docs.values()) > 40_000
    assert all(text == " ".join(text.split()) for text in docs.values())
    sentence = "is used for repeated execution as long as an expression is true"
    assert [name for name, text in docs.items() if sentence in text] == ["while"]  # "compound" has it too
    assert not any("****" in text for text in docs.values())


def test_titles_separate_documents_and_sections_do_not(tmp_path: Path) -> None:
    path = tmp_path / "wiki.txt"
    path.write_text(
        " \n = First = \n\n a b \n = = Part = = \n c \n\n d \n = Second = \n e \n = First = \n f \n", "utf-8"
    )
    wanted = {"First": "a b = = Part = = c d", "Second": "e", "First (3)": "f"}
    assert read_documents(f"text:{path}") == wanted


def test_no_title_takes_another_documents_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("".join(f"= {title} =\n{title} text\n" for title in ("A", "A (3)", "A", "A (4)")))
    documents = read_documents(f"text:{tmp_path / 'a.txt'}")
    assert list(documents.values()) == ["A text", "A (3) text", "A text", "A (4) text"]
    assert list(documents) == ["A", "A (3)", "A (3) (3)", "A (4)"]


def test_blank_lines_separate_documents_without_titles(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + b"\n\none\ntwo\n \n\nthree = 3\r\n")
    assert read_documents(f"text:{path}") == {"document 1": "one two", "document 2": "three = 3"}


def test_every_third_block_of_five_is_held_out_and_no_word_is_lost() -> None:
    text = {"long": " ".join(f"w{k}" for k in range(100)), "short": "a b c"}
    train, test = (list(split_documents(text, split, block=10)) for split in ("train", "test"))
    assert test == [
        ("long", " ".join(f"w{k}" for k in (*range(20, 30),))),
        ("long", " ".join(f"w{k}" for k in range(70, 80))),
    ]
    assert [name for name, _ in train] == ["long", "long", "long", "short"]
    assert sorted(" ".join(part for _, part in train + test).split()) == sorted(" ".join(text.values()).split())


def test_passages_are_the_text_in_order_and_segments_follow_each_other(tmp_path: Path) -> None:
    name = write_text(tmp_path / "a.txt")
    texts, classes = split_texts(name, "train", length=16)
    tokenizer = train_tokenizer([text for _, text in texts], "wordpiece", 120)
    found = load_text(name, "train", tokenizer=tokenizer, length=16)
    assert classes == found.classes == list(NOUNS)
    assert found.passages.tokens.shape == (len(found), 2, 6)
    assert (found.passages.tokens[:, :, 0] != PAD).all()  # no segment is empty
    for number in range(3):
        tokens = found.passages.tokens[found.labels == number]
        whole = " ".join(text for title, text in texts if title == classes[number])
        assert tokens[tokens != PAD].tolist() == tokenizer.encode(whole, add_special_tokens=False).ids
    test = load_text(name, "test", tokenizer=tokenizer, length=16)
    assert set(test.labels.tolist()) == {0, 1, 2}
    assert test.passages.tokens.max() < tokenizer.get_vocab_size()
    again = load_text(name, "train", tokenizer=tokenizer, length=16)
    assert torch.equal(again.passages.tokens, found.passages.tokens)


def test_joined_rows() -> None:
    passages = Passages(torch.tensor([[[7, 8, 0], [9, 0, 0]], [[5, 6, 7], [8, 9, 10]]]), torch.zeros(2).long())
    assert passages.joined().tolist() == [[CLS, 7, 8, SEP, 9, SEP, 0, 0, 0], [CLS, 5, 6, 7, SEP, 8, 9, 10, SEP]]
    assert passages.joined(separated=False).tolist() == [[CLS, 7, 8, 9, SEP, 0, 0, 0], [CLS, 5, 6, 7, 8, 9, 10, SEP]]


def test_batches_of_passages() -> None:
    passages = random_passages(10)
    examples = TokenSet(passages, ["a", "b", "c"])
    found = list(batches(examples, 4, order=torch.arange(9, -1, -1)))
    assert [len(source) for _, source, _ in found] == [4, 4, 2]
    index, source, labels = found[1]
    assert index.tolist() == [5, 4, 3, 2]
    assert torch.equal(source.tokens, passages.tokens[index])
    assert torch.equal(source.document, labels)
    assert source.vocabulary == passages.vocabulary


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_tokenizer_has_the_special_tokens_first_and_reads_its_text_back(kind: str, tmp_path: Path) -> None:
    texts = ["The ship sailed.", "Flour, water: an oven!"] * 3
    tokenizer = train_tokenizer(texts, kind, 300)
    assert [tokenizer.token_to_id(token) for token in SPECIAL] == [0, 1, 2, 3, 4]
    assert tokenizer.get_vocab_size() == len(words(tokenizer)) <= 300
    encoded = tokenizer.encode("The ship", "an oven")
    first, second = (tokenizer.encode(text, add_special_tokens=False).ids for text in ("The ship", "an oven"))
    assert encoded.ids == [CLS, *first, SEP, *second, SEP]
    assert encoded.type_ids == [0] * (len(first) + 2) + [1] * (len(second) + 1)
    back = tokenizer.decode(tokenizer.encode("The ship sailed.").ids).strip()
    assert back == ("The ship sailed." if kind == "bpe" else "the ship sailed.")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path / "tokenizer.json").to_str() == tokenizer.to_str()


def test_special_tokens_that_somebody_wrote_are_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a [SEP] b [PAD] c [MASK] d " * 20, "utf-8")
    tokenizer = train_tokenizer([path.read_text()], "wordpiece", 100)
    tokens = load_text(f"text:{path}", "train", tokenizer=tokenizer, length=16).passages.tokens
    assert not set(tokens.unique().tolist()) & {UNK, CLS, SEP, 4}


def test_tokens_are_the_same_in_every_process(tmp_path: Path) -> None:
    name = write_text(tmp_path / "a.txt")
    runs = [subprocess.run([sys.executable, "-c", TRAIN, name], capture_output=True, text=True) for _ in range(3)]
    assert len(runs[0].stdout.split()) == 2, runs[0].stderr
    assert len({run.stdout for run in runs}) == 1


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("caf\xe9".encode("latin-1"))
    (tmp_path / "empty").write_text(" \n\n")
    (tmp_path / "short").write_text("a few words only")
    for name, error, message in (
        ("text:", ValueError, r"data must be docs or text:FILE, got 'text:'"),
        ("digits", ValueError, r"data must be docs or text:FILE, got 'digits'"),
        (f"text:{tmp_path / 'none'}", FileNotFoundError, r"no text file .*none"),
        (f"text:{tmp_path}", IsADirectoryError, r"is a folder"),
        (f"text:{tmp_path / 'latin'}", ValueError, r"latin is not UTF-8 text: byte 3"),
        (f"text:{tmp_path / 'empty'}", ValueError, r"empty has no words"),
        (f"text:{tmp_path / 'short'}", ValueError, r"short has no document of more than 16 words"),
    ):
        with pytest.raises(error, match=message):
            split_texts(name, "test", length=16)
    with pytest.raises(ValueError, match="split must be train or test, got 'valid'"):
        split_texts("docs", "valid", length=16)
    with pytest.raises(ValueError, match=r"vocabulary must be at least \d+, the characters of this text, got 8"):
        train_tokenizer(["many different letters"], "wordpiece", 8)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
        read_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json is not there"):
        read_tokenizer(tmp_path / "none.json")
