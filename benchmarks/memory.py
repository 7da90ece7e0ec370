"""Peak of memory during forward and backward, above what is held before."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import torch

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))
from benchmarks.calls import make_call
from benchmarks.cases import Case, cases
from sslfast.kernels.cpu import memory


def peak_bytes(case: Case, peer: str, device: str) -> int:
    """On CUDA by the allocator; on a CPU by the resident memory of an own process."""
    if device == "cuda":
        call = make_call(case, peer, device)
        call()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    command = [sys.executable, __file__, case.op, case.name, peer]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1])


def resident_peak(op: str, name: str, peer: str) -> int:
    """Of this process, for a second call: the first one loads, compiles and caches."""
    call = make_call(next(case for case in cases(op, "cpu") if case.name == name), peer, "cpu")
    call()
    memory.release()  # what was freed goes back to the system: results and scratch memory that sslfast keeps
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # and what malloc keeps; neither would else be counted
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024


if __name__ == "__main__":
    print(resident_peak(*sys.argv[1:]))
