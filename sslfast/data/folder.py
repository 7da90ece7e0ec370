"""Image folders of any layout."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from sslfast._files import printable
from sslfast.augment import stacked
from sslfast.data.decode import Unreadable, read
from sslfast.data.duplicates import hold_out
from sslfast.data.examples import FIFTH, NO_LABELS, TOO_FEW
from sslfast.data.images import FolderImages, ImageSet, TensorImages
from sslfast.data.layout import Groups, understand
from sslfast.data.paths import Paths
from sslfast.data.tree import list_tree

IN_MEMORY = 2**30  # bytes; larger sets are read from their files
SAMPLES = 32  # images that are looked at to know how much memory all would take
NAMES = 3  # classes that are named in what was understood


def load_folder(
    folder: str | Path, split: str, *, source_size: int = 256, seed: int = 0, skip_corrupt: bool = False
) -> ImageSet:
    """A split of an image folder; see `layout.understand` for what its subfolders mean.

    Of classes without a test split, a fifth of each, drawn by `seed`, is the test split; files of the same bytes are in
    one split only. Without labels all images are the training split.

    Images keep their shape; larger ones are shrunk to a shorter side of `source_size` (see `decode.read`). The first
    one that can be read decides how many channels, and of which type, all have. Up to 1 GiB a split is held in memory,
    a larger one is read from its files.

    With `skip_corrupt`, files that cannot be read are named in the set's `corrupt` instead of being an error. A set in
    memory is without them. Of a set in files they are found when their batch is due, and the next readable image of the
    class takes their place, so that the set keeps its length and batches their size.

    Raises:
        ValueError: the folder does not exist or holds no images; there is no such split, or it has a class that is not
            in train/; an image cannot be read (at once if the split is held in memory, else when its batch is due), or
            none can.
        OSError: a directory cannot be read.
    """
    return settled(list_folder(folder, split, source_size=source_size, seed=seed, skip_corrupt=skip_corrupt))


def settled(files: FolderImages) -> ImageSet:
    """The same images, in memory if there is room for all of them; the notes say what they are like."""
    looked_at = samples(files)
    images = _in_memory(files) if len(files) * _place(looked_at) <= IN_MEMORY else files
    images.notes = (*files.notes, _about(looked_at))
    return images


def list_folder(
    folder: str | Path, split: str | None, *, source_size: int = 256, seed: int = 0, skip_corrupt: bool = False
) -> FolderImages:
    """The same as files, of which only the first is read; `split` None is all of them."""
    root = Path(folder)
    groups, classes, notes = _listed(root, split, seed)
    paths = Paths(root, [path for group in groups.values() for path in group])
    number = {name: classes.index(name) if classes else 0 for name in groups}
    labels = torch.tensor([number[name] for name, group in groups.items() for _ in group])
    first = _first(paths, source_size, skip_corrupt)
    kind = {"channels": len(first), "dtype": first.dtype, "skip_corrupt": skip_corrupt}
    files = FolderImages(paths, labels, [printable(name) for name in classes], source_size, **kind)
    files.notes = notes
    return files


def samples(files: FolderImages) -> list[Tensor]:
    """A few of the images, at least one, spread evenly over the set; what is unreadable is no matter here."""
    found = [image for image in _tried(files, evenly(len(files), SAMPLES)) if isinstance(image, Tensor)]
    return found or [_first(files.paths, files.source_size, files.skip_corrupt)]


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of `count` places, evenly spread."""
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).round().long().tolist()


def _tried(files: FolderImages, places: Sequence[int]) -> Iterator[Tensor | Unreadable]:
    """Images, or what is wrong with one, read by as many threads as there are cores."""

    def attempt(place: int) -> Tensor | Unreadable:
        try:
            return files.load(place)
        except Unreadable as error:
            return error

    with ThreadPoolExecutor(files.threads or os.cpu_count()) as pool:
        try:
            yield from pool.map(attempt, places)
        finally:
            pool.shutdown(cancel_futures=True)  # of what is left after a failure


def _in_memory(files: FolderImages) -> ImageSet:
    """The same images as one tensor, unless their sizes turn out to differ too much for it."""
    images, whole, corrupt = [], [], {}
    for place, found in enumerate(_tried(files, range(len(files)))):
        if isinstance(found, Tensor):
            images.append(found)
            whole.append(place)
        elif files.skip_corrupt:
            corrupt[str(found.path)] = found.reason
        else:
            raise found
    if len(images) * _place(images) > IN_MEMORY:
        return files
    found = TensorImages(stacked(images), files.labels[whole], files.classes, corrupt)
    found.paths = [files.paths[place] for place in whole]
    return found


def _place(images: Sequence[Tensor]) -> int:
    """Bytes that one of these images takes beside the others."""
    heights, widths = zip(*(image.shape[1:] for image in images))
    return len(images[0]) * max(heights) * max(widths) * images[0].element_size()


def _about(images: Sequence[Tensor]) -> str:
    """What the images are like, as far as was looked."""
    sizes = sorted({tuple(image.shape[1:]) for image in images}, key=lambda size: (size[0] * size[1], size))
    span = [f"{height} x {width}" for height, width in (sizes if len(sizes) == 1 else (sizes[0], sizes[-1]))]
    kind = f"{str(images[0].dtype).removeprefix('torch.')}, {len(images[0])} channels"
    left_out = "" if len(images[0]) == 3 else "; saturation, hue and grayscale are left out of their views"
    return f"sources of {' to '.join(span)} px, {kind}{left_out}"


def _first(paths: Paths, source_size: int, skip_corrupt: bool) -> Tensor:
    """The first image that can be read."""
    for path in paths:
        try:
            return read(path, source_size)
        except Unreadable as error:
            if not skip_corrupt:
                raise
            last = error
    raise ValueError(f"none of the {len(paths)} images can be read, the last: {last.path}: {last.reason}")


def _listed(folder: Path, split: str | None, seed: int) -> tuple[Groups, list[str], tuple[str, ...]]:
    """Paths by class of a split, the names of the classes (none without labels), and what was understood."""
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    tree = list_tree(folder)
    if not tree.images:
        raise ValueError(f"{folder} has no images" + (f"; {tree.passed()}" if tree.passed_over else ""))
    layout = understand(tree.images)
    train, test, notes = layout.train, layout.test, list(layout.notes)
    classes = list(train) if layout.labelled else []
    if split is None:
        together = {name: [*train.get(name, []), *(test or {}).get(name, [])] for name in {**train, **(test or {})}}
        return together, classes, (printable(f"{folder}: {_count(together)} images"), *map(printable, notes))
    if test is None and layout.labelled:
        train, test, copies = hold_out(folder, train, seed)
        alone = not any(test.values())
        notes.append(TOO_FEW if alone else FIFTH)
        if copies:
            notes.append(f"{copies} files are copies of another one, and on its side")
        if alone and split == "train":
            test, classes = None, []
    chosen = train if split == "train" else test
    if chosen is None:
        raise ValueError(
            f"{folder} has no labels and no test split: judge the network on images in class folders (evaluate --data)"
        )
    if not any(chosen.values()):
        raise ValueError(f"{folder} has too few images a class to leave a fifth for the test split")
    counts = [f"{_count(part)} {word}" for part, word in ((train, "training"), (test or {}, "test")) if part]
    names = ", ".join(classes[:NAMES] + ["…"] * (len(classes) > NAMES))
    kinds = f"{len(classes)} classes ({names})" if classes else NO_LABELS
    notes = [f"{folder}: {' and '.join(counts)} images; {kinds}", *notes, *filter(None, [tree.passed()])]
    return chosen, classes, tuple(map(printable, notes))


def _count(groups: Groups) -> int:
    return sum(map(len, groups.values()))
