"""The one place where an op meets its kernels."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active, _dispatch_keys, _get_tracing_state, _len_torch_dispatch_stack
from torch._C._autograd import _profiler_enabled
from torch.compiler import is_compiling

from sslfast import _C
from sslfast.ops.layout import layout_check

LIB = torch.library.Library("sslfast", "DEF")
IMPLS: dict[str, dict[str, Callable]] = {}  # op -> {"reference": f, "cpu": f, "cuda": f}; tests and benchmarks iterate

USE_REFERENCE = os.environ.get("SSLFAST_REFERENCE") == "1"
HAS_CPU_KERNELS = _C.has_core and not USE_REFERENCE


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
    """Register `sslfast::<schema>` and return what calls it; autograd stays with the caller.

    Args:
        schema: name and signature, as `torch.library.Library.define` takes it.
        fake: shapes and dtypes of the outputs, for tracing.
        reference: plain PyTorch, for float64, devices without a kernel, CPUs of a package that was built without its
            C++ core, and everything when SSLFAST_REFERENCE=1.
        cpu, cuda: the kernels.
        layout: of the tensors, as `layout_check` takes it; checked before any kernel takes their addresses.
        requires: what else must hold, a function of all arguments that raises.
    """
    name = schema.partition("(")[0]
    if not _C.has_core:
        cpu = reference
    IMPLS[name] = {"reference": reference, "cpu": cpu, "cuda": cuda}
    LIB.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    op = getattr(torch.ops.sslfast, name).default
    check = layout_check(name, [argument.name for argument in op._schema.arguments], layout or {})
    kernels = {}
    for device, kernel in (("CPU", cpu), ("CUDA", cuda), ("CompositeExplicitAutograd", reference)):
        kernels[device.lower()] = _checked(kernel, reference, check, requires)
        LIB.impl(name, kernels[device.lower()], device)
    torch.library.register_fake(f"sslfast::{name}", fake, lib=LIB)
    return op if op._schema.is_mutable else _directly(op, kernels)


def _directly(op: Callable, kernels: dict[str, Callable]) -> Callable:
    """The op, without PyTorch's dispatcher where that has nothing else to do: it takes as long as a small kernel."""

    def call(*args):
        device = "cpu" if args[0].is_cpu else args[0].device.type
        if device in kernels and not _watched() and _plain(args, device):
            return kernels[device](*args)
        return op(*args)

    return call


def _watched() -> bool:
    """Whether somebody follows the ops: a trace, a mode, a transform or the profiler."""
    return (
        is_compiling()
        or _len_torch_dispatch_stack() > 0
        or _are_functorch_transforms_active()
        or _get_tracing_state() is not None
        or _profiler_enabled()
    )


def _plain(args: Sequence, device: str) -> bool:
    """Whether the dispatcher would go straight to the kernel of the device."""
    keys, grad_enabled = _plain_keys(device), torch.is_grad_enabled()
    for x in args:
        if isinstance(x, Tensor) and (_dispatch_keys(x).raw_repr() != keys or (grad_enabled and x.requires_grad)):
            return False
    return True


@functools.cache
def _plain_keys(device: str) -> int:
    if device not in ("cpu", "cuda"):
        return -1
    with torch.inference_mode(False):
        return _dispatch_keys(torch.empty(0, dtype=torch.float32, device=device)).raw_repr()


def lazily(module: str, function: str) -> Callable:
    """The function of a module that is imported at the first call: Triton costs nothing until a GPU is used."""

    def call(*args):
        return getattr(importlib.import_module(module), function)(*args)

    call.__name__, call.__module__ = function, module
    return call


def _checked(kernel: Callable, reference: Callable, check: Callable, requires: Callable | None) -> Callable:
    """The kernel, or for float64 the reference, of arguments that have been checked."""
    exact = _without_autocast(reference)
    kernel = exact if USE_REFERENCE or kernel is reference else kernel

    def run(*args):
        check(args)
        if requires is not None:
            requires(*args)
        if any(tensor.dtype == torch.float64 for tensor in _tensors(args[0])):
            return exact(*args)
        torch.get_num_threads()  # a new thread has all of OpenMP's, and not those that PyTorch was given, until it asks
        return kernel(*args)

    return run


def _without_autocast(reference: Callable) -> Callable:
    def run(first, *args):
        with without_autocast(_tensors(first)[0]):
            return reference(first, *args)

    return run


def without_autocast(x: Tensor) -> AbstractContextManager:
    """What is computed inside on the device of x keeps its dtypes."""
    device = x.device.type
    available = torch.amp.autocast_mode.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()


def _tensors(first: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    """The first argument of an op, a tensor or a list of them, decides by its dtypes."""
    return (first,) if isinstance(first, Tensor) else first
