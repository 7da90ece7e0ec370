"""What the kernels of an op rely on, told as data and checked where their addresses are taken.

The public functions check their arguments with more words; this is for those who call `torch.ops.sslfast`, and for
tensors that changed since they were checked. It costs less than a microsecond a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from sslfast.ops.checks import FLOATS, INTEGERS


def layout_check(name: str, arguments: Sequence[str], layout: dict[str, str]) -> Callable[[Sequence], None]:
    """A function of all arguments of an op that raises unless its tensors have this layout, on one device.

    Args:
        name: of the op.
        arguments: their names, in order.
        layout: argument -> "sizes: dtype". Sizes are names, equal where the name is, or numbers; "*" is any one, "..."
            any shape. A dtype is one of torch's, "float", "image" (float or uint8), "picture" (the same or uint16),
            "number" (float, integers or bool), another argument, whose dtype it is, or "exact ARGUMENT", that dtype or
            float32 if it is narrower.
    """
    rules: list[tuple[Any, ...]] = []
    for argument, described in layout.items():
        sizes, dtype = (part.strip() for part in described.split(":"))
        dims = None if sizes == "..." else [int(size) if size.isdigit() else size for size in sizes.split()]
        like = dtype.removeprefix("exact ")
        place = arguments.index(like) if like in arguments else None
        rules.append((arguments.index(argument), argument, sizes, dims, _allowed(dtype), place, like != dtype))

    def check(args: Sequence) -> None:
        found: dict[str, int] = {}
        device = None
        for i, argument, sizes, dims, allowed, like, exact in rules:
            if i >= len(args) or args[i] is None:  # the dispatcher leaves out what has its default
                continue
            x = args[i]
            if dims is not None:
                shape = x.shape
                good = len(shape) == len(dims)
                for dim, size in zip(dims, shape):
                    good = good and (
                        dim == "*" or size == (dim if isinstance(dim, int) else found.setdefault(dim, size))
                    )
                if not good:
                    beside = ", ".join(f"{dim} = {size}" for dim, size in found.items())
                    raise ValueError(f"{name}: {argument} must be ({sizes}) with {beside}, got {tuple(shape)}")
            if like is not None:
                dtype = args[like].dtype
                allowed = (torch.promote_types(dtype, torch.float32) if exact else dtype,)
            if x.dtype not in allowed:
                raise TypeError(f"{name}: {argument} must be {' or '.join(map(str, allowed))}, got {x.dtype}")
            device = device or x.device
            if x.device != device:
                raise ValueError(f"{name}: {argument} must be on {device} as the others are, got {x.device}")

    return check


def _allowed(dtype: str) -> tuple[torch.dtype | None, ...]:
    images = (torch.uint8, *FLOATS)
    several = {"float": FLOATS, "image": images, "picture": (*images, torch.uint16), "number": (*FLOATS, *INTEGERS)}
    return several.get(dtype) or (getattr(torch, dtype, None),)


def require(op: str, argument: str, wanted: str, good: bool, got: object) -> None:
    if not good:
        raise ValueError(f"{op}: {argument} must be {wanted}, got {got}")
