"""What the tests of contrastive Triton kernels share: where they run, small tiles, what launches need on a chip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from triton_compile import Launch, assert_fits

from sslfast.kernels.triton import plans

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    import triton_interpreter  # noqa: F401

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
compiles = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")


def runs(test: Callable) -> Callable:
    """Marks what runs kernels."""
    test = pytest.mark.usefixtures("poisoned_memory")(test)
    return test if INTERPRETED else pytest.mark.gpu(test)


def shrink_tiles(monkeypatch, rows: int = 32, columns: int = 16) -> None:
    """Small tiles, panels of 64 columns, 128 features a program: little data meets every branch."""
    tile = plans.Tile(rows, columns, 4, 2)
    tiles = {
        chip: {name: dict.fromkeys(by_width, tile) for name, by_width in table.items()}
        for chip, table in plans.TILES.items()
    }
    owned = dict.fromkeys(plans.OWNED_FEATURES, 128)
    uncached = plans.plan.__wrapped__
    for name, value in (("TILES", tiles), ("PANEL_BYTES", 128), ("OWNED_FEATURES", owned), ("plan", uncached)):
        monkeypatch.setattr(plans, name, value)


def run_interpreted(path: str | Path, *options: str) -> None:
    """All that `runs` in a file, on CPU tensors in an own process: Triton decides at import whether it interprets."""
    plugins = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": plugins}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        *options,
        str(Path(path).resolve()),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@contextmanager
def planned_for(monkeypatch, capability: int) -> Iterator[None]:
    """Launches as they would be on a chip of 132 multiprocessors."""
    with monkeypatch.context() as patch:
        patch.setattr(plans, "chip", lambda device: (capability, 132))
        patch.setattr(plans, "plan", plans.plan.__wrapped__)
        yield


def assert_fit(launches: list[Launch], capability: int, spills: bool = False) -> None:
    """Every kernel, in each of its variants."""
    first = {
        (x.kernel.__name__, x.arguments.get("FIXED_SHIFT"), x.arguments.get("SKIP")): x for x in reversed(launches)
    }
    for launch in first.values():
        assert_fits(launch, capability, spills)


ALIKE = [(256, torch.float16), (1024, torch.float16), (256, torch.float32)]  # same tiles and code as another case
WIDTHS = [
    pytest.param(d, dtype, id=f"{d}-{dtype}", marks=(pytest.mark.long,) if (d, dtype) in ALIKE else ())
    for d in (128, 256, 1024)
    for dtype in DTYPES
]
# Every width on one chip and one on every chip; the other pairs take minutes.
WIDTHS_ON_CHIPS = [
    pytest.param(*width.values, chip, id=f"{width.id}-{chip}", marks=width.marks + marks)
    for width in WIDTHS
    for chip in (80, 90, 100)
    for marks in [() if chip == 90 or width.values == (256, torch.bfloat16) else (pytest.mark.long,)]
]
