"""WebDatasets: what is in the shards, in which order, and a run that is stopped and resumed."""

from __future__ import annotations

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from shard_files import add, write_shards

from sslfast.checkpoint import load_last
from sslfast.data import batches, load_images, shards
from sslfast.methods import SimCLR
from sslfast.train import Interrupted, pretrain
from sslfast.train.loop import Training

CONFIG = SimCLR.Config(
    image_size=8,
    batch_size=8,
    epochs=2,
    warmup_epochs=0,
    knn_every=0,
    accelerator="cpu",
    workers=0,
    backbone="resnet20",
)


def npy(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, pixels)
    return content.getvalue()


def numbers(images: object) -> list[int]:
    return [int(pixels[0, 0, 0, 0]) for _, pixels, _ in batches(images, 1)]


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_and_labels_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool) -> None:
    if not in_memory:
        monkeypatch.setattr("sslfast.data.folder.IN_MEMORY", 1)
    write_shards(tmp_path)
    train, test = (load_images(f"wds:{tmp_path}/{{000..002}}.tar", split) for split in ("train", "test"))
    assert (len(train), len(test), train.classes) == (24, 6, ["10", "11"])
    assert sorted(numbers(train) + numbers(test)) == list(range(30))
    assert train.labels.tolist() == [number % 2 for number in numbers(train)]
    assert isinstance(train, shards.ShardImages) != in_memory
    assert "30 images" not in train.notes[0]
    assert "24 images in 3 shards; 2 classes" in train.notes[0]


def test_shards_with_a_split_of_their_own(tmp_path: Path) -> None:
    write_shards(tmp_path / "train", labels=False)
    write_shards(tmp_path / "val", 1, 4, labels=False)
    train, test = (load_images(f"wds:{tmp_path}", split) for split in ("train", "test"))
    assert (len(train), len(test), train.labelled) == (30, 4, False)


def test_an_epoch_goes_through_the_shards_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "BUFFER", 3)
    images = shards.list_shards(str(write_shards(tmp_path, 5, 20)), None, source_size=16)
    order = images.order(np.random.default_rng(0))
    assert torch.equal(order.sort().values, torch.arange(100))
    turns = images.members[order, 0]
    assert len(set(turns[:15])) == 1  # near the beginning nothing is from elsewhere yet
    assert (np.diff(turns) != 0).sum() < 20
    assert order[:15].tolist() != sorted(order[:15].tolist())
    assert not torch.equal(order, images.order(np.random.default_rng(1)))


def test_a_stopped_run_on_shards_resumes_with_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sslfast.data.folder.IN_MEMORY", 1)
    config = replace(CONFIG, data=f"wds:{write_shards(tmp_path / 'shards')}", log_every=1)
    pretrain(config, tmp_path / "whole")
    step = Training._train_step

    def interrupted(self: Training, loader: object) -> None:
        if self.step == 4:
            raise KeyboardInterrupt
        step(self, loader)

    monkeypatch.setattr(Training, "_train_step", interrupted)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        pretrain(replace(config, checkpoint_every=1), tmp_path / "halves")
    monkeypatch.setattr(Training, "_train_step", step)
    pretrain(replace(config, checkpoint_every=1), tmp_path / "halves", resume=True)
    one, two = (load_last(tmp_path / name)["method"] for name in ("whole", "halves"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_wrong_shards_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no archive" * 100)
    write_shards(tmp_path / "same", 1, 3)
    with pytest.raises(ValueError, match=r"shard .*bad.tar is damaged"):
        load_images(f"wds:{tmp_path}/bad.tar", "train")
    with pytest.raises(ValueError, match="there are no shards nothing"):
        load_images("wds:nothing-*.tar", "train")
    with pytest.raises(ValueError, match="is no path: shards are read from files"):
        load_images("wds:https://somewhere/000.tar", "train")
    with tarfile.open(tmp_path / "broken.tar", "w") as archive:
        add(archive, "a.jpg", b"no image")
    with pytest.raises(ValueError, match=r"unreadable image .*broken.tar/a"):
        load_images(f"wds:{tmp_path}/broken.tar", "train")


def test_a_test_split_in_shards_is_numbered_as_the_training_split(tmp_path: Path) -> None:
    for split, labels in (("train", "abc"), ("test", "cb")):
        (tmp_path / split).mkdir()
        with tarfile.open(tmp_path / split / "0.tar", "w") as archive:
            for number, label in enumerate(labels):
                add(archive, f"{number}.npy", npy(np.zeros((4, 4), np.uint8)))
                add(archive, f"{number}.cls", label.encode())
    train, test = (load_images(f"wds:{tmp_path}", split) for split in ("train", "test"))
    assert (train.classes, test.classes, test.labels.tolist()) == (["a", "b", "c"], ["a", "b", "c"], [2, 1])


def test_a_test_split_in_shards_without_labels_is_none(tmp_path: Path) -> None:
    write_shards(tmp_path / "train")
    write_shards(tmp_path / "test", 1, 4, labels=False)
    train, test = (load_images(f"wds:{tmp_path}", split) for split in ("train", "test"))
    assert (len(train), len(test), test.classes) == (24, 6, ["10", "11"])
    assert "the test split has no labels, and is left out" in train.notes
