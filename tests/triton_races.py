"""A pytest plugin: Triton's interpreter runs the programs of a launch in random order, and raises Race at an access
outside the arguments, or whose outcome on a GPU hangs on an order that nothing imposes (pytest -p triton_races).

Between programs nothing imposes any. Within a program a barrier does; without one the order of the code holds where
both accesses are one thread's, which the same places of two blocks of one shape are taken to be. A block with fewer
elements than the program has threads is read by several of them.
"""

from __future__ import annotations

import functools

import numpy as np
import torch
from triton._C.libtriton.ir import ATOMIC_OP as atomics
from triton.runtime.interpreter import GridExecutor, InterpretedFunction, InterpreterBuilder

NOBODY, SEVERAL = -1, -2


class Race(AssertionError):
    pass


class Accesses:
    """Of each element: the program that accessed it, and when and by which thread it last did."""

    def __init__(self, size: int):
        self.program = np.full(size, NOBODY, np.int32)
        self.phase = np.full(size, NOBODY, np.int32)
        self.thread = np.full(size, NOBODY, np.int64)

    def by_another(self, at: np.ndarray, program: int) -> np.ndarray:
        return (self.program[at] != NOBODY) & (self.program[at] != program)

    def unordered(self, at: np.ndarray, phase: int, threads: np.ndarray | int) -> np.ndarray:
        return (self.phase[at] == phase) & (self.thread[at] != threads)

    def add(self, at: np.ndarray, program: int, phase: int, threads: np.ndarray) -> None:
        several = self.unordered(at, phase, threads)
        self.program[at] = np.where(self.by_another(at, program), SEVERAL, program)
        self.phase[at] = phase
        self.thread[at] = threads
        self.thread[at[several | (self.thread[at] != threads)]] = SEVERAL  # also where `at` has an element twice


class Memory:
    """The storage of a tensor argument, in elements of the size by which the kernel accesses it."""

    def __init__(self, name: str, tensor: torch.Tensor):
        storage = tensor.untyped_storage()
        self.name, self.begin, self.bytes, self.item = name, storage.data_ptr(), storage.nbytes(), None

    def elements(self, addresses: np.ndarray, item: int) -> np.ndarray:
        if self.item is None:
            self.item = item
            self.reads, self.writes, self.atomics = (Accesses(self.bytes // item) for _ in range(3))
        assert self.item == item, f"{self.name} is accessed by {self.item} and by {item} bytes"
        return (addresses - np.uint64(self.begin)).astype(np.int64) // item


class Launch:
    def __init__(self, kernel: str, threads: int):
        self.kernel, self.threads = kernel, threads
        self.phase = 0  # counts barriers and programs
        self.shapes: dict[tuple[int, ...], int] = {}

    def take_arguments(self, named: dict[str, object]) -> None:
        tensors = {name: x for name, x in named.items() if isinstance(x, torch.Tensor) and x.numel()}
        self.memories = [Memory(name, tensor) for name, tensor in tensors.items()]

    def order_programs(self, grid: tuple[int, int, int]) -> None:
        self.grid = grid
        self.order = np.random.default_rng(0).permutation(int(np.prod(grid)))

    def begin(self, place: tuple[int, int, int]) -> tuple[int, ...]:
        """Which program is run in the place of another."""
        self.program = int(self.order[np.ravel_multi_index(place, self.grid)])
        self.phase += 1
        return tuple(map(int, np.unravel_index(self.program, self.grid)))

    def access(self, pointers, mask, write: bool, atomic: bool = False) -> None:
        inside = np.broadcast_to(mask.data, pointers.data.shape).astype(bool).ravel()
        addresses = pointers.data.ravel()[inside]
        if not addresses.size:
            return
        item = max(1, pointers.get_element_ty().primitive_bitwidth // 8)
        memory = self._memory(int(addresses.min()), int(addresses.max()) + item, write)
        at = memory.elements(addresses, item)
        shape = self.shapes.setdefault(pointers.data.shape, len(self.shapes))
        threads = (shape << 40) + np.flatnonzero(inside)
        if write:
            self._write(memory, at, threads, atomic)
        else:
            self._read(memory, at, threads, replicated=inside.size < self.threads)

    def _memory(self, begin: int, end: int, write: bool) -> Memory:
        for memory in self.memories:
            if memory.begin <= begin and end <= memory.begin + memory.bytes:
                return memory
        raise Race(f"{self.kernel} {'writes' if write else 'reads'} outside its arguments")

    def _read(self, memory: Memory, at: np.ndarray, threads: np.ndarray, replicated: bool) -> None:
        for writes in (memory.writes, memory.atomics):
            if writes.by_another(at, self.program).any():
                self._fail(memory, "reads what another program writes")
            if writes.unordered(at, self.phase, NOBODY if replicated else threads).any():
                self._fail(memory, "reads without a barrier what another thread wrote")
        memory.reads.add(at, self.program, self.phase, threads)

    def _write(self, memory: Memory, at: np.ndarray, threads: np.ndarray, atomic: bool) -> None:
        """Atomic ones need no order among themselves."""
        for writes in (memory.writes,) if atomic else (memory.writes, memory.atomics):
            if writes.by_another(at, self.program).any():
                self._fail(memory, "overwrites what another program writes")
            if writes.unordered(at, self.phase, threads).any():
                self._fail(memory, "overwrites without a barrier what another thread wrote")
        if memory.reads.by_another(at, self.program).any():
            self._fail(memory, "overwrites what another program reads")
        if memory.reads.unordered(at, self.phase, threads).any():
            self._fail(memory, "overwrites without a barrier what another thread read")
        if atomic:
            memory.atomics.add(at, self.program, self.phase, threads)
            return
        memory.writes.add(at, self.program, self.phase, threads)
        if (memory.writes.thread[at] != threads).any():
            self._fail(memory, "writes an element by two threads at once")

    def _fail(self, memory: Memory, what: str) -> None:
        raise Race(f"{self.kernel} {what}, in {memory.name}")


_launch: Launch


def _around(owner: type, name: str):
    """Replaces a method by the decorated function, which gets the original first."""

    def replace(function):
        original = getattr(owner, name)

        @functools.wraps(original)
        def method(self, *args, **kwargs):
            return function(functools.partial(original, self), self, *args, **kwargs)

        setattr(owner, name, method)
        return function

    return replace


@_around(InterpretedFunction, "run")
def _run(original, function, *args, **kwargs):
    global _launch
    _launch = Launch(function.__name__, 32 * kwargs.get("num_warps", 4))
    return original(*args, **kwargs)


@_around(GridExecutor, "_init_args_hst")
def _take_arguments(original, executor, args, kwargs):
    on_host, named_on_host = original(args, kwargs)
    _launch.take_arguments(dict(zip(executor.arg_names, on_host)) | named_on_host)
    return on_host, named_on_host


@_around(InterpreterBuilder, "set_grid_dim")
def _order_programs(original, builder, *grid):
    _launch.order_programs(grid)
    return original(*grid)


@_around(InterpreterBuilder, "set_grid_idx")
def _begin(original, builder, *place):
    return original(*_launch.begin(place))


@_around(InterpreterBuilder, "create_barrier")
def _barrier(original, builder, *args):
    _launch.phase += 1
    return original(*args)


@_around(InterpreterBuilder, "create_masked_load")
def _load(original, builder, pointers, mask, *rest):
    _launch.access(pointers, mask, write=False)
    return original(pointers, mask, *rest)


@_around(InterpreterBuilder, "create_masked_store")
def _store(original, builder, pointers, value, mask, *rest):
    _launch.access(pointers, mask, write=True)
    return original(pointers, value, mask, *rest)


@_around(InterpreterBuilder, "create_atomic_rmw")
def _atomic(original, builder, operation, pointers, value, mask, *rest):
    if operation != atomics.ADD:  # of whole numbers: those of floats hang on the order
        raise NotImplementedError(f"triton_races knows no atomic {operation}")
    _launch.access(pointers, mask, write=True, atomic=True)
    return original(operation, pointers, value, mask, *rest)


@_around(InterpreterBuilder, "create_atomic_cas")
def _compare_and_swap(*_):
    raise NotImplementedError("triton_races knows no atomic comparison")
