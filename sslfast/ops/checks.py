"""Argument checks that the ops share: what was wrong, in which argument, and what was wanted."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake

from sslfast.ops.precision import precise_dtype

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
INTEGERS = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOAT32 = torch.finfo(torch.float32)
INTS: tuple[Any, ...] = (int, torch.SymInt)
NUMBERS: tuple[Any, ...] = (*INTS, float, torch.SymFloat)
Reduction = Literal["mean", "sum", "none"]
Statistics = float | Sequence[float] | Tensor  # of the pixels
REDUCTIONS = get_args(Reduction)


def as_number(op: str, name: str, value: Any, wanted: str = "a number") -> float:
    """A number, NumPy's and arrays of no dimension included; TypeError for all else, truth values too."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, NUMBERS):
        raise TypeError(f"{op}: {name} must be {wanted}, got {type(value).__name__}")
    return value


def as_int(op: str, name: str, value: Any, wanted: str = "an int") -> int:
    """The same for integers."""
    if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, INTS):
        raise TypeError(f"{op}: {name} must be {wanted}, got {type(value).__name__}")
    if not torch.compiler.is_compiling() and not -(2**63) <= value < 2**63:  # of a symbol it would be a constraint
        raise ValueError(f"{op}: {name} must be below 2^63, got {value}")
    return value


def check_dense(op: str, name: str, x: Any, wanted: str) -> None:
    """TypeError unless x is a tensor with its elements in memory: no sparse, nested, quantised one, nor a DTensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{op}: {name} must be a tensor{wanted}, got {type(x).__name__}")
    if x.layout != torch.strided or x.is_nested or x.is_quantized:
        kind = "nested" if x.is_nested else "quantised" if x.is_quantized else str(x.layout).removeprefix("torch.")
        raise TypeError(f"{op}: {name} must be a dense tensor{wanted}, got a {kind} one")
    if type(x) is not Tensor and hasattr(x, "to_local"):
        raise TypeError(
            f"{op}: {name} must be a dense tensor{wanted}, got a DTensor; pass its to_local() or full_tensor()"
        )


def check_statistics(
    op: str, mean: Statistics | None, std: Statistics | None, channels: int
) -> tuple[list[float], list[float]]:
    """Mean and std of every channel, each from a number for all of them or one a channel; both or neither."""
    if mean is None and std is None:
        return [], []
    if mean is None or std is None:
        raise ValueError(f"{op}: mean and std go together, got only {'mean' if std is None else 'std'}")
    means, stds = _per_channel(op, "mean", mean, channels), _per_channel(op, "std", std, channels)
    if not all(-math.inf < m < math.inf for m in means):
        raise ValueError(f"{op}: mean must be finite, got {mean}")
    if not all(FLOAT32.tiny <= s < math.inf for s in stds):
        raise ValueError(f"{op}: std must be at least {FLOAT32.tiny:.2g} and finite, got {std}")
    return means, stds


def _per_channel(op: str, name: str, values: Statistics, channels: int) -> list[float]:
    wanted = f"a number or {channels} numbers, one a channel"
    if isinstance(values, (Tensor, np.ndarray)):
        values = values.tolist()
    if not isinstance(values, (tuple, list)):
        return [float(as_number(op, name, values, wanted))] * channels
    if len(values) != channels:
        raise ValueError(f"{op}: {name} must be {wanted}, got {len(values)}")
    return [float(as_number(op, name, value, wanted)) for value in values]


def check_flag(op: str, name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{op}: {name} must be True or False, got {value!r}")


def check_module(op: str, name: str, x: Any) -> None:
    if not isinstance(x, nn.Module):
        raise TypeError(f"{op}: {name} must be a module, got {type(x).__name__}")


def _promoted(xs: Sequence[Any]) -> Sequence[Any]:
    """Under autocast, float tensors of different dtypes come to the one that holds all of them, as in `torch.cat`."""
    floats = [x for x in xs if isinstance(x, Tensor) and x.dtype in FLOATS]
    dtypes = {x.dtype for x in floats}
    if len(dtypes) < 2 or not _under_autocast(floats[0].device.type):
        return xs
    dtype = functools.reduce(torch.promote_types, dtypes)
    return tuple(x.to(dtype) if isinstance(x, Tensor) and x.dtype in FLOATS else x for x in xs)


def _under_autocast(device: str) -> bool:
    return torch.amp.autocast_mode.is_autocast_available(device) and torch.is_autocast_enabled(device)


def check_embeddings(op: str, **embeddings: Tensor) -> Sequence[Tensor]:
    """They, in one dtype under autocast: non-empty (N, D) float matrices, alike in shape, dtype and device."""
    promoted = _promoted(tuple(embeddings.values()))
    first_name, first = next(iter(embeddings)), promoted[0]
    for name, z in zip(embeddings, promoted):
        check_dense(op, name, z, " (N, D)")
        if z.dtype not in FLOATS:
            raise TypeError(f"{op}: {name} must be float32, bfloat16, float16 or float64, got {z.dtype}")
        if z.dim() != 2 or 0 in z.shape:
            raise ValueError(f"{op}: {name} must be a non-empty matrix (N, D), got shape {tuple(z.shape)}")
        if z.shape != first.shape:
            raise ValueError(
                f"{op}: {name} must have the shape of {first_name}, {tuple(first.shape)}, got {tuple(z.shape)}"
            )
        _check_alike(op, name, z, first_name, first)
    return promoted


def _check_alike(op: str, name: str, z: Tensor, first_name: str, first: Tensor) -> None:
    if z.dtype != first.dtype:
        raise TypeError(f"{op}: {name} must have the dtype of {first_name}, {first.dtype}, got {z.dtype}")
    if z.device != first.device:
        raise ValueError(f"{op}: {name} must be on the device of {first_name}, {first.device}, got {z.device}")


def check_candidates(op: str, query: Tensor, key: Tensor, least: int | None) -> Sequence[Tensor]:
    """They, in one dtype under autocast: float matrices query (N, D) and key (M, D), alike in dtype and device, M at
    least so many; N without a number."""
    query, key = _promoted((query, key))
    check_embeddings(op, query=query)
    check_embeddings(op, key=key)
    n, d = query.shape
    least = n if least is None else least
    if key.shape[1] != d or key.shape[0] < least:
        raise ValueError(f"{op}: key must have {d} columns and at least {least} rows, got shape {tuple(key.shape)}")
    _check_alike(op, "key", key, "query", query)
    return query, key


def is_readable(x: Tensor) -> bool:
    """Whether the host may look at the values: it would wait for those of a device, and while traced there are none."""
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or is_fake(x)
    return x.device.type == "cpu" and not traced


def check_range(op: str, name: str, indices: Tensor, size: int) -> None:
    """On the CPU ValueError unless all are in [0, size); a device's values are not read."""
    if indices.device.type != "cpu":
        return
    least, largest = (int(x) for x in torch.aminmax(indices))
    if least < 0 or largest >= size:
        raise ValueError(f"{op}: {name} must hold indices in [0, {size}), got {least} to {largest}")


def check_labels(op: str, name: str, labels: Tensor, z: Tensor) -> Tensor:
    """Integers (N,), one a row of z, as int64."""
    check_dense(op, name, labels, " (N,) of integers")
    if labels.dtype not in INTEGERS:
        raise TypeError(f"{op}: {name} must be integers, got {labels.dtype}")
    if labels.shape != z.shape[:1]:
        raise ValueError(f"{op}: {name} must be ({z.shape[0]},), one a row, got shape {tuple(labels.shape)}")
    if labels.device != z.device:
        raise ValueError(f"{op}: {name} must be on {z.device}, as the rows, got {labels.device}")
    return labels.to(torch.int64).contiguous()


def check_queue(op: str, queue: Tensor | None, query: Tensor) -> None:
    """None, or a non-empty float matrix (K, D) that goes with the queries (N, D) and wants no gradient."""
    if queue is None:
        return
    check_dense(op, "queue", queue, " (K, D) or None")
    if queue.dtype not in FLOATS:
        raise TypeError(f"{op}: queue must be float32, bfloat16, float16 or float64, got {queue.dtype}")
    if queue.dim() != 2 or 0 in queue.shape or queue.shape[1] != query.shape[1]:
        raise ValueError(
            f"{op}: queue must be a non-empty matrix (K, {query.shape[1]}), as wide as the queries, "
            f"got shape {tuple(queue.shape)}"
        )
    if queue.device != query.device:
        raise ValueError(f"{op}: queue must be on the device of query, {query.device}, got {queue.device}")
    if queue.requires_grad:
        raise ValueError(f"{op}: queue must not require grad, its rows get none; detach() it")


def check_temperature(op: str, temperature: float | Tensor, device: torch.device) -> tuple[float, Tensor | None]:
    """(number, tensor), which ops take as `temperature` and `tau`: one of them holds it, and the tensor is not read, so
    that no host waits for a device."""
    return check_scalar(op, "temperature", temperature, device, positive=True)


def check_scalar(
    op: str, name: str, value: float | Tensor, device: torch.device, positive: bool = False
) -> tuple[float, Tensor | None]:
    """(number, tensor): one of them holds the value; that of a tensor is not read."""
    if isinstance(value, Tensor):
        check_dense(op, name, value, " of one element")
        if value.numel() != 1 or not value.is_floating_point():
            raise ValueError(
                f"{op}: {name} must be a number or a float tensor of one element, "
                f"got shape {tuple(value.shape)} of {value.dtype}"
            )
        if value.device != device:
            raise ValueError(f"{op}: {name} must be on {device}, as the embeddings, got {value.device}")
        return 0.0, value.reshape(()) if value.dim() else value
    value = as_number(op, name, value, "a number or a tensor of one element")
    if positive and not FLOAT32.tiny <= value <= FLOAT32.max:
        raise ValueError(f"{op}: {name} must be positive and finite in float32, got {value}")
    if not -FLOAT32.max <= value <= FLOAT32.max:
        raise ValueError(f"{op}: {name} must be finite in float32, got {value}")
    return number_or_tensor(value, device)


def number_or_tensor(value: float, device: torch.device) -> tuple[float, Tensor | None]:
    """One of them holds the value: the tensor in a graph that is to hold for other values, too."""
    if torch.compiler.is_compiling() and _varies(value):
        return 0.0, torch.ones((), dtype=precise_dtype(device), device=device) * value
    return float(value), None


def _varies(number: float) -> bool:
    """Whether a graph that is being compiled is to hold for other values, too: as an op's number it would be one."""
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return not has_static_value(number)


def check_reduction(op: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"{op}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
