"""One split of a dataset, of whatever kind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class ExampleSet:
    """N examples with a label each.

    Attributes:
        labels: (N,) int64 on the CPU, indices into `classes`.
        classes: names of the classes.
        corrupt: files found so far that could not be read and were skipped, each with the reason.
    """

    def __init__(self, labels: Tensor, classes: Sequence[str]) -> None:
        if labels.dim() != 1 or labels.dtype != torch.int64 or len(labels) == 0:
            raise ValueError(f"labels must be a non-empty int64 vector, got {tuple(labels.shape)} of {labels.dtype}")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise ValueError(f"labels must be indices into the {len(classes)} classes, got up to {labels.max()}")
        self.labels = labels
        self.classes = list(classes)
        self.corrupt: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.labels)
