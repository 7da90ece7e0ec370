"""Image folders: a subfolder for each class."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sslfast.data.decode import Unreadable, read, read_all, read_square
from sslfast.data.images import FolderImages, ImageSet, TensorImages

IN_MEMORY = 2**30  # bytes; larger sets are read from their files
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


def load_folder(
    folder: str | Path, split: str, *, resize: int = 256, seed: int = 0, skip_corrupt: bool = False
) -> ImageSet:
    """A split of an image folder, in RGB; the class of an image is the subfolder that it lies in, at any depth.

    `folder` holds train/ and test/ (or val/), or the classes themselves; then a fifth of every class, drawn by `seed`,
    is the test split. Every file of a class counts, except hidden ones.

    Images that all have the same size, with a shorter side up to `resize`, stay as they are. Otherwise each is resized
    to a shorter side of `resize` pixels and its middle (resize, resize) is cut out. Up to 1 GiB a split is held in
    memory, a larger one is read from its files.

    With `skip_corrupt`, files that cannot be read are named in the set's `corrupt` instead of being an error. A set in
    memory is without them. Of a set in files they are found when their batch is due, and the next readable image of the
    class takes their place, so that the set keeps its length and batches their size.

    Raises:
        ValueError: the folder or a class does not exist, holds no images, or the class is not in train/; an image
            cannot be read (at once if the split is held in memory, else when its batch is due), or none can.
    """
    paths, labels, classes = list_split(Path(folder), split, seed)
    corrupt = {} if skip_corrupt else None
    channels, height, width = _first_shape(paths, skip_corrupt)
    images = None
    if min(height, width) <= resize and len(paths) * channels * height * width <= IN_MEMORY:
        images = read_all(paths, (channels, height, width), read, corrupt)
    if images is None and len(paths) * channels * resize**2 <= IN_MEMORY:
        images = read_all(paths, (channels, resize, resize), partial(read_square, resize=resize), corrupt)
    if images is None:
        return FolderImages(paths, labels, classes, resize, skip_corrupt=skip_corrupt)
    if corrupt:
        whole = torch.tensor([str(path) not in corrupt for path in paths])
        images, labels = images[whole], labels[whole]
    return TensorImages(images, labels, classes, dict(sorted((corrupt or {}).items())))


def _first_shape(paths: list[Path], skip_corrupt: bool) -> torch.Size:
    """The shape of the first image that can be read."""
    for path in paths:
        try:
            return read(path).shape
        except Unreadable as error:
            if not skip_corrupt:
                raise
            last = error
    raise ValueError(f"none of the {len(paths)} images can be read, the last: {last.path}: {last.reason}")


def list_split(folder: Path, split: str, seed: int) -> tuple[list[Path], Tensor, list[str]]:
    """Files, labels (N,) and class names of a split, in the order of classes and names."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    test = next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)
    train = folder / "train" if (folder / "train").is_dir() else None
    if (train is None) != (test is None):
        raise ValueError(f"{train or test} has no {'test/ or val/' if train else 'train/'} beside it")
    if train is None:
        files = {name: _part(paths, split, seed) for name, paths in _list_classes(folder).items()}
        classes = list(files)
        if not any(files.values()):
            raise ValueError(f"{folder} has too few images a class to leave a fifth for the test split")
    else:
        files = _list_classes(train)
        classes = list(files)
        if split == "test":
            files = _list_classes(test)
            if strange := set(files) - set(classes):
                raise ValueError(f"{test} has classes that {train} has not: {', '.join(sorted(strange))}")
    paths = [path for name in files for path in files[name]]
    labels = [classes.index(name) for name in files for _ in files[name]]
    return paths, torch.tensor(labels), classes


def _list_classes(folder: Path) -> dict[str, list[Path]]:
    """Class name -> its files, both sorted."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    if loose := [entry for entry in entries if entry.is_file() and entry.suffix.lower() in SUFFIXES]:
        raise ValueError(f"{loose[0]} lies in no class: put it into a subfolder of {folder}, named for its class")
    classes = {entry.name: _list_files(entry) for entry in entries if entry.is_dir()}
    if not classes:
        raise ValueError(f"{folder} has no classes: there must be a subfolder of images for each")
    if empty := [name for name, paths in classes.items() if not paths]:
        raise ValueError(f"{folder / empty[0]} has no images")
    return classes


def _list_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(found)


def _part(paths: list[Path], split: str, seed: int) -> list[Path]:
    order = torch.randperm(len(paths), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out = round(len(paths) / 5)
    return sorted(paths[i] for i in (order[:held_out] if split == "test" else order[held_out:]))
