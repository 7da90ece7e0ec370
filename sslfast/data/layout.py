"""What the names in a tree of images mean: splits, classes, or nothing."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

TRAIN = {"train", "training"}
TEST = ("test", "testing", "val", "valid", "validation", "dev")  # the first that there is counts
DATED = re.compile(r"(19|20)\d\d([-_. ]?\d\d){0,2}|\d{3}[A-Z_]{5}|DCIM", re.IGNORECASE)  # by day, or by a camera
UNLABELLED = ""  # the only class of images without labels

Groups = dict[str, list[str]]
Part = list[tuple[str, str]]  # images of a subtree: the path in it, and the whole path


@dataclass
class Layout:
    """How a tree was understood.

    Args:
        train: paths by class; one entry UNLABELLED if there are no labels.
        test: the same of the tree's own test split; None if it has none.
        notes: what a reader should know besides.
    """

    train: Groups
    test: Groups | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        return UNLABELLED not in self.train


def understand(images: Sequence[str]) -> Layout:
    """Find splits and classes in the paths of images, relative to their folder.

    Folders that hold nothing but one folder are looked through. Then there are splits if one folder is called like
    TRAIN and another like TEST (`train`, `Training`, `seg_train`, …; either may be looked through again); a folder
    called `train` beside folders of images that are no splits is one of them, unless it alone has classes. Classes are
    two or more folders with no image beside them that are not named by date. Everything else has no labels.

    Raises:
        ValueError: the test split has a class that the training split has not.
    """
    whole = _look_through([(path, path) for path in images])
    groups, loose = _grouped(whole)
    training, tests = _splits(groups)
    classes = _classes(_look_through(groups[training])) if training else None
    if loose or not training or not tests or (classes is None and len(groups) > 1 + len(tests)):
        return _alone(whole)
    layout = _alone(_look_through(groups[training]))
    found = {name: _test_groups(groups[name], layout) for name in tests}
    test = next((name for name, split in found.items() if split is not None), None)
    if test is not None:
        layout.test = found[test]
        if strange := set(layout.test) - set(layout.train):
            raise ValueError(f"{test}/ has classes that {training}/ has not: {', '.join(sorted(strange))}")
    if left := [name for name in groups if name not in (training, test)]:
        layout.notes.append(f"left out: {', '.join(f'{name}/ with {len(groups[name])} images' for name in left)}")
    return layout


def _alone(images: Part) -> Layout:
    """The layout of images that have no test split of their own."""
    if (classes := _classes(images)) is not None:
        return Layout(classes)
    groups, loose = _grouped(images)
    notes = []
    if loose and groups:
        notes.append(f"no classes, for {loose[0][1]} lies beside the folders")
    elif len(groups) == 1:
        notes.append(f"no classes, for there is only one folder, {next(iter(groups))}/")
    elif groups:
        notes.append("no classes, for the folders are named by date")
    return Layout({UNLABELLED: [path for _, path in images]}, notes=notes)


def _test_groups(images: Part, layout: Layout) -> Groups | None:
    """The images of a test split as the training split is labelled; None if they have no labels and that has."""
    if not layout.labelled:
        return {UNLABELLED: [path for _, path in images]}
    groups, loose = _grouped(_look_through(images, set(layout.train)))
    return None if loose else {name: [path for _, path in part] for name, part in groups.items()}


def _classes(images: Part) -> Groups | None:
    groups, loose = _grouped(images)
    if loose or len(groups) < 2 or all(DATED.fullmatch(name) for name in groups):
        return None
    return {name: [path for _, path in part] for name, part in groups.items()}


def _splits(groups: Collection[str]) -> tuple[str | None, list[str]]:
    """The folder that is the training split, and those that are test splits, the best first."""
    words = {name: re.findall(r"[a-z]+", name.lower()) for name in groups}
    training = [name for name in groups if TRAIN & set(words[name])]
    exact = [name for name in training if name.lower() in TRAIN]
    chosen = (exact or training)[:1] if len(exact or training) == 1 else []
    tests = [name for word in TEST for name in groups if word in words[name] and name not in training]
    return (chosen[0] if chosen else None), list(dict.fromkeys(tests))


def _look_through(images: Part, classes: Collection[str] = ()) -> Part:
    """The images without folders around all of them; one of `classes` is kept."""
    while images:
        groups, loose = _grouped(images)
        only = next(iter(groups), "")
        if loose or len(groups) > 1 or only in classes or not any("/" in rest for rest, _ in groups[only]):
            break
        images = groups[only]
    return images


def _grouped(images: Part) -> tuple[dict[str, Part], Part]:
    """The images by the first folder of their path, and those that lie in none."""
    groups: dict[str, Part] = {}
    loose = []
    for rest, path in images:
        folder, inside, below = rest.partition("/")
        if inside:
            groups.setdefault(folder, []).append((below, path))
        else:
            loose.append((rest, path))
    return groups, loose
