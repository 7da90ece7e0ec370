"""Datasets by name, and those of torchvision from small files in their own formats."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from sslfast.data import DATASETS, load_images, normalization


def store(path: Path, content: bytes) -> list[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return [path.name, hashlib.md5(content).hexdigest()]


def cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-10 with 4 images a file, and its checksums; returns the training pixels (20, 3, 32, 32)."""
    folder = root / "cifar-10-batches-py"
    pixels = np.random.default_rng(0).integers(256, size=(6, 4, 3072), dtype=np.uint8)
    files = [
        store(folder / name, pickle.dumps({"data": part, "labels": [0, 1, 2, 9]}))
        for name, part in zip([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], pixels)
    ]
    names = ["airplane", *(f"class{i}" for i in range(1, 10))]
    _, checksum = store(folder / "batches.meta", pickle.dumps({"label_names": names}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", files[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", files[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": checksum})
    return pixels[:5].reshape(20, 3, 32, 32)


def test_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = cifar(tmp_path, monkeypatch)
    train, test = (load_images("cifar10", split, root=tmp_path) for split in ("train", "test"))
    assert train.images.tolist() == pixels.tolist()
    assert train.images.is_contiguous()
    assert train.labels.tolist() == [0, 1, 2, 9] * 5
    assert train.classes[0] == "airplane"
    assert test.images.shape == (4, 3, 32, 32)


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    pixels = np.random.default_rng(0).integers(256, size=(3, 3, 96, 96), dtype=np.uint8)
    monkeypatch.setattr(
        datasets.STL10,
        "train_list",
        [
            store(folder / "train_X.bin", pixels.transpose(0, 1, 3, 2).tobytes()),  # columns first
            store(folder / "train_y.bin", bytes([1, 10, 3])),
            store(folder / "unlabeled_X.bin", pixels[:2].transpose(0, 1, 3, 2).tobytes()),
        ],
    )
    monkeypatch.setattr(datasets.STL10, "test_list", [])
    store(folder / "class_names.txt", "\n".join(f"class{i}" for i in range(10)).encode())
    images = load_images("stl10", "train", root=tmp_path)
    assert images.images.tolist() == pixels.tolist()
    assert images.labels.tolist() == [0, 9, 2]
    assert images.classes[9] == "class9"
    unlabelled = load_images("stl10-unlabeled", "train", root=tmp_path)
    assert unlabelled.images.tolist() == pixels[:2].tolist()
    assert not unlabelled.labelled
    with pytest.raises(ValueError, match="stl10-unlabeled has no labels and no test split"):
        load_images("stl10-unlabeled", "test", root=tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_missing_files_are_explained(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        load_images(name, "train", root=tmp_path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name} is not complete in {tmp_path}")
    assert "download=True" in message
    assert "http" in message
    assert str(tmp_path / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}.get(name, "stl10_binary"))


def test_a_damaged_file_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, monkeypatch)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"half a file")
    with pytest.raises(FileNotFoundError, match="cifar10 is not complete"):
        load_images("cifar10", "train", root=tmp_path)


def test_a_download_without_network_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(FileNotFoundError, match=r"^cifar10 could not be downloaded \(.*\): .*unpack http"):
        load_images("cifar10", "train", root=tmp_path, download=True)


def test_every_name_has_a_normalisation() -> None:
    for name, dataset in DATASETS.items():
        mean, std = normalization(name)
        assert len(mean) == len(std) == (1 if name == "digits" else 3)
        assert all(0 < value < 1 for value in mean + std)
        assert dataset.summary
    assert normalization("folder:/any/where") == normalization("folder:PATH")


@pytest.mark.parametrize("name", ["imagenet", "folder:", "folder", ""])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    for call in (lambda: load_images(name, "train"), lambda: normalization(name)):
        with pytest.raises(
            ValueError,
            match=r"data must be one of digits, photos, cifar10, .*stl10-unlabeled, folder:PATH, wds:SHARDS or",
        ):
            call()


def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="split must be train or test, got 'valid'"):
        load_images("digits", "valid")


def test_repeated_loading_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar(tmp_path, monkeypatch)
    first, second = (load_images("cifar10", "train", root=tmp_path) for _ in range(2))
    assert torch.equal(first.images, second.images)
