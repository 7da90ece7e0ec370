"""Fills Triton's cache with the kernels that a GPU will need, where there is none.

    export TRITON_CACHE_DIR=carried/triton
    python benchmarks/gpu/compile_only.py                                       those of the benchmarks' cases
    PYTHONPATH=benchmarks/gpu python -m pytest -p compile_only -m gpu tests     those of the tests; most of them fail

Tensors that ask for CUDA lie on the CPU; launches compile for the chip, write their launcher, and run nothing. Triton's
keys hold its own files, a kernel's source, the chip, and the types and alignments of the arguments, but not where the
cache lies; only the lists of files in it do. So the folder is named relative to the working directory, here and there.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.driver import CudaLauncher, CudaUtils
from triton.runtime import driver

from sslfast.kernels.triton import plans
from sslfast.ops import registry

CHIP, MULTIPROCESSORS, SHARED_MEMORY = 90, 132, 232448  # H100 and H200
found = {True: 0, False: 0}  # kernels that were in the cache, and that were not


class Utils:
    """Triton's own, which is compiled and kept as well, but for what asks a GPU."""

    def __init__(self) -> None:
        self.compiled = CudaUtils()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.compiled, name)

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": SHARED_MEMORY, "multiprocessor_count": MULTIPROCESSORS}

    def load_binary(self, *_: Any) -> tuple[int, ...]:
        return 1, 1, 0, 0, 1024


class Launcher(CudaLauncher):
    def __call__(self, *_: Any) -> None:
        pass


class Driver:
    """As much of a driver as a launch asks for."""

    def __init__(self) -> None:
        self.utils, self.launcher_cls = Utils(), Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", CHIP, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cpu")


class OnCpu(TorchFunctionMode):
    """What asks for CUDA gets the CPU."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = {name: _on_cpu(x) for name, x in (kwargs or {}).items()}
        if function is torch.Tensor.cuda:
            return args[0]
        return function(*map(_on_cpu, args), **kwargs)


def _on_cpu(x: object) -> object:
    if isinstance(x, torch.device) or (isinstance(x, str) and x.startswith("cuda")):
        return torch.device("cpu") if torch.device(x).type == "cuda" else x
    return x


def link_without_driver() -> None:
    """Launchers are linked with libcuda.so.1: with an empty one, whose functions nobody calls."""
    folder = tempfile.mkdtemp()
    library = f"{folder}/libcuda.so.1"
    subprocess.run(["cc", "-shared", "-Wl,-soname,libcuda.so.1", "-o", library, "-x", "c", os.devnull], check=True)
    ctypes.CDLL(library)
    knobs.nvidia.libcuda_path = folder
    sys.setdlopenflags(os.RTLD_LAZY)


def pretend() -> None:
    """From now on, and for this process."""
    link_without_driver()
    driver.set_active(Driver())
    plans.chip = lambda device: (CHIP, MULTIPROCESSORS)
    implementations = torch.library.Library("sslfast", "IMPL")
    for name, kernels in registry.IMPLS.items():
        if kernels["cuda"].__module__.startswith("sslfast.kernels.triton"):
            kernel = registry._dispatch(kernels["cuda"], kernels["reference"])
            implementations.impl(name, kernel, "CPU", allow_override=True)
    pretend.implementations = implementations  # they last as long as it
    knobs.compilation.listener = count
    OnCpu().__enter__()


def count(*, cache_hit: bool, **_: Any) -> None:
    found[cache_hit] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ops", nargs="*", metavar="OP", help="all when not given")
    ops = parser.parse_args().ops
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from benchmarks.calls import make_call
    from benchmarks.cases import CASES

    pretend()
    failed = 0
    for case in CASES:
        if case.device != "cuda" or (ops and case.op not in ops):
            continue
        print(f"{case.op} {case.name}: {sum(found.values())} kernels so far", flush=True)
        try:
            for gate in {False, case.gate is not None}:
                with without_numbers():
                    call = make_call(case, "sslfast", "cpu", gate=gate)
                call()
        except Exception as failure:  # the others' kernels are wanted all the more
            failed += 1
            print(f"failed: {type(failure).__name__}: {failure}")
    print(f"{found[False]} kernels compiled, {found[True]} in the cache already, {failed} cases failed")
    return int(failed > 0)


def without_numbers() -> mock._patch_dict:
    """Inputs of zeros, which take neither time nor memory until they are touched."""
    zeros = {"randn": torch.zeros, "rand": torch.zeros}
    return mock.patch.multiple(torch, **zeros)


def pytest_configure(config) -> None:
    pretend()
    torch.cuda.is_available = lambda: True
    torch.cuda.synchronize = lambda device=None: None


if __name__ == "__main__":
    sys.exit(main())
