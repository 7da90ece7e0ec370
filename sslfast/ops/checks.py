"""Argument checks that the ops share: what was wrong, in which argument, and what was wanted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
REDUCTIONS = ("mean", "sum", "none")


def check_embeddings(op: str, **embeddings: Tensor) -> None:
    """Every argument is a non-empty (N, D) float matrix, and all are alike in shape, dtype and device."""
    (first_name, first), *_ = embeddings.items()
    for name, z in embeddings.items():
        if not isinstance(z, Tensor):
            raise TypeError(f"{op}: {name} must be a tensor (N, D), got {type(z).__name__}")
        if z.dtype not in FLOATS:
            raise TypeError(f"{op}: {name} must be float32, bfloat16, float16 or float64, got {z.dtype}")
        if z.dim() != 2 or 0 in z.shape:
            raise ValueError(f"{op}: {name} must be a non-empty matrix (N, D), got shape {tuple(z.shape)}")
        if z.shape != first.shape:
            raise ValueError(
                f"{op}: {name} must have the shape of {first_name}, {tuple(first.shape)}, got {tuple(z.shape)}"
            )
        if z.dtype != first.dtype:
            raise TypeError(f"{op}: {name} must have the dtype of {first_name}, {first.dtype}, got {z.dtype}")
        if z.device != first.device:
            raise ValueError(f"{op}: {name} must be on the device of {first_name}, {first.device}, got {z.device}")


def check_queue(op: str, queue: Tensor | None, query: Tensor) -> None:
    """None, or a non-empty float matrix (K, D) that goes with the queries (N, D) and wants no gradient."""
    if queue is None:
        return
    if not isinstance(queue, Tensor):
        raise TypeError(f"{op}: queue must be a tensor (K, D) or None, got {type(queue).__name__}")
    if queue.dtype not in FLOATS:
        raise TypeError(f"{op}: queue must be float32, bfloat16, float16 or float64, got {queue.dtype}")
    if queue.dim() != 2 or len(queue) == 0 or queue.shape[1] != query.shape[1]:
        raise ValueError(
            f"{op}: queue must be a non-empty matrix (K, {query.shape[1]}), as wide as the queries, "
            f"got shape {tuple(queue.shape)}"
        )
    if queue.device != query.device:
        raise ValueError(f"{op}: queue must be on the device of query, {query.device}, got {queue.device}")
    if queue.requires_grad:
        raise ValueError(f"{op}: queue must not require grad, its rows get none; detach() it")


def check_temperature(op: str, temperature: float | Tensor, device: torch.device) -> tuple[float, Tensor | None]:
    """(number, tensor): one of them holds the temperature; the value of a tensor is not read."""
    if isinstance(temperature, Tensor):
        if temperature.dim() != 0 or not temperature.is_floating_point():
            raise ValueError(
                f"{op}: temperature must be a number or a 0-dim float tensor, "
                f"got shape {tuple(temperature.shape)} of {temperature.dtype}"
            )
        if temperature.device != device:
            raise ValueError(f"{op}: temperature must be on {device}, as the embeddings, got {temperature.device}")
        return 0.0, temperature
    if isinstance(temperature, bool) or not isinstance(temperature, (int, float)):
        raise TypeError(f"{op}: temperature must be a number or a 0-dim tensor, got {type(temperature).__name__}")
    if not (temperature > 0 and math.isfinite(temperature)):
        raise ValueError(f"{op}: temperature must be positive and finite, got {temperature}")
    return float(temperature), None


def check_reduction(op: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"{op}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
