"""Labels of datasets in Python: what is one, whose classes count, and that no image is decoded for them."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset

from sslfast import _outside
from sslfast.data import ImageSet, load_images
from sslfast.data.given import name_of
from sslfast.data.registry import glance

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)


class Pictures(Dataset):
    """Counts how often an example is read."""

    def __init__(self, labels: list[object], names: list[str] | None = None, *, kept: bool = True) -> None:
        self.labels, self.reads = labels, 0
        if names:
            self.classes = names
        if kept:
            self.targets = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, object]:
        self.reads += 1
        return PIXELS[index], self.labels[index]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outside, "_given", {})


def splits(data: object) -> list[ImageSet]:
    name = name_of(data)
    return [load_images(name, split) for split in ("train", "test")]


@pytest.mark.parametrize(
    ("train", "test", "classes", "found"),
    [
        (Pictures(["bird", "cat", "dog"]), Pictures(["dog", "cat"]), ["bird", "cat", "dog"], [2, 1]),
        (Pictures([3, 5, 10]), Pictures([10, 5]), ["3", "5", "10"], [2, 1]),
        (Pictures([0, 1, 2], ["a", "b", "c"]), Pictures([0, 1], ["b", "c"]), ["a", "b", "c"], [1, 2]),
        (Pictures([0, 1, 2], ["a", "b", "c"]), Pictures([2, 1]), ["a", "b", "c"], [2, 1]),
        (
            Pictures([0, 1, 2], ["a", "crane", "crane"]),
            Pictures([2], ["a", "crane", "crane"]),
            ["a", "crane", "crane (2)"],
            [2],
        ),
    ],
)
def test_a_test_split_is_numbered_as_the_training_split(
    train: Pictures, test: Pictures, classes: list[str], found: list[int]
) -> None:
    first, second = splits((train, test))
    assert first.labels.tolist() == [0, 1, 2]
    assert second.classes == first.classes == classes
    assert second.labels.tolist() == found


def test_a_class_of_the_test_split_alone_is_named() -> None:
    name = name_of((Pictures(["cat", "dog"]), Pictures(["dog", "yak"])))
    with pytest.raises(ValueError, match="test split has classes that the training split has not: yak"):
        load_images(name, "test")


def test_a_test_split_whose_labels_are_kept_secret_is_none() -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    labels = {"train": [0, 1] * 5, "validation": [1, 1, 0], "test": [-1, -1]}
    parts = {
        split: datasets.Dataset.from_dict(
            {"image": [Image.fromarray(pixels) for pixels in PIXELS[: len(some)]], "label": some}, features=features
        )
        for split, some in labels.items()
    }
    train, test = splits(datasets.DatasetDict(parts))
    assert (len(train), test.labels.tolist(), test.classes) == (10, [1, 1, 0], ["cat", "dog"])
    train, test = splits((Pictures([0, 1] * 5), Pictures([None, None])))
    assert (len(train), len(test), test.labelled) == (8, 2, True)
    assert "the test split has no labels, and is left out" in train.notes


def test_classes_too_small_to_hold_any_out_are_left_aside() -> None:
    train = load_images(name_of(Pictures(["cat", "dog", "yak"])), "train")
    assert (len(train), train.labelled) == (3, False)
    assert "too few images a class to hold a fifth out for testing: the classes are left aside" in train.notes
    with pytest.raises(ValueError, match="too few images a class"):
        load_images(name_of(Pictures(["cat", "dog", "yak"])), "test")


def test_some_labels_or_several_are_refused() -> None:
    with pytest.raises(ValueError, match="every example or for none, but 2 of 4 are None or -1"):
        load_images(name_of(Pictures([0, -1, 1, -1], ["cat", "dog"])), "train")
    with pytest.raises(ValueError, match="every example or for none, but 1 of 2 are None or -1"):
        load_images(name_of(Pictures([0, None])), "train")
    with pytest.raises(TypeError, match="one an example, got Tensor: give the images alone"):
        load_images(name_of(Pictures([torch.tensor([0, 1])] * 2)), "train")
    assert load_images(name_of(Pictures([-1, 1] * 5)), "train").classes == ["-1", "1"]
    assert not load_images(name_of(Pictures([-1, -1], ["cat", "dog"])), "train").labelled


def test_no_image_is_read_for_a_label_that_is_kept_beside_it() -> None:
    pictures = Pictures([0, 1] * 20, ["cat", "dog"])
    parts = ConcatDataset([Subset(pictures, range(10)), Subset(pictures, range(20, 30))])
    name = name_of(parts)
    pictures.reads = 0
    assert glance(name)[0] == 16
    assert pictures.reads <= 17
    assert load_images(name, "train").classes == ["cat", "dog"]


def test_other_labels_are_read_once() -> None:
    pictures = Pictures([0, 1] * 20, kept=False)
    name = name_of(pictures)
    load_images(name, "train")
    before = pictures.reads
    load_images(name, "train")
    assert pictures.reads - before < 2 * 40  # the images of the training split, not those of all for their labels


def test_labels_that_a_dataset_transforms_are_the_transformed_ones() -> None:
    pictures = Pictures([0, 1, 2, 3] * 5)
    pictures.targets = [7] * 20
    pictures.target_transform = abs
    assert splits(pictures)[0].classes == ["0", "1", "2", "3"]
