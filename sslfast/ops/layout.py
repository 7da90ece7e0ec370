"""What the kernels of an op rely on, told as data and checked where their addresses are taken.

The public functions check their arguments with more words; this is for those who call `torch.ops.sslfast`, and for
tensors that changed since they were checked. It costs less than a microsecond a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sslfast.ops.checks import FLOATS, INTEGERS

EXACT = {dtype: torch.promote_types(dtype, torch.float32) for dtype in FLOATS}


def layout_check(name: str, arguments: Sequence[str], layout: dict[str, str]) -> Callable[[Sequence], None]:
    """A function of all arguments of an op that raises unless its tensors have this layout, on one device.

    Args:
        name: of the op.
        arguments: their names, in order.
        layout: argument -> "sizes: dtype". Sizes are names, equal where the name is, or numbers; "..." is any
            shape. A dtype is one of torch's, "float", "image" (float or uint8), "picture" (the same or uint16),
            "number" (float, integers or bool), another argument, whose dtype it is, or "exact ARGUMENT", that dtype or
            float32 if it is narrower.
    """
    rules: list[tuple[Any, ...]] = []
    numbers: dict[str, int] = {}
    for argument, described in layout.items():
        place = arguments.index(argument)
        sizes, dtype = (part.strip() for part in described.split(":"))
        dims = None if sizes == "..." else sizes.split()
        numbers |= {size: int(size) for size in dims or () if size.isdigit()}
        like = dtype.removeprefix("exact ")
        other = arguments.index(like) if like in arguments else None
        rules.append((place, argument, sizes, dims, _allowed(dtype), other, like != dtype))

    def check(args: Sequence) -> None:
        found = numbers.copy()
        device, given = None, len(args)
        for i, argument, sizes, dims, allowed, like, exact in rules:
            if i >= given or (x := args[i]) is None:  # the dispatcher leaves out what has its default
                continue
            if dims is not None:
                shape = x.shape
                good = len(shape) == len(dims)
                for dim, size in zip(dims, shape):
                    good = found.setdefault(dim, size) == size and good
                if not good:
                    beside = ", ".join(f"{dim} = {size}" for dim, size in found.items() if dim not in numbers)
                    raise ValueError(f"{name}: {argument} must be ({sizes}) with {beside}, got {tuple(shape)}")
            dtype = x.dtype
            if like is not None:
                wanted = args[like].dtype
                allowed = (EXACT.get(wanted, torch.float32) if exact else wanted,)
            if dtype not in allowed:
                raise TypeError(f"{name}: {argument} must be {' or '.join(map(str, allowed))}, got {dtype}")
            if device is None:
                device = x.device
            elif x.device != device:
                raise ValueError(f"{name}: {argument} must be on {device} as the others are, got {x.device}")

    return check


def _allowed(dtype: str) -> tuple[torch.dtype | None, ...]:
    images = (torch.uint8, *FLOATS)
    several = {"float": FLOATS, "image": images, "picture": (*images, torch.uint16), "number": (*FLOATS, *INTEGERS)}
    return several.get(dtype) or (getattr(torch, dtype, None),)


def require(op: str, argument: str, wanted: str, good: bool, got: object) -> None:
    if not good:
        raise ValueError(f"{op}: {argument} must be {wanted}, got {got}")
