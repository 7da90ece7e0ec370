"""Labels as numbers of classes: of datasets in Python, and of a test split in the classes of the training split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

LABEL = ("label", "labels", "fine_label", "target", "cls")  # columns, the first that there is
NONE = (None, -1)  # what examples without a label have
NO_TEST_LABELS = "the test split has no labels, and is left out"


def kept_labels(items: Any) -> list[Any] | None:
    """The labels that a dataset keeps beside its examples, so that no image is decoded for its label; None if none."""
    if isinstance(items, Subset):
        whole = kept_labels(items.dataset)
        return None if whole is None else [whole[index] for index in items.indices]
    if isinstance(items, ConcatDataset):
        parts = [kept_labels(part) for part in items.datasets]
        return None if None in parts else [label for part in parts for label in part]
    columns = getattr(items, "column_names", None)  # Hugging Face's
    if columns is not None:
        column = next((name for name in LABEL if name in columns), None)
        return None if column is None else list(items[column])
    targets = getattr(items, "targets", None)  # torchvision's, before its target_transform
    if isinstance(targets, Sequence | Tensor | np.ndarray) and getattr(items, "target_transform", None) is None:
        return list(targets) if len(targets) == len(items) else None
    return None


def class_names(items: Any) -> list[str]:
    """The names that a dataset has for its labels 0, 1, …; none if it says none."""
    if isinstance(items, Subset):
        return class_names(items.dataset)
    if isinstance(items, ConcatDataset):
        parts = [class_names(part) for part in items.datasets]
        return parts[0] if all(part == parts[0] for part in parts) else []
    features = getattr(items, "features", None)
    if isinstance(features, Mapping):
        return next((_distinct(features[name].names) for name in LABEL if hasattr(features.get(name), "names")), [])
    names = getattr(items, "classes", None)
    return _distinct(names) if isinstance(names, list | tuple) else []


def _distinct(names: Sequence[Any]) -> list[str]:
    """Of equal names, as ImageNet has two cranes, all but the first get a number."""
    seen: Counter[str] = Counter()
    found = []
    for name in map(str, names):
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def numbered(values: Sequence[Any], names: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Labels (N,) int64, all 0 if no example has one, and the names of the classes, none then.

    Args:
        values: a number or a name each; None, and -1 of a dataset that names its classes, is none.
        names: of the labels 0, 1, …; without them the classes are the values there are, in their order.

    Raises:
        TypeError: a label is something else. ValueError: some examples have one and others not.
    """
    values = [value.item() if isinstance(value, np.generic) or _scalar(value) else value for value in values]
    if wrong := sorted({type(value).__name__ for value in values if not isinstance(value, int | str | None)}):
        raise TypeError(
            f"labels of data must be integers or names, one an example, got {', '.join(wrong)}: "
            "give the images alone to train without labels"
        )
    if all(value in NONE for value in values):
        return torch.zeros(len(values), dtype=torch.int64), []
    if missing := sum(value is None or (value == -1 and bool(names)) for value in values):
        raise ValueError(
            f"data must have a label for every example or for none, but {missing} of {len(values)} are None or -1: "
            "give the images alone to train on all of them"
        )
    if names and all(isinstance(value, int) and 0 <= value < len(names) for value in values):
        return torch.tensor(values), list(names)
    classes = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    number = {value: k for k, value in enumerate(classes)}
    return torch.tensor([number[value] for value in values]), [str(value) for value in classes]


def in_classes_of(train: Sequence[str], labels: Tensor, classes: Sequence[str]) -> Tensor:
    """The labels of a test split, (N,) int64, as indices into the classes of the training split.

    Args:
        train: the latter.
        labels: indices into `classes`, which the test split has.

    Raises:
        ValueError: the training split has no such class.
    """
    if list(classes) == list(train):
        return labels
    used = [classes[label] for label in labels.unique().tolist()]
    if strange := [name for name in used if name not in train]:
        raise ValueError(f"the test split has classes that the training split has not: {', '.join(strange[:10])}")
    number = {name: k for k, name in enumerate(train)}
    return torch.tensor([number.get(name, -1) for name in classes])[labels]


def _scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1
