"""What is installed, what was compiled, and which backend serves each op."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sslfast import _C, __version__
from sslfast.ops import registry

PACKAGES = ("torch", "triton", "numpy", "torchvision", "timm", "lightning-fabric", "scikit-learn", "transformers",
            "tokenizers")  # fmt: skip


def versions() -> dict[str, str | None]:
    """Version of every package that matters here; None where it is not installed."""
    found: dict[str, str | None] = {"sslfast": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def installed() -> dict[str, str]:
    """The same without what is not installed."""
    return {package: version for package, version in versions().items() if version is not None}


def commit() -> str | None:
    """The commit of the source tree sslfast runs from, if it is one and git is there."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def devices() -> list[str]:
    """One line a device that PyTorch can use."""
    cpu = (
        f"cpu: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )
    capability = torch.backends.cpu.get_cpu_capability()
    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return [f"{cpu}, {capability}"] + [
        f"cuda:{i}: {gpu.name}, sm_{gpu.major}{gpu.minor}, {gpu.total_memory / 2**30:.0f} GiB"
        for i, gpu in enumerate(gpus)
    ]


def backends(op: str) -> dict[str, str]:
    """Which kernel serves `op` on which device, as this process is set up."""
    if registry.USE_REFERENCE:
        return {"cpu": "reference (SSLFAST_REFERENCE=1)", "cuda": "reference (SSLFAST_REFERENCE=1)"}
    kernels = registry.IMPLS[op]
    return {device: _backend(kernels[device], kernels["reference"]) for device in ("cpu", "cuda")}


def _backend(kernel: Callable[..., Any], reference: Callable[..., Any]) -> str:
    if kernel is reference:
        return "reference"
    function = getattr(kernel, "func", kernel)  # of a partial
    return function.__module__.removeprefix("sslfast.kernels.").partition(".")[0]


def info() -> str:
    """The text of `sslfast info`."""
    lines = ["versions"]
    lines += [f"  {name:18}{version or 'not installed'}" for name, version in versions().items()]
    lines += ["devices"] + [f"  {device}" for device in devices()]
    lines += [
        "CPU C++ kernels",
        *_core(),
        "CUDA C++ kernels",
        "  compiled in" if _C.has_cuda else "  not compiled (no nvcc at build time)",
    ]
    width = 4 + max(map(len, registry.IMPLS))
    lines += [f"{'ops (float64: reference)':{width}}{'cpu':12}cuda"]
    for op in registry.IMPLS:
        served = backends(op)
        lines.append(f"  {op:{width - 2}}{served['cpu']:12}{served['cuda']}")
    return "\n".join(lines)


def _core() -> list[str]:
    if not _C.has_core:
        return ["  not compiled (no C++ compiler at build time, or SSLFAST_NO_EXTENSION=1): the reference serves"]
    return [
        f"  {_C.loaded}, the best of {', '.join(_C.INSTRUCTION_SETS)}",
        "  OpenMP: " + ("as many threads as torch" if _C.has_openmp else "not found at build time, one thread"),
    ]
