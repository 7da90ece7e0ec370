"""The C++ core: `csrc/cpu` compiled once for each instruction set, of which the best that this CPU has serves.

Its functions are those of this module. `cuda` are those of `csrc/cuda`, if `has_cuda`.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from sslfast._C import baseline

has_cuda = find_spec("sslfast._C.cuda") is not None
if has_cuda:
    from sslfast._C import cuda as cuda

INSTRUCTION_SETS = [name for name in baseline.instruction_sets() if find_spec(f"sslfast._C.{name}")]  # best first


def load(name: str) -> None:
    """Let the module `name` of `INSTRUCTION_SETS` serve from now on; tests ask for lesser ones."""
    if name not in INSTRUCTION_SETS:
        raise ValueError(f"name must be one of {', '.join(INSTRUCTION_SETS)}, got {name!r}")
    module = import_module(f"sslfast._C.{name}")
    globals().update({key: value for key, value in vars(module).items() if not key.startswith("__")}, loaded=name)


load(INSTRUCTION_SETS[0])
