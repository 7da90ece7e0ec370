"""Methods, networks, data and presets of somebody's own, from `pretrain` to `report` and `compare`."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import datasets
import numpy as np
import own_things
import pytest
import timm
import torch
from PIL import Image

import sslfast
from sslfast import _outside
from sslfast.augment import Preset, ViewSampler, preset
from sslfast.cli import main
from sslfast.data import load_images
from sslfast.data.given import name_of
from sslfast.methods.registry import METHODS
from sslfast.models import build_backbone
from sslfast.models.own import backbone_name
from sslfast.train import start

SHORT = {"image_size": 8, "batch_size": 8, "epochs": 1, "warmup_epochs": 0, "knn_every": 0, "accelerator": "cpu"}


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch):
    """What a test gives or registers, the next one does not know."""
    monkeypatch.setattr(_outside, "_given", {})
    for name in list(METHODS):
        monkeypatch.setitem(METHODS, name, METHODS[name])
    yield
    METHODS.pop("own", None)


def test_everything_own_by_import_paths(
    tmp_path: Path, forgetful: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "own_things", own_things)
    folder = tmp_path / "run"
    run = sslfast.pretrain(
        own_things.Own,
        data=own_things.pictures,
        backbone=own_things.Net,
        preset=own_things.GENTLE,
        output=folder,
        **SHORT,
    )
    config = json.loads((folder / "config.json").read_text())
    assert (config["method"], config["method_class"]) == ("own", "own_things:Own")
    assert (config["data"], config["backbone"]) == ("own_things:pictures", "own_things:Net")
    assert preset(config["preset"]) == own_things.GENTLE
    METHODS.pop("own")  # as in another process
    sys.modules.pop("own_things")
    assert main(["evaluate", str(folder), "--protocol", "knn", "--k", "3", "--device", "cpu"]) == 0
    assert "knn on own_things:pictures" in capsys.readouterr().out
    assert sslfast.evaluate.read_results(run)["knn"]["test_examples"] == 10
    assert main(["report", str(folder)]) == 0
    assert main(["compare", str(folder), "--output", str(tmp_path / "all.csv")]) == 0
    assert "own_things:Net" in (tmp_path / "all.csv").read_text()


def test_objects_without_a_path_are_asked_for_again(tmp_path: Path, forgetful: None) -> None:
    net, data = own_things.Net(), own_things.Pictures()
    run = sslfast.pretrain("simclr", data=data, backbone=net, output=tmp_path / "run", **SHORT)
    names = run.config["data"], run.config["backbone"]
    found = sslfast.evaluate(run, "knn", k=3, device="cpu")
    _outside._given.clear()
    with pytest.raises(ValueError, match=r"Python object \(Pictures\).*pass the same again by sslfast.give"):
        sslfast.evaluate(run, "knn", k=3, device="cpu")
    assert (sslfast.give(own_things.Pictures()), sslfast.give(own_things.Net())) == names
    again = sslfast.evaluate(sslfast.evaluate.Run(run.folder), "knn", k=3, device="cpu")
    assert again["accuracy"] == found["accuracy"]
    assert sslfast.give(own_things.Pictures(30)) != names[0]


class Entry:
    """An entry point of another package."""

    def __init__(self, thing: object) -> None:
        self.thing = thing

    def load(self) -> object:
        return self.thing


def test_entry_points_and_imported_modules_are_known_by_name(
    tmp_path: Path, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = {
        "methods": {"own": Entry(own_things.Own)},
        "data": {"pictures": Entry(own_things.pictures)},
        "backbones": {"net": Entry(own_things.Net)},
        "presets": {"gentle": Entry(own_things.GENTLE)},
    }
    monkeypatch.setattr(_outside, "entry_points", things.__getitem__)
    run = sslfast.pretrain("own", data="pictures", backbone="net", preset="gentle", output=tmp_path / "run", **SHORT)
    assert (run.config["data"], type(run.backbone())) == ("pictures", own_things.Net)
    assert preset("gentle") == own_things.GENTLE
    METHODS.pop("own")
    monkeypatch.setattr(_outside, "entry_points", lambda kind: {})
    (tmp_path / "brings_own.py").write_text(
        "from own_things import Own\nfrom sslfast.methods import register\nregister(Own)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["pretrain", "own", "--help", "--import", "brings_own"]) == 0
    assert "own" in METHODS


def test_what_nobody_knows_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"unknown method 'simcrl'; did you mean simclr\?"):
        sslfast.methods.method_named("simcrl")
    for words, said in ((["--import"], "wants the name of a module"), (["--import", "nowhere"], "no module nowhere")):
        assert main(["recipes", *words]) == 2
        assert said in capsys.readouterr().err


def arrays(count: int = 12, **kind: object) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 9, 11, 3), dtype=np.uint8)


def hugging_face() -> datasets.Dataset:
    rows = {"image": [Image.fromarray(image) for image in arrays()], "label": [k % 2 for k in range(12)]}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


TENSOR = torch.from_numpy(arrays()).permute(0, 3, 1, 2)
LABELS = [k % 2 for k in range(12)]
GIVEN = {
    "arrays": lambda: (arrays(), LABELS),
    "tensors": lambda: (TENSOR, torch.tensor(LABELS)),
    "tensor-dataset": lambda: torch.utils.data.TensorDataset(TENSOR, torch.tensor(LABELS)),
    "names": lambda: (TENSOR, ["dog" if label else "cat" for label in LABELS]),
    "hugging-face": hugging_face,
    "pairs": lambda: [(Image.fromarray(image), label) for image, label in zip(arrays(), LABELS)],
    "rows": lambda: [{"image": image, "label": label} for image, label in zip(arrays(), LABELS)],
}


@pytest.mark.parametrize("kind", GIVEN)
def test_datasets_of_many_kinds_are_the_same_images(kind: str, forgetful: None) -> None:
    name = name_of(GIVEN[kind]())
    train, test = (load_images(name, split) for split in ("train", "test"))
    assert (len(train), len(test)) == (10, 2)
    assert train.classes == (["cat", "dog"] if kind in ("names", "hugging-face") else ["0", "1"])
    everything = torch.cat([train.images, test.images])
    assert sorted(image.sum().item() for image in everything) == sorted(image.sum().item() for image in TENSOR)
    assert torch.cat([train.labels, test.labels]).sum() == 6


def test_data_without_labels_or_with_a_test_split(forgetful: None) -> None:
    alone = name_of(TENSOR)
    assert not load_images(alone, "train").labelled
    assert not load_images(name_of((TENSOR, [3] * 12)), "train").labelled  # one class: nothing to tell apart
    with pytest.raises(ValueError, match="no labels and no test split"):
        load_images(alone, "test")
    rows = hugging_face()
    both = name_of(datasets.DatasetDict({"train": rows, "validation": rows.select(range(5))}))
    assert [len(load_images(both, split)) for split in ("train", "test")] == [12, 5]


WRONG = {
    "a stream": (iter([1]), TypeError, "must have a length"),
    "nothing": ([], ValueError, "is empty"),
    "words": (["a"], FileNotFoundError, "a"),
    "numbers": ([1, 2], TypeError, "an image must be PIL's"),
    "other labels": ((TENSOR, [1, 2]), ValueError, "a label for each of the 12 images, got 2"),
    "no image": ([{"text": "a"}], TypeError, "must have one of image"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_dataset_is_said(kind: str, forgetful: None) -> None:
    data, error, words = WRONG[kind]
    with pytest.raises((error, ValueError), match=words):
        name_of(data)


class Random(own_things.Pictures):
    def __getitem__(self, index: int) -> np.ndarray:
        return np.random.default_rng().integers(0, 256, (8, 8, 3), dtype=np.uint8)


def test_random_transforms_of_a_dataset_are_refused(forgetful: None) -> None:
    with pytest.raises(ValueError, match="Random changes number 0: leave random transforms to preset"):
        name_of(Random())


def test_a_large_dataset_is_read_batch_by_batch(forgetful: None, monkeypatch: pytest.MonkeyPatch) -> None:
    name = name_of((TENSOR, LABELS))
    small = load_images(name, "train")
    monkeypatch.setattr("sslfast.data.folder.IN_MEMORY", 1)
    large = load_images(name, "train")
    assert type(large).__name__ == "GivenImages"
    for (a, x, y), (b, u, v) in zip(sslfast.data.batches(small, 3), sslfast.data.batches(large, 3, workers=1)):
        assert torch.equal(a, b)
        assert torch.equal(x, u)
        assert torch.equal(y, v)


def test_presets_are_written_as_json() -> None:
    gentle = Preset(crop_scale=(0.5, 1.0), blur=0.2)
    assert str(gentle) == '{"crop_scale": [0.5, 1.0], "blur": 0.2}'
    assert preset(str(gentle)) == gentle
    assert preset("own_things:GENTLE") == own_things.GENTLE
    assert ViewSampler.pair(str(gentle), 8)[0].preset == gentle
    with pytest.raises(TypeError, match="preset has no crop; it has blur"):
        preset('{"crop": 1}')
    with pytest.raises(ValueError, match=r"got 'simclrr'; did you mean simclr\?"):
        preset("simclrr")


def test_a_given_backbone_is_copied_with_its_weights(forgetful: None) -> None:
    net = own_things.Net()
    name = backbone_name(net)
    built = build_backbone(name, image_size=8)
    assert torch.equal(built.conv.weight, net.conv.weight)
    assert (built is net, built.num_features) == (False, 8)
    with pytest.raises(ValueError, match=r"must return \(B, F\) features, got \(1, 8, 4, 4\)"):
        build_backbone(backbone_name(net.conv), image_size=8)


def test_features_of_a_given_backbone_are_counted_where_it_returns_them(forgetful: None) -> None:
    net = timm.create_model("mobilenetv3_small_050", num_classes=0)
    assert build_backbone(backbone_name(net), image_size=32).num_features == net.head_hidden_size != net.num_features
    with pytest.raises(ValueError, match="lazy layers without a shape: call it on a batch of images first"):
        backbone_name(torch.nn.Sequential(torch.nn.LazyLinear(8)))


def test_published_weights_are_where_training_begins(tmp_path: Path, forgetful: None) -> None:
    """timm's own path to weights, from a file instead of the network."""
    published = timm.create_model("test_resnet", num_classes=7)
    torch.save(published.state_dict(), tmp_path / "weights.pth")
    name = f"timm:test_resnet@{tmp_path / 'weights.pth'}"
    still = SHORT | {"data": own_things.Pictures(20), "learning_rate": 0.0}
    run = sslfast.pretrain("simclr", backbone=name, output=tmp_path / "run", **still)
    assert (run.config["backbone"], run.environment["init_from"]["path"]) == ("test_resnet", name)
    trained, initial = (dict(network.named_parameters()) for network in (run.backbone(), run.initial_backbone()))
    assert all(torch.equal(weight, published.get_parameter(key)) for key, weight in trained.items())
    assert not torch.equal(initial["layer1.0.conv1.weight"], trained["layer1.0.conv1.weight"])
    with pytest.raises(FileNotFoundError, match="there is no file nothing with weights of test_resnet"):
        sslfast.pretrain("simclr", backbone="timm:test_resnet@nothing", output=tmp_path / "x", **still)


def test_a_stem_for_larger_images_is_left_out() -> None:
    small, large = build_backbone("resnet10t", image_size=32), timm.create_model("resnet18")
    with pytest.raises(RuntimeError, match="layer1"):
        start._load(small, large.state_dict())
    small = build_backbone("resnet18", image_size=32)
    before = small.conv1.weight.clone()
    assert "conv1.weight begins at random" in start._load(small, large.state_dict())
    assert torch.equal(small.conv1.weight, before)
    assert torch.equal(small.layer4[1].conv2.weight, large.layer4[1].conv2.weight)


def test_a_run_is_a_backbone_to_begin_with(tmp_path: Path, forgetful: None) -> None:
    still = SHORT | {"data": own_things.Pictures(20), "learning_rate": 0.0}
    first = sslfast.pretrain("simclr", backbone=own_things.Net, output=tmp_path / "first", **still)
    for number, source in enumerate((first, first.folder / "exported", str(first.folder))):
        second = sslfast.pretrain("simclr", backbone=source, output=tmp_path / str(number), **still)
        assert second.config["backbone"] == "own_things:Net"
        assert torch.equal(first.backbone().conv.weight, second.backbone().conv.weight)
    with pytest.raises(ValueError, match="has weights too: give one of both"):
        sslfast.pretrain("simclr", backbone=source, init_from=first, output=tmp_path / "x", **still)


def test_new_method_writes_a_method_that_passes_its_test(
    tmp_path: Path, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["new-method", "my-way", "--output", str(tmp_path)]) == 0
    assert main(["new-method", "my-way", "--output", str(tmp_path)]) == 2
    monkeypatch.syspath_prepend(tmp_path)
    written = importlib.import_module("test_my_way")
    written.test_the_loss_reaches_every_weight()
    written.test_it_trains_and_is_judged(tmp_path)
    METHODS.pop("my-way")
