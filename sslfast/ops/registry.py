"""The one place where an op meets its kernels."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslfast.ops.layout import layout_check

LIB = torch.library.Library("sslfast", "DEF")
IMPLS: dict[str, dict[str, Callable]] = {}  # op -> {"reference": f, "cpu": f, "cuda": f}; tests and benchmarks iterate

USE_REFERENCE = os.environ.get("SSLFAST_REFERENCE") == "1"


def define_op(
    schema: str,
    *,
    fake: Callable,
    reference: Callable,
    cpu: Callable,
    cuda: Callable,
    layout: dict[str, str] | None = None,
    requires: Callable | None = None,
) -> Callable:
    """Register `sslfast::<schema>` and return it; autograd stays with the caller.

    Args:
        schema: name and signature, as `torch.library.Library.define` takes it.
        fake: shapes and dtypes of the outputs, for tracing.
        reference: plain PyTorch, for float64, devices without a kernel, and everything when SSLFAST_REFERENCE=1.
        cpu, cuda: the kernels.
        layout: of the tensors, as `layout_check` takes it; checked before any kernel takes their addresses.
        requires: what else must hold, a function of all arguments that raises.
    """
    name = schema.partition("(")[0]
    IMPLS[name] = {"reference": reference, "cpu": cpu, "cuda": cuda}
    LIB.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(torch.ops.sslfast, name).default
    check = layout_check(name, [argument.name for argument in op._schema.arguments], layout or {})
    for device, kernel in (("CPU", cpu), ("CUDA", cuda), ("CompositeExplicitAutograd", reference)):
        LIB.impl(name, _checked(_dispatch(kernel, reference), check, requires), device)
    torch.library.register_fake(f"sslfast::{name}", fake, lib=LIB)
    return op


def lazily(module: str, function: str) -> Callable:
    """The function of a module that is imported at the first call: Triton costs nothing until a GPU is used."""

    def call(*args):
        return getattr(importlib.import_module(module), function)(*args)

    call.__name__, call.__module__ = function, module
    return call


def _checked(run: Callable, check: Callable, requires: Callable | None) -> Callable:
    def checked(*args):
        check(args)
        if requires is not None:
            requires(*args)
        return run(*args)

    return checked


def _dispatch(kernel: Callable, reference: Callable) -> Callable:
    exact = _without_autocast(reference)

    def run(first, *args):
        double = torch.float64 in [tensor.dtype for tensor in _tensors(first)]
        return exact(first, *args) if USE_REFERENCE or double or kernel is reference else kernel(first, *args)

    return run


def _without_autocast(reference: Callable) -> Callable:
    def run(first, *args):
        with torch.autocast(_tensors(first)[0].device.type, enabled=False):
            return reference(first, *args)

    return run


def _tensors(first: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """The first argument of an op, a tensor or a list of them, decides by its dtypes."""
    return (first,) if isinstance(first, Tensor) else first
