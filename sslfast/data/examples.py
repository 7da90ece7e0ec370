"""One split of a dataset, of whatever kind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

FIFTH = "a fifth of every class is held out for testing"
TOO_FEW = "too few images a class to hold a fifth out for testing: the classes are left aside"
NO_LABELS = "no labels: kNN and what else needs labels is left out"


class ExampleSet:
    """N examples with a label each.

    Attributes:
        labels: (N,) int64 on the CPU, indices into `classes`; all 0 if there are no classes.
        classes: names of the classes; none for examples without labels.
        corrupt: files found so far that could not be read and were skipped, each with the reason.
        notes: what a reader should know about how the set was understood.
    """

    notes: tuple[str, ...] = ()

    def __init__(self, labels: Tensor, classes: Sequence[str]) -> None:
        if labels.dim() != 1 or labels.dtype != torch.int64 or len(labels) == 0:
            raise ValueError(f"labels must be a non-empty int64 vector, got {tuple(labels.shape)} of {labels.dtype}")
        if labels.min() < 0 or labels.max() >= max(1, len(classes)):
            raise ValueError(f"labels must be indices into the {len(classes)} classes, got up to {labels.max()}")
        self.labels = labels
        self.classes = list(classes)
        self.corrupt: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether there is anything to tell apart."""
        return len(self.classes) > 1

    def order(self, random: np.random.Generator) -> Tensor:
        """The order in which an epoch visits the examples, (N,) int64: a permutation drawn from `random`."""
        return torch.from_numpy(random.permutation(len(self)))

    def name(self, index: int) -> str:
        """What tells an example from all others of its set: the path of a file, else its number."""
        return str(index)

    def title(self, kind: str, index: int) -> str:
        """What an example is called in a picture: `kind`, its number, and its class if it has one."""
        return f"{kind} {index}" + (f": {self.classes[int(self.labels[index])]}" if self.classes else "")
