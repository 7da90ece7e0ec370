"""The race check of tests/triton_races.py, on kernels with and without a race."""

from __future__ import annotations

import os

import pytest
import torch

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402
from triton.runtime.errors import InterpreterError  # noqa: E402
from triton_kernels import run_interpreted  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="needs the interpreter")


@triton.jit
def add_one(x, SIZE: tl.constexpr):
    """Each program its own elements, in place."""
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(x + at, tl.load(x + at) + 1.0)


@triton.jit
def number(x):
    """The programs of three dimensions, each its number plus one, into zeros."""
    at = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
    tl.store(x + at, tl.load(x + at) + at + 1)


@triton.jit
def reverse_through_memory(x, SIZE: tl.constexpr, WAIT: tl.constexpr):
    """Threads read what others wrote, and overwrite what others read."""
    at = tl.arange(0, SIZE)
    tl.store(x + at, at.to(tl.float32))
    if WAIT:
        tl.debug_barrier()
    tl.store(x + SIZE + at, tl.load(x + SIZE - 1 - at))


@triton.jit
def shift_in_place(x, SIZE: tl.constexpr, WAIT: tl.constexpr):
    at = tl.arange(0, SIZE)
    y = tl.load(x + at + 1)
    if WAIT:
        tl.debug_barrier()
    tl.store(x + at, y)


@triton.jit
def store_and_read_back(x, y, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(x + at, at.to(tl.float32))
    tl.store(y + at, tl.load(x + at))


@triton.jit
def store_twice(x, SIZE: tl.constexpr, SHIFT: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(x + at, at.to(tl.float32))
    tl.store(x + SHIFT + at, at.to(tl.float32))


@triton.jit
def copy_from_next(x, SIZE: tl.constexpr):
    at = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(x + at, tl.load(x + at + SIZE))


@triton.jit
def overlap(x, SIZE: tl.constexpr):
    at = tl.program_id(0) * (SIZE - 1) + tl.arange(0, SIZE)
    tl.store(x + at, 1.0)


@triton.jit
def store_pairs(x, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE) // 2
    tl.store(x + at, 1.0)


@triton.jit
def fill(x, count, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(x + at, 1.0, mask=at < count)


@triton.jit
def count_pairs(x, SIZE: tl.constexpr, WAIT: tl.constexpr):
    """Two threads add to an element, and a third sets the next before or after."""
    at = tl.arange(0, SIZE)
    tl.atomic_add(x + at // 2, 1)
    if WAIT:
        tl.debug_barrier()
    tl.store(x + at + 1, 0)


@triton.jit
def add_floats(x, SIZE: tl.constexpr):
    tl.atomic_add(x + tl.arange(0, SIZE) // 2, 1.0)


def zeros(size):
    return torch.zeros(size, dtype=torch.float32)


@interpreted
def test_programs_and_threads_apart_are_no_race():
    x = zeros(1024)
    add_one[(4,)](x, SIZE=256)
    assert (x == 1).all()
    store_twice[(1,)](x, SIZE=256, SHIFT=0)
    store_and_read_back[(1,)](x, zeros(256), SIZE=256)
    fill[(1,)](zeros(200), 200, SIZE=256)


@interpreted
def test_every_program_runs_once_and_not_in_order():
    x = zeros(2 * 3 * 5)
    number[(2, 3, 5)](x)
    assert torch.equal(x, torch.arange(1, 31).float())
    import triton_races

    order = triton_races._launch.order
    assert sorted(order) == list(range(30)) != list(order)


@interpreted
def test_barriers_part_the_threads_of_a_program():
    x = zeros(512)
    reverse_through_memory[(1,)](x, SIZE=256, WAIT=True)
    assert torch.equal(x[256:], x[:256].flip(0))
    shift_in_place[(1,)](x, SIZE=256, WAIT=True)


@interpreted
def test_atomic_additions_are_no_race():
    x = zeros(512).int()
    count_pairs[(1,)](x, SIZE=256, WAIT=True)
    assert x[0] == 2
    assert not x[1:].any()


def launch_reversed(x):
    reverse_through_memory[(1,)](x, SIZE=256, WAIT=False)


def launch_small_block(x):
    """64 of 128 threads write, all read."""
    store_and_read_back[(1,)](x, x[512:], SIZE=64)


@interpreted
@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (lambda x: overlap[(2,)](x, SIZE=256), "overlap overwrites what another program writes, in x"),
        (lambda x: copy_from_next[(3,)](x, SIZE=256), "another program (reads|writes), in x"),
        (launch_reversed, "reads without a barrier what another thread wrote"),
        (launch_small_block, "reads without a barrier what another thread wrote"),
        (lambda x: shift_in_place[(1,)](x, 256, WAIT=False), "overwrites without a barrier what another thread read"),
        (lambda x: store_twice[(1,)](x, 256, SHIFT=1), "overwrites without a barrier what another thread wrote"),
        (lambda x: store_pairs[(1,)](x, SIZE=256), "writes an element by two threads at once"),
        (lambda x: fill[(1,)](x, 1025, SIZE=2048), "fill writes outside its arguments"),
        (
            lambda x: count_pairs[(1,)](x.int(), 256, WAIT=False),
            "overwrites without a barrier what another thread wrote",
        ),
        (lambda x: add_floats[(1,)](x, SIZE=256), "no atomic"),
    ],
)
def test_a_race_is_raised(launch, message):
    with pytest.raises((InterpreterError, AssertionError, NotImplementedError), match=message):
        launch(zeros(1024))


@pytest.mark.skipif(INTERPRETED, reason="is the interpreter")
def test_under_the_interpreter():
    run_interpreted(__file__, "-p", "triton_races")
