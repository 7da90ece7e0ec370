"""Rows of unit length, for losses of libraries that leave the normalisation to the model."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.ops.checks import check_dense, is_readable

TOLERANCE = 0.02  # what rounding to bfloat16 leaves of a length


def unit_rows(loss: str, name: str, x: Tensor) -> Tensor:
    """The rows (..., D) as they are: on the CPU others than of unit length raise, elsewhere they become NaN.

    Zero rows count as such: a normalised zero is one.

    Raises:
        TypeError: x is no dense float tensor. ValueError: its rows are not of unit length.
    """
    check_dense(loss, name, x, " of floats (..., D)")
    if not x.is_floating_point():
        raise TypeError(f"{loss}: {name} must be a float tensor, got {x.dtype}")
    length = x.detach().float().norm(dim=-1, keepdim=True)
    good = ((length - 1).abs() < TOLERANCE) | (length == 0) | length.isnan()
    if not is_readable(x):
        return torch.where(good, x, float("nan"))
    if not good.all():
        raise ValueError(
            f"{loss}: {name} must have rows of unit length, as after F.normalize(x, dim=-1), got lengths from "
            f"{length.min():.3g} to {length.max():.3g}"
        )
    return x
