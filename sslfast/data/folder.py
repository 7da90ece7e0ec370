"""Image folders of any layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sslfast._files import printable
from sslfast.data.decode import Unreadable, read, read_all, read_square
from sslfast.data.duplicates import hold_out
from sslfast.data.images import FolderImages, ImageSet, TensorImages
from sslfast.data.layout import Groups, understand
from sslfast.data.paths import Paths
from sslfast.data.tree import list_tree

IN_MEMORY = 2**30  # bytes; larger sets are read from their files
NAMES = 3  # classes that are named in what was understood


def load_folder(
    folder: str | Path, split: str, *, resize: int = 256, seed: int = 0, skip_corrupt: bool = False
) -> ImageSet:
    """A split of an image folder, in RGB; see `layout.understand` for what its subfolders mean.

    Of classes without a test split, a fifth of each, drawn by `seed`, is the test split; files of the same bytes are in
    one split only. Without labels all images are the training split.

    Images that all have the same size, with a shorter side up to `resize`, stay as they are. Otherwise each is resized
    to a shorter side of `resize` pixels and its middle (resize, resize) is cut out. Up to 1 GiB a split is held in
    memory, a larger one is read from its files.

    With `skip_corrupt`, files that cannot be read are named in the set's `corrupt` instead of being an error. A set in
    memory is without them. Of a set in files they are found when their batch is due, and the next readable image of the
    class takes their place, so that the set keeps its length and batches their size.

    Raises:
        ValueError: the folder does not exist or holds no images; there is no such split, or it has a class that is not
            in train/; an image cannot be read (at once if the split is held in memory, else when its batch is due), or
            none can.
        OSError: a directory cannot be read.
    """
    root = Path(folder)
    groups, classes, notes = _listed(root, split, seed)
    names = [path for group in groups.values() for path in group]
    paths = Paths(root, names)
    found = [classes.index(name) if classes else 0 for name, group in groups.items() for _ in group]
    images = _load(paths, torch.tensor(found), [printable(name) for name in classes], resize, skip_corrupt)
    images.notes = notes
    return images


def _load(paths: Paths, labels: Tensor, classes: list[str], resize: int, skip_corrupt: bool) -> ImageSet:
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


def _first_shape(paths: Paths, skip_corrupt: bool) -> torch.Size:
    """The shape of the first image that can be read."""
    for path in paths:
        try:
            return read(path).shape
        except Unreadable as error:
            if not skip_corrupt:
                raise
            last = error
    raise ValueError(f"none of the {len(paths)} images can be read, the last: {last.path}: {last.reason}")


def _listed(folder: Path, split: str, seed: int) -> tuple[Groups, list[str], tuple[str, ...]]:
    """Paths by class of a split, the names of the classes (none without labels), and what was understood."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    tree = list_tree(folder)
    if not tree.images:
        raise ValueError(f"{folder} has no images" + (f"; {tree.passed()}" if tree.passed_over else ""))
    layout = understand(tree.images)
    train, test, notes = layout.train, layout.test, list(layout.notes)
    classes = list(train) if layout.labelled else []
    if test is None and layout.labelled:
        train, test, copies = hold_out(folder, train, seed)
        notes.append("a fifth of every class is held out for testing")
        if copies:
            notes.append(f"{copies} files are copies of another one, and on its side")
    chosen = train if split == "train" else test
    if chosen is None:
        raise ValueError(
            f"{folder} has no labels and no test split: judge the network on images in class folders (evaluate --data)"
        )
    if not any(chosen.values()):
        raise ValueError(f"{folder} has too few images a class to leave a fifth for the test split")
    counts = [f"{_count(part)} {word}" for part, word in ((train, "training"), (test or {}, "test")) if part]
    names = ", ".join(classes[:NAMES] + ["…"] * (len(classes) > NAMES))
    kinds = f"{len(classes)} classes ({names})" if classes else "no labels: kNN and what else needs labels is left out"
    notes = [f"{folder}: {' and '.join(counts)} images; {kinds}", *notes, *filter(None, [tree.passed()])]
    return chosen, classes, tuple(map(printable, notes))


def _count(groups: Groups) -> int:
    return sum(map(len, groups.values()))
