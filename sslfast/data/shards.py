"""WebDatasets: images and labels in tar shards, read in the order in which they lie there."""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from functools import cache
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sslfast.data.decode import Unreadable, converted, from_bytes, shrunk
from sslfast.data.examples import NO_LABELS
from sslfast.data.given import split_off
from sslfast.data.images import FolderImages
from sslfast.data.labels import NO_TEST_LABELS, in_classes_of
from sslfast.data.layout import TEST, TRAIN
from sslfast.data.paths import Paths
from sslfast.data.tree import SUFFIXES

WDS = "wds:"
BUFFER = 5000  # examples among which the order is random, so that a shard is read nearly from front to end
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


class ShardImages(FolderImages):
    """Examples of tar shards, read when they are due.

    An epoch goes through the shards in a random order, and shuffles what comes from them within a buffer; it can begin
    at any batch without reading what comes before.

    Args:
        shards: paths of the tar files.
        members: (N, 3) int64: shard, offset in it, length in bytes, in the order in which they lie there.
        names: of the N examples, SHARD/KEY.
    """

    def __init__(
        self,
        shards: list[Path],
        members: np.ndarray,
        names: list[str],
        labels: Tensor,
        classes: list[str],
        source_size: int,
        *,
        skip_corrupt: bool = False,
    ) -> None:
        self.shards, self.members = shards, members
        super().__init__(Paths(Path(), names), labels, classes, source_size, skip_corrupt=skip_corrupt)
        first = self._first()
        self.channels, self.dtype = len(first), first.dtype

    def load(self, place: int) -> Tensor:
        image = shrunk(self._decoded(place), self.source_size)
        try:
            return converted(image, self.channels, self.dtype)
        except ValueError as error:
            raise Unreadable(self.paths[place], str(error)) from error

    def order(self, random: np.random.Generator) -> Tensor:
        shard = self.members[:, 0]
        turn = random.permutation(len(self.shards))[shard]
        streamed = np.argsort(turn, kind="stable")
        shuffled = np.argsort(np.arange(len(shard)) + random.uniform(0, BUFFER, len(shard)), kind="stable")
        return torch.from_numpy(streamed[shuffled])

    def _decoded(self, place: int) -> Tensor:
        shard, offset, length = self.members[place].tolist()
        with open(self.shards[shard], "rb") as file:
            file.seek(offset)
            content = file.read(length)
        return from_bytes(content, self.paths[place])

    def _first(self) -> Tensor:
        for place in range(len(self)):
            try:
                return self._decoded(place)
            except Unreadable as error:
                if not self.skip_corrupt:
                    raise
                last = error
        raise ValueError(f"none of the {len(self.paths)} images can be read, the last: {last}")


def list_shards(
    pattern: str, split: str | None, *, source_size: int, seed: int = 0, skip_corrupt: bool = False
) -> ShardImages:
    """A split of a WebDataset; see `split_of` for which shards are in which.

    An example is the files of one key: an image, and perhaps a label, KEY.cls with an integer or KEY.json with "label".

    Args:
        pattern: a folder of tar files, or paths with *, ? and {000..009}.
        split: train, test, or None for everything.

    Raises:
        ValueError: there is no such shard, or one is damaged, or no image in them; there is no test split.
    """
    chosen = _shards(pattern)
    parts = [[shard for shard in chosen if split_of(shard) == name] for name in ("train", "test")]
    notes = []
    if own := bool(split and all(parts)):
        train, test = (_listed(part, pattern) for part in parts)
        if train.classes and not test.classes:
            own = False
            notes.append(NO_TEST_LABELS)
        elif train.classes:
            test = test._replace(labels=in_classes_of(train.classes, test.labels, test.classes), classes=train.classes)
        found, chosen = (test, parts[1]) if own and split == "test" else (train, parts[0])
    else:
        found = _listed(chosen, pattern)
    places = torch.arange(len(found.names))
    if not own:
        places, labels, classes, note = split_off(found.labels, found.classes, split, seed, WDS + pattern)
        found = found._replace(labels=labels, classes=list(classes))
        notes += [note] if note else []
    kept = places.tolist()
    images = ShardImages(
        chosen,
        found.members[kept],
        [found.names[k] for k in kept],
        found.labels[places],
        found.classes,
        source_size,
        skip_corrupt=skip_corrupt,
    )
    kinds = f"{len(found.classes)} classes" if found.classes else NO_LABELS
    about = f"{WDS}{pattern}: {len(kept)} images in {len(chosen)} shards; {kinds}"
    images.notes = (about, *notes)
    return images


class _Listed(NamedTuple):
    """The examples of some shards."""

    members: np.ndarray
    names: list[str]
    labels: Tensor
    classes: list[str]


def _listed(shards: list[Path], pattern: str) -> _Listed:
    members, names, values = [], [], []
    for number, shard in enumerate(shards):
        for key, offset, length, label in _index(shard, os.stat(shard).st_mtime_ns):
            members.append((number, offset, length))
            names.append(f"{shard.parent.name}/{shard.name}/{key}")
            values.append(label)
    if not members:
        raise ValueError(f"{WDS}{pattern} has no images in its {len(shards)} shards")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{WDS}{pattern} has the key {twice} twice")
    return _Listed(np.array(members, dtype=np.int64), names, *_labels(values, names, pattern))


def split_of(shard: Path) -> str:
    """test, if its name or its folder's has a word for it (`test-000.tar`, `val/000.tar`), else train."""
    words = re.findall(r"[a-z]+", f"{shard.parent.name} {shard.stem}".lower())
    return "test" if set(words) & set(TEST) and not set(words) & TRAIN else "train"


def _shards(pattern: str) -> list[Path]:
    if re.match(r"(\w+://|pipe:)", pattern):
        raise ValueError(f"{WDS}{pattern} is no path: shards are read from files, which a mounted folder can be")
    where = Path(os.path.expanduser(pattern))
    if where.is_dir():
        found = sorted(where.rglob("*.tar"))
    else:
        found = sorted(Path(path) for one in _braces(str(where)) for path in glob.glob(one))
    if not found:
        raise ValueError(f"there are no shards {pattern}: a folder of .tar files, or paths with *, ? and {{000..009}}")
    return found


def _braces(pattern: str) -> list[str]:
    """The patterns that ranges like {000..009} stand for."""
    ranges = [[f"{k:0{len(low)}}" for k in range(int(low), int(high) + 1)] for low, high in RANGE.findall(pattern)]
    fixed = RANGE.split(pattern)[::3]
    return ["".join(a + b for a, b in zip(fixed, [*chosen, ""])) for chosen in product(*ranges)]


@cache  # the two splits are made one after the other
def _index(shard: Path, time: int) -> list[tuple[str, int, int, str | None]]:
    """Key, offset and length of every image in a shard that was last changed at `time`, and its label's text."""
    found: dict[str, tuple[int, int]] = {}
    labels: dict[str, str] = {}
    try:
        with tarfile.open(shard) as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                name, _, kind = path.name.partition(".")
                key = str(path.parent / name)
                if not member.isfile():
                    continue
                if f".{kind.lower()}" in SUFFIXES:
                    found[key] = member.offset_data, member.size
                elif kind == "cls":
                    labels[key] = archive.extractfile(member).read().decode().strip()
                elif kind == "json":
                    about = json.loads(archive.extractfile(member).read())
                    if isinstance(about, dict) and "label" in about:
                        labels[key] = str(about["label"])
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ValueError(f"shard {shard} is damaged: {error}") from error
    return [(key, *where, labels.get(key)) for key, where in found.items()]


def _labels(values: list[str | None], names: list[str], pattern: str) -> tuple[Tensor, list[str]]:
    if all(value is None for value in values):
        return torch.zeros(len(values), dtype=torch.int64), []
    if None in values:
        raise ValueError(f"{WDS}{pattern} has labels, but {names[values.index(None)]} has none")
    numbers = all(value.isdecimal() for value in values)
    classes = sorted(set(values), key=(lambda value: (int(value), value)) if numbers else None)
    number = {value: k for k, value in enumerate(classes)}
    return torch.tensor([number[value] for value in values]), classes
