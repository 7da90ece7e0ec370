"""Datasets that are Python objects: torch's, those of Hugging Face, arrays and lists of images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslfast._outside import keep, outside, path_of
from sslfast.data.decode import Unreadable, converted, from_object, shrunk
from sslfast.data.duplicates import a_fifth
from sslfast.data.examples import FIFTH, NO_LABELS, TOO_FEW
from sslfast.data.images import FolderImages
from sslfast.data.labels import LABEL, NO_TEST_LABELS, class_names, in_classes_of, kept_labels, numbered
from sslfast.data.paths import Paths

IMAGE = ("image", "img", "pixel_values", "jpg", "png")  # columns, the first that there is
TEST = ("test", "validation", "val")
LOOKED_AT = 4  # examples that make up a digest

_made: dict[str, tuple[Any, tuple[Source, list[Source]]]] = {}  # by name: the object, and its splits


class Source:
    """One split of such a dataset: images and, where it has them, labels.

    Args:
        items: has a length and, by number, examples: an image; (image, label, …); a mapping with a column of IMAGE and
            perhaps one of LABEL.
        labels: of all examples, if `items` has images only.

    Raises:
        TypeError: it has no length, or its examples are something else. ValueError: it is empty.
    """

    def __init__(self, items: Any, labels: Any = None) -> None:
        if not hasattr(items, "__getitem__") or not hasattr(items, "__len__"):
            raise TypeError(
                f"data must have a length and examples by number, which {type(items).__name__} has not: write a stream "
                "to tar shards, and give wds:SHARDS"
            )
        if len(items) == 0:
            raise ValueError(f"data is empty: {type(items).__name__} of no examples")
        self.items, self._labels = items, labels

    def __len__(self) -> int:
        return len(self.items)

    def image(self, index: int) -> Tensor:
        """(C, H, W), see `decode.from_object`."""
        return from_object(self._parts(index)[0])

    def labelled(self, train: Source | None = None) -> tuple[Tensor, list[str]]:
        """A label (N,) int64 for every example, all 0 without labels, and the classes' names, none without labels.

        Args:
            train: the training split, if this is a test split: its classes count.

        Raises:
            TypeError, ValueError: see `labels.numbered`, and `labels.in_classes_of`.
        """
        names = class_names(self.items)
        if train is None:
            return numbered(self._values, names)
        classes = train.labelled()[1]
        labels, own = numbered(self._values, names or class_names(train.items))
        return (in_classes_of(classes, labels, own), classes) if own and classes else (labels, own)

    def _parts(self, index: int) -> tuple[Any, Any]:
        item = self.items[index]
        if isinstance(item, Mapping):
            image = next((item[name] for name in IMAGE if name in item), None)
            if image is None:
                raise TypeError(f"an example of data must have one of {', '.join(IMAGE)}, got {', '.join(item)}")
            return image, next((item[name] for name in LABEL if name in item), None)
        if isinstance(item, tuple | list):
            return item[0], item[1] if len(item) > 1 else None
        return item, None

    @cached_property
    def _values(self) -> Sequence[Any]:
        """A label an example, each None if there are none; every example is read if they are nowhere else."""
        if self._labels is not None:
            return list(self._labels)
        kept = kept_labels(self.items)
        if kept is None and self._parts(0)[1] is None:
            return [None] * len(self)
        return kept if kept is not None else [self._parts(index)[1] for index in range(len(self))]


def sources(data: Any) -> tuple[Source, list[Source]]:
    """The training split, and its test splits, the best first: of a pair, or a mapping as Hugging Face's DatasetDict.

    (images, labels) with a label each is one split, and a function is asked for "train" and "test".

    Raises:
        TypeError, ValueError: it is no such thing.
    """
    if callable(data) and not hasattr(data, "__getitem__"):
        train, test = data("train"), data("test")
        if train is None:
            raise TypeError(f"data must return a dataset for 'train', {getattr(data, '__name__', data)} returned None")
        return _source(train), [] if test is None else [_source(test)]
    if isinstance(data, Mapping) and "train" in data:
        return _source(data["train"]), [_source(data[name]) for name in TEST if name in data]
    if isinstance(data, tuple) and len(data) == 2 and not _with_labels(data):
        return _source(data[0]), [_source(data[1])]
    return _source(data), []


def _sources_of(name: str) -> tuple[Source, list[Source]]:
    """Those of a name, made once: to build a dataset, and to read its labels, may take long."""
    found = outside("data", name)
    if name not in _made or _made[name][0] is not found:
        _made[name] = found, sources(found)
    return _made[name][1]


def _source(data: Any) -> Source:
    if isinstance(data, tuple) and len(data) == 2 and _with_labels(data):
        if len(data[0]) != len(data[1]):
            raise ValueError(f"data must have a label for each of the {len(data[0])} images, got {len(data[1])}")
        return Source(*data)
    return Source(data)


def _with_labels(pair: tuple[Any, Any]) -> bool:
    """Whether it is (images, labels): the second holds a number or a name for each."""
    second = pair[1]
    if isinstance(second, Tensor | np.ndarray):
        return second.ndim == 1
    return isinstance(second, list | tuple) and bool(second) and isinstance(second[0], int | str | np.integer)


def name_of(data: Any) -> str:
    """The name by which `outside("data", …)` finds this object again: its import path, or one for this process.

    The latter is the same in every process that is given the same: its type, its length and a few of its examples.

    Raises:
        TypeError, ValueError: it is no dataset, see `sources`; or an example is another one every time it is read.
    """
    if isinstance(data, str):
        return data
    if isinstance(data, Path):
        return f"folder:{data}"
    if path := path_of(data):
        _made.pop(path, None)
        return path
    digest = hashlib.sha256()
    train, tests = sources(data)
    for source in (train, *tests[:1]):
        digest.update(str(len(source)).encode())
        for index in np.linspace(0, len(source) - 1, min(LOOKED_AT, len(source))).round().astype(int).tolist():
            first, again = (source.image(index) for _ in range(2))
            if not torch.equal(first, again):
                raise ValueError(
                    f"data must give the same example every time, but {type(data).__name__} changes number {index}: "
                    "leave random transforms to preset"
                )
            digest.update(first.numpy().tobytes())
    name = keep(data, digest.hexdigest())
    _made[name] = data, (train, tests)
    return name


class GivenImages(FolderImages):
    """Some examples of a source, read when they are due, as a folder's images are from their files."""

    threads = 1  # nobody knows whether somebody's code may run in several

    def __init__(
        self, source: Source, places: Sequence[int], labels: Tensor, classes: Sequence[str], source_size: int
    ) -> None:
        self.source = source
        first = source.image(places[0])
        super().__init__(
            Paths(Path(), map(str, places)),
            labels,
            classes,
            source_size,
            channels=len(first),
            dtype=first.dtype,
        )

    def load(self, place: int) -> Tensor:
        try:
            image = shrunk(self.source.image(int(self.name(place))), self.source_size)
            return converted(image, self.channels, self.dtype)
        except (ValueError, TypeError) as error:
            raise Unreadable(self.paths[place], str(error)) from error


def list_given(name: str, split: str | None, *, source_size: int, seed: int = 0) -> GivenImages:
    """A split of a dataset in Python; without a test split it is a fifth of every class, drawn by `seed`.

    The classes are those of the training split. A test split without labels is none where that has labels.

    Args:
        name: what `name_of` returned, an import path or an entry point of the group `sslfast.data`.
        split: train, test, or None for all that the training split was drawn from.

    Raises:
        ValueError: there is no test split, or the object is not there. TypeError: it is no dataset.
    """
    train, tests = _sources_of(name)
    labels, classes = train.labelled()
    test = next((part for part in tests if part.labelled(train)[1] or not classes), None)
    notes: list[str] = []
    source = train
    if test is not None:
        if split == "test":
            source = test
            labels, classes = test.labelled(train)
        places = torch.arange(len(source))
    else:
        if tests:
            notes.append(NO_TEST_LABELS)
        places, labels, classes, note = split_off(labels, classes, split, seed, name)
        notes += [note] if note else []
    images = GivenImages(source, places.tolist(), labels[places], classes, source_size)
    kinds = f"{len(classes)} classes" if classes else NO_LABELS
    images.notes = (f"{name}: {len(places)} images; {kinds}", *notes)
    return images


def split_off(
    labels: Tensor, classes: Sequence[str], split: str | None, seed: int, name: str
) -> tuple[Tensor, Tensor, Sequence[str], str | None]:
    """The places of a split of examples that come in one: a fifth of every class is held out; all labels and classes,
    or none where these are too small for that; and a note of it.

    Raises:
        ValueError: they have no labels, so that there is no test split.
    """
    if split is None:
        return torch.arange(len(labels)), labels, classes, None
    if not classes:
        if split == "test":
            raise ValueError(
                f"{name} has no labels and no test split: judge the network on others that have (evaluate --data)"
            )
        return torch.arange(len(labels)), labels, classes, None
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        held_out[a_fifth((labels == label).nonzero().flatten(), seed)] = True
    places = (held_out if split == "test" else ~held_out).nonzero().flatten()
    if not len(places):
        raise ValueError(f"{name} has too few images a class to leave a fifth for the test split")
    if not held_out.any():
        return places, torch.zeros_like(labels), [], TOO_FEW
    return places, labels, classes, FIFTH
