"""The datasets by name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from sslfast._outside import is_outside
from sslfast._words import nearest
from sslfast.data.documents import FILE
from sslfast.data.embedded import load_digits, load_photos
from sslfast.data.folder import list_folder, samples, settled
from sslfast.data.given import list_given, name_of
from sslfast.data.images import FolderImages, ImageSet
from sslfast.data.shards import WDS, list_shards
from sslfast.data.statistics import statistics
from sslfast.data.torchvision_sets import load_torchvision

WHOLE = 2**20  # px; no image is shrunk
SPLITS = ("train", "test")
FOLDER = "folder:"
ROOT = Path("data")
LUMA = (0.2989, 0.587, 0.114)  # torchvision's gray


class Dataset(NamedTuple):
    """What a dataset is, and the mean and standard deviation of its training images in [0, 1], one a channel."""

    summary: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


DATASETS: dict[str, Dataset] = {
    "digits": Dataset("handwritten digits, 10 classes, 1x8x8; comes with scikit-learn", (0.3054,), (0.3760,)),
    "photos": Dataset(
        "crops of 12 photographs, 3x64x64; come with scikit-learn and scikit-image",
        (0.4882, 0.4298, 0.3986),
        (0.2615, 0.2280, 0.2386),
    ),
    "cifar10": Dataset("CIFAR-10, 3x32x32; download", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Dataset("CIFAR-100, 3x32x32; download", (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "stl10": Dataset("STL-10, labelled part, 3x96x96; download", (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)),
    "stl10-unlabeled": Dataset(
        "STL-10, 100,000 images without labels, 3x96x96; download", (0.4467, 0.4398, 0.4066), (0.2603, 0.2566, 0.2713)
    ),
    FOLDER + "PATH": Dataset(  # ImageNet's
        "images below PATH, with or without folders for classes and splits",
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
    ),
}
OWN = f"{WDS}SHARDS or an import path module:name"  # data that are somebody's own, besides a folder


def load_images(
    name: str,
    split: str | None,
    *,
    root: str | Path | None = None,
    download: bool = False,
    source_size: int = 256,
    seed: int = 0,
    skip_corrupt: bool = False,
) -> ImageSet:
    """A split of a dataset; the same arguments give the same images in the same order.

    Args:
        name: digits, photos, cifar10, cifar100, stl10, stl10-unlabeled (which has no test split), folder:PATH (see
            `folder.load_folder`), wds:SHARDS (see `shards.list_shards`), or what stands for a dataset in Python (see
            `given.list_given`).
        split: train or test; None for all of one's own images.
        root: where the files of cifar10, cifar100, stl10 and stl10-unlabeled are, or are downloaded to; ./data if None.
        download: fetch them if they are not there.
        source_size: shorter side in pixels to which larger images of a folder are shrunk.
        seed: draws the test split of digits and of folders without one, and the crops of photos.
        skip_corrupt: go on without the files of a folder that cannot be read, and name them in the set's `corrupt`.

    Raises:
        ValueError: an unknown name or split; a folder or an image in it that cannot be read.
        FileNotFoundError: the files of a dataset are missing; says how to get them and where they belong.
        ImportError: a package is missing; says what to install.
    """
    _look_up(name)
    if split not in SPLITS and not (split is None and is_own(name)):
        raise ValueError(f"split must be {' or '.join(SPLITS)}, got {split!r}")
    if is_own(name):
        return settled(list_own(name, split, source_size=source_size, seed=seed, skip_corrupt=skip_corrupt))
    if name == "digits":
        return load_digits(split, seed)
    if name == "photos":
        return load_photos(split, seed)
    return load_torchvision(name, split, root=Path(root or ROOT), download=download)


def normalization(name: str, *, gray: bool = False) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of a dataset's training images in [0, 1]; of ImageNet for a folder; with `gray` those of their luma.

    Channels are taken as fully correlated there, which overstates the luma's std a little.
    """
    dataset = _look_up(name)
    return _of_luma(*dataset[1:]) if gray and len(dataset.mean) == 3 else dataset[1:]


def is_own(name: str) -> bool:
    """Whether the images are somebody's own: a folder, shards, or a dataset in Python."""
    if name in DATASETS or name.startswith(FILE):
        return False
    return name.startswith((FOLDER, WDS)) or is_outside("data", name)


def list_own(name: str, split: str | None, *, skip_corrupt: bool = False, **options: Any) -> FolderImages:
    """A split of one's own images, none of which is held in memory.

    Args:
        options: those of `list_folder`.
    """
    if name.startswith(FOLDER):
        return list_folder(_path(name), split, skip_corrupt=skip_corrupt, **options)
    if name.startswith(WDS):
        return list_shards(name.removeprefix(WDS), split, skip_corrupt=skip_corrupt, **options)
    return list_given(name, split, **options)


def tells_apart(name: str, **options: Any) -> bool:
    """Whether the training images of a dataset have labels of several classes; of one's own only the first is read.

    Args:
        options: those of `list_own`.
    """
    return list_own(name, "train", **options).labelled if is_own(name) else name != "stl10-unlabeled"


def own_normalization(name: str, **options: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of one's own training images: ImageNet's for 8 bits and three channels, else their own.

    Args:
        options: those of `list_own`.
    """
    images = list_own(name, "train", **options)
    return normalization(name) if (images.channels, images.dtype) == (3, torch.uint8) else statistics(images)


def glance(name: str) -> tuple[int, int]:
    """How many training images of one's own there are, and the median of the shorter sides of a few, in pixels."""
    images = list_own(name, "train", source_size=WHOLE, skip_corrupt=True)
    sides = sorted(min(image.shape[1:]) for image in samples(images))
    return len(images), sides[len(sides) // 2]


def normalization_of(config: Any, *, gray: bool = False) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of a run on images: its `mean` and `std` if it has any, else those of its `data`."""
    found = (config.mean, config.std) if config.mean else normalization(config.data)
    return _of_luma(*found) if gray and len(found[0]) == 3 else found


def _path(name: str) -> Path:
    return Path(os.path.expanduser(name.removeprefix(FOLDER)))


def _look_up(name: str) -> Dataset:
    key = FOLDER + "PATH" if is_own(name) and name not in (FOLDER, WDS) else name
    if key not in DATASETS:
        meant = f"; did you mean {FOLDER}{name}?" if name and os.path.isdir(os.path.expanduser(name)) else ""
        meant = meant or nearest(name, DATASETS)
        raise ValueError(f"data must be one of {', '.join(DATASETS)}, {OWN}, got {name!r}{meant}")
    return DATASETS[key]


def located(data: Any) -> str:
    """The name of a data set, of text too, with the path that is in it absolute; see `given.name_of` for an object."""
    name = name_of(data)
    kind, colon, path = name.partition(":")
    if f"{kind}:" not in (FOLDER, WDS, FILE) or not path:
        return name
    return kind + colon + os.path.abspath(os.path.expanduser(path))


def _of_luma(*values: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    return tuple((sum(w * x for w, x in zip(LUMA, three)),) for three in values)
