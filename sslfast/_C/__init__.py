"""The C++ core: `csrc/cpu` compiled once for each instruction set, of which the best that this CPU has serves.

Its functions are those of this module. `cuda` are those of `csrc/cuda`, if `has_cuda`. A package may be built without
the core: `has_core` is False then, and the reference serves every op on the CPU. `SSLFAST_NO_EXTENSION=1` says that
this is wanted, when the package is built and when it is imported.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from importlib.util import find_spec

has_core = find_spec("sslfast._C.baseline") is not None
has_cuda = find_spec("sslfast._C.cuda") is not None
INSTRUCTION_SETS: list[str] = []  # best first

if has_core:
    from sslfast._C import baseline

    INSTRUCTION_SETS = [name for name in baseline.instruction_sets() if find_spec(f"sslfast._C.{name}")]
if has_cuda:
    from sslfast._C import cuda as cuda


def load(name: str) -> None:
    """Let the module `name` of `INSTRUCTION_SETS` serve from now on; tests ask for lesser ones."""
    if name not in INSTRUCTION_SETS:
        raise ValueError(f"name must be one of {', '.join(INSTRUCTION_SETS)}, got {name!r}")
    module = import_module(f"sslfast._C.{name}")
    globals().update({key: value for key, value in vars(module).items() if not key.startswith("__")}, loaded=name)


if has_core:
    load(INSTRUCTION_SETS[0])
elif os.environ.get("SSLFAST_NO_EXTENSION") != "1":
    warnings.warn(
        "sslfast was built without its C++ core: plain PyTorch serves the CPU, slower (`sslfast info`)", stacklevel=2
    )
