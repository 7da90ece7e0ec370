"""Compiles what an op would launch to machine code for any NVIDIA chip, without a GPU, and reads what it needs."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, NamedTuple

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

SHARED_MEMORY = {80: 101376, 90: 232448, 100: 232448}  # bytes a block may have; sm_80's tiles serve sm_86 too
POINTERS = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.bool: "*i1",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
OPTIONS = ("num_warps", "num_stages", "maxnreg")
# Bytes let pass, stored and loaded once, none in a loop: of float32 on sm_80, of normalised float16 rows on sm_100.
SPILLS = {80: 16, 100: 8}


class Launch(NamedTuple):
    kernel: JITFunction
    arguments: dict[str, Any]
    options: dict[str, int]


class Usage(NamedTuple):
    spilled: int  # bytes of registers that a thread stores to memory and loads back
    shared: int  # bytes of a block
    serialized: bool  # the tensor core waits for each of its instructions


def recorded_launches(monkeypatch, function: Callable, *args: Any) -> tuple[list[Launch], Any]:
    """The kernels that `function` launches with these (CPU) arguments, none of which runs, and what it returns."""
    launches = []

    def record(kernel, *args, grid, warmup, **kwargs):
        options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
        launches.append(Launch(kernel, dict(zip(kernel.arg_names, args)) | kwargs, options))

    with monkeypatch.context() as patch:
        patch.setattr(JITFunction, "run", record)
        result = function(*args)
    return launches, result


def specialised(launch: Launch) -> ASTSource:
    """What Triton would compile at this launch: code for the types of the arguments, and for some of their values."""
    kernel, arguments, _ = launch
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[parameter.name], constants[(index,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name], attributes[(index,)] = POINTERS[value.dtype], [["tt.divisibility", 16]]
        elif isinstance(value, int):
            signature[parameter.name] = "i32"
            if value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32"
    return ASTSource(kernel, signature, constants, attributes)


def compile_for(launch: Launch, capability: int) -> Usage:
    """Machine code for the chip."""
    log = io.StringIO()  # the assembler's, which Triton prints of what it compiles, not of what it finds in its cache
    with redirect_stdout(log), knobs.nvidia.scope(), knobs.compilation.scope():
        knobs.nvidia.dump_ptxas_log, knobs.compilation.always_compile = True, True
        compiled = triton.compile(specialised(launch), target=GPUTarget("cuda", capability, 32), options=launch.options)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log.getvalue())
    assert spills, f"no report of the assembler: {log.getvalue()}"
    return Usage(sum(int(x) for pair in spills for x in pair), compiled.metadata.shared, "C7515" in log.getvalue())


def assert_fits(launch: Launch, capability: int, spills: bool = False, shared: int | None = None) -> None:
    """The kernel spills no register in a loop, keeps the tensor cores busy, and has the shared memory that it needs."""
    name, usage, limit = launch.kernel.__name__, compile_for(launch, capability), shared or SHARED_MEMORY[capability]
    assert spills or usage.spilled <= SPILLS.get(capability, 0), f"{name} spills: {usage}"
    assert not usage.serialized, f"{name}: wgmma instructions are serialized (C7515)"
    assert usage.shared <= limit, f"{name} needs {usage.shared} bytes of shared memory, and may have {limit}"
