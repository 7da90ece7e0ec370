from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from textruns import random_passages, tiny_backbone, tiny_config, write_text

from sslfast.config import PretrainConfig
from sslfast.evaluate import Run, evaluate
from sslfast.modality import modality_of
from sslfast.modality.text import BagOfWords
from sslfast.models.text import load_text_backbone
from sslfast.report import build as build_report
from sslfast.train import pretrain

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module", params=["nsp", "clm"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PretrainConfig, Path]:
    """A BERT and a GPT-2 trained for a few steps; not to be changed."""
    folder = tmp_path_factory.mktemp(request.param)
    config = tiny_config(request.param, write_text(folder / "a.txt"), epochs=4, knn_every=4)
    pretrain(config, folder / "run", command="sslfast pretrain")
    return config, folder / "run"


def test_exported_model_and_tokenizer_load_without_sslfast(trained: tuple[PretrainConfig, Path]) -> None:
    config, folder = trained
    run = Run(folder)
    assert run.finished
    model = transformers.AutoModel.from_pretrained(folder / "exported").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "exported")
    texts = ("the ship of sail was near", "the oven of dough")
    pair = texts if config.method == "nsp" else (" ".join(texts),)
    encoded = tokenizer(*pair, return_tensors="pt")
    given = {name: value for name, value in encoded.items() if config.method == "nsp" or name == "input_ids"}
    with torch.no_grad():
        theirs = model(**given).last_hidden_state
        ours = run.backbone().hidden(encoded["input_ids"])
    torch.testing.assert_close(ours, theirs)
    assert tokenizer.pad_token_id == 0
    assert tokenizer.mask_token == "[MASK]"


def test_exported_backbone_is_the_checkpoints(trained: tuple[PretrainConfig, Path], tmp_path: Path) -> None:
    _, folder = trained
    exported, method = Run(folder).backbone(), Run(folder).method()
    assert not exported.training
    for (name, ours), (_, theirs) in zip(exported.state_dict().items(), method.backbone.state_dict().items()):
        assert torch.equal(ours, theirs), name
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    (copy / "exported" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="does not hold an exported text model"):
        Run(copy).backbone()


def test_code_in_an_exported_folder_is_not_run(
    trained: tuple[PretrainConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = trained
    exported = Path(shutil.copytree(folder / "exported", tmp_path / "exported"))
    (exported / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Theirs: pass\n")
    config = json.loads((exported / "config.json").read_text())
    own_code = {"AutoConfig": "theirs.Theirs", "AutoModel": "theirs.Theirs"}
    (exported / "config.json").write_text(json.dumps({**config, "model_type": "theirs", "auto_map": own_code}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers would ask
    with pytest.raises(ValueError, match="does not hold an exported text model"):
        load_text_backbone(exported)
    assert not (tmp_path / "ran").exists()


def test_protocols_and_report(trained: tuple[PretrainConfig, Path], tmp_path: Path) -> None:
    config, folder = trained
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    for protocol in ("linear", "knn"):
        result = evaluate(copy, protocol)
        assert set(result["baselines"]) == {"bag_of_words", "random_init"}
        assert result["baselines"]["bag_of_words"] > 0.9  # the documents share few words
        assert (result["length"], result["data"]) == (16, config.data)
    page = build_report(copy).read_text()
    assert "bag of words" in page
    assert "passages/s" in page
    assert "Not shown" not in page
    assert "Augmented pairs" not in page


def test_a_run_has_its_tokenizer_and_other_data_is_read_with_it(
    trained: tuple[PretrainConfig, Path], tmp_path: Path
) -> None:
    config, folder = trained
    fresh = modality_of(config)
    kept = Run(folder).modality
    assert kept.tokenizer.to_str() == fresh.tokenizer.to_str()
    other = write_text(tmp_path / "b.txt", words=90)
    examples = kept.load("train", data=other)
    assert examples.passages.tokens.max() < kept.tokenizer.get_vocab_size()
    inputs = kept.inputs(examples.passages[:3])
    assert inputs.shape == (3, 14 if config.method == "clm" else 15)
    assert inputs.shape[1] <= config.length
    (Path(shutil.copytree(folder, tmp_path / "run")) / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is not there"):
        Run(tmp_path / "run").modality.load("test")


def test_initial_backbone_is_the_one_training_began_with(trained: tuple[PretrainConfig, Path]) -> None:
    config, folder = trained
    torch.manual_seed(config.seed)
    first = modality_of(config).build_backbone().state_dict()
    again = Run(folder).initial_backbone().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_exported_weights_begin_a_run_with_the_same_tokens_only(
    trained: tuple[PretrainConfig, Path], tmp_path: Path
) -> None:
    config, folder = trained
    weights = folder / "exported" / "model.safetensors"
    changed = dataclasses.replace(config, learning_rate=0.0, weight_decay=0.0, epochs=1, knn_every=0)
    pretrain(changed, tmp_path / "same", init_from=weights)
    ours, theirs = (Run(run).backbone().state_dict() for run in (tmp_path / "same", folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    other = dataclasses.replace(changed, vocabulary=60 if config.tokenizer == "wordpiece" else 280)
    with pytest.raises(ValueError, match="was trained with other tokens"):
        pretrain(other, tmp_path / "other", init_from=weights)


def test_what_only_images_have_is_refused(trained: tuple[PretrainConfig, Path]) -> None:
    modality = Run(trained[1]).modality
    for options, name in (({"root": Path("x")}, "data_root"), ({"download": True}, "download")):
        with pytest.raises(ValueError, match=f"{name}: images have this, text:"):
            modality.load("train", **options)


def test_accuracy_during_training_is_logged(trained: tuple[PretrainConfig, Path]) -> None:
    lines = [json.loads(line) for line in (trained[1] / "metrics.jsonl").read_text().splitlines()]
    assert 0 <= lines[-1]["knn_accuracy"] <= 1


def test_features_are_the_mean_over_real_tokens() -> None:
    backbone = tiny_backbone().eval()
    tokens = random_passages().joined()
    features = backbone(tokens)
    for row, feature in zip(tokens, features):
        alone = row[row != 0][None]
        torch.testing.assert_close(backbone.hidden(alone)[0].mean(dim=0), feature)


def test_bag_of_words_counts_words() -> None:
    rows = torch.tensor([[2, 7, 7, 3, 9, 3, 0]])
    bag = BagOfWords(12)(rows)
    wanted = torch.zeros(12)
    wanted[7], wanted[9] = torch.tensor(3.0).log(), torch.tensor(2.0).log()
    torch.testing.assert_close(bag[0], wanted / wanted.norm())


def test_an_unknown_backbone_is_named(tmp_path: Path) -> None:
    config = tiny_config("mlm", write_text(tmp_path / "a.txt"), backbone="bert-huge")
    with pytest.raises(ValueError, match=r"backbone must be one of bert-tiny, .*, got 'bert-huge'"):
        modality_of(config).build_backbone()


def test_the_extra_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("mlm", write_text(tmp_path / "a.txt"))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"sslfast\[text\]"):
        modality_of(config)
