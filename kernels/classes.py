"""Rows of equal labels, their number and their sums, without waiting for a device or holding an (N, N) tensor.

`ordered` are labels in rising order; a class is known by the place of its first label among them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def class_sums(labels: Tensor, rows: Tensor, row_labels: Tensor) -> Tensor:
    """(N, D): of each label (N,) the sum of the rows (K, D) that have it, always in one order."""
    ordered = labels.sort().values
    place = torch.searchsorted(ordered, row_labels)
    other = ordered[place.clamp_max(labels.shape[0] - 1)] != row_labels
    sums = rows.new_zeros(labels.shape[0] + 1, rows.shape[1])
    sums.index_put_((place.masked_fill(other, labels.shape[0]),), rows, accumulate=True)
    return sums[torch.searchsorted(ordered, labels)]


def class_places(labels: Tensor, ordered: Tensor) -> Tensor:
    """int32 (N,), equal where the labels are, which are among the ordered ones."""
    return torch.searchsorted(ordered, labels, out_int32=True)


def class_counts(labels: Tensor, ordered: Tensor, places: Tensor) -> Tensor:
    """How often each label (N,), whose place that is, is among the ordered ones."""
    return torch.searchsorted(ordered, labels, right=True) - places


def pair_ids(places: Tensor, counts: Tensor, first: int) -> Tensor:
    """int32 (N,), equal for the two rows of a class of two, and for no others; `first`: the number of the first row."""
    alone = -1 - first - torch.arange(places.shape[0], dtype=places.dtype, device=places.device)
    return torch.where(counts == 2, places, alone)
