"""What the tests of contrastive Triton kernels share: where they run, small tiles, what launches need on a chip."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from numerics import assert_as_accurate
from torch import Tensor
from triton_compile import Launch, assert_fits, recorded_launches, specialised

from sslfast.kernels import reference
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


def shrink_tiles(monkeypatch, rows: int = 32, columns: int = 16, multiprocessors: int | None = None) -> None:
    """Small tiles, panels of 64 columns, 128 features a program: little data meets every branch. Of many
    multiprocessors a few rows fill all only in many splits of the columns."""
    tile = plans.Tile(rows, columns, 4, 2)
    tiles = {
        chip: {name: dict.fromkeys(by_width, tile) for name, by_width in table.items()}
        for chip, table in plans.TILES.items()
    }
    owned = dict.fromkeys(plans.OWNED_FEATURES, 128)
    uncached = plans.plan.__wrapped__
    for name, value in (("TILES", tiles), ("PANEL_BYTES", 128), ("OWNED_FEATURES", owned), ("plan", uncached)):
        monkeypatch.setattr(plans, name, value)
    if multiprocessors is not None:
        monkeypatch.setattr(plans, "chip", lambda device: (90, multiprocessors))


def views(n: int, d: int, dtype: torch.dtype = torch.float32, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, ...]:
    """Two noisy copies (n, d) of the same rows."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(n, d, generator=generator, dtype=torch.float32)
    return tuple(
        (base + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)).to(DEVICE, dtype) for _ in range(2)
    )


def unit_rows(n: int, d: int, dtype: torch.dtype, seed: int) -> Tensor:
    """As the kernels see them, of a length that is rounded once."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator, dtype=torch.float32)
    return reference.normalize(rows)[0].to(DEVICE, dtype)


def gradient(n: int, size: float = 1.0) -> Tensor:
    """Of n losses, from 0 to size."""
    return size * torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(DEVICE)


def number_and_tensor(temperature: float | Tensor) -> tuple[float, Tensor | None]:
    """What the kernels take as temperature and tau; a tensor takes its own path."""
    return (0.0, temperature) if isinstance(temperature, Tensor) else (temperature, None)


def run_pair_loss(
    kernels: ModuleType, z1: Tensor, z2: Tensor, temperature: float | Tensor, grad: Tensor | None = None
) -> dict[str, Tensor]:
    """Everything that the kernels of nt_xent or clip_loss return, by name."""
    number, tau = number_and_tensor(temperature)
    losses, shift, inverse_sum, u, scale, _ = kernels.forward(z1, z2, number, tau)
    grad = torch.full_like(losses, 1 / len(losses)) if grad is None else grad
    dz, dtau = kernels.backward(grad, u, scale, losses, shift, inverse_sum, number, tau)
    # The logarithm of the sum of exponentials, which shift and inverse_sum stand for.
    lse = shift.double() / float(temperature) - inverse_sum.double().log()
    return {"loss": losses, "u": u, "lse": lse, "dz": dz} | ({} if tau is None else {"dtau": dtau})


def run_pair_reference(
    formula: tuple[Callable, Callable],
    z1: Tensor,
    z2: Tensor,
    temperature: float,
    grad: Tensor,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """The same of a formula, forward and backward."""
    forward, backward = formula
    losses, shift, inverse_sum, u, scale, _ = forward(z1.to(dtype), z2.to(dtype), temperature)
    dz, dtau = backward(grad.to(dtype), u, scale, losses, shift, inverse_sum, temperature)
    lse = shift.double() / temperature - inverse_sum.double().log()
    return {"loss": losses, "u": u, "lse": lse, "dz": dz, "dtau": dtau}


def check_pair_loss(
    kernels: ModuleType, formula: tuple[Callable, Callable], z1: Tensor, z2: Tensor, temperature: float
) -> None:
    grad = gradient(2 * len(z1), 1 / len(z1))
    actual = run_pair_loss(kernels, z1, z2, torch.tensor(temperature, device=DEVICE, dtype=torch.float32), grad)
    assert_all_as_accurate(
        actual, lambda dtype, tau: run_pair_reference(formula, z1, z2, tau, grad, dtype), z1.dtype, temperature
    )


def assert_all_as_accurate(
    actual: dict[str, Tensor],
    formula: Callable[[torch.dtype, float], dict[str, Tensor]],
    dtype: torch.dtype,
    temperature: float,
) -> None:
    """Every result against formula(dtype, temperature); dL/dτ may err by what an ulp of the temperature changes."""
    eager, exact = formula(dtype, temperature), formula(torch.float64, temperature)
    one_ulp_on = formula(torch.float64, temperature * (1 + 2**-23))
    inherent = {"dtau": (one_ulp_on["dtau"] - exact["dtau"]).norm().item()}
    for name in actual:
        assert_as_accurate(actual[name], eager[name], exact[name], name, dtype=dtype, inherent=inherent.get(name, 0.0))


def assert_rounded_once_to_float16(actual: Tensor, exact: Tensor) -> None:
    """Half an ulp of the weights and of the gradient each, or half a subnormal step."""
    assert (actual.double() - exact).norm() <= 2**-10 * exact.norm() + 2**-25 * exact.numel() ** 0.5


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
    """Every kernel, in each of its variants, once."""
    variants = {(specialised(launch).hash(), *launch.options.items()): launch for launch in launches}
    for launch in variants.values():
        assert_fits(launch, capability, spills)


def pair_loss_launches(
    monkeypatch: Any,
    kernels: ModuleType,
    capability: int,
    n: int,
    d: int,
    dtype: torch.dtype,
    temperature: float | Tensor = 0.2,
) -> tuple[list[Launch], list[Launch]]:
    """Those of a forward and of a backward of nt_xent or clip_loss."""
    number, tau = number_and_tensor(temperature)
    z = torch.empty(n, d, dtype=dtype)
    with planned_for(monkeypatch, capability):
        forward, outputs = recorded_launches(monkeypatch, kernels.forward, z, z, number, tau)
        losses, shift, inverse_sum, u, scale, _ = outputs
        saved = (losses, u, scale, losses, shift, inverse_sum)
        backward, _ = recorded_launches(monkeypatch, kernels.backward, *saved, number, tau)
    return forward, backward


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
# Where few variants are compiled at each push: those on Hopper, but for wide rows, are `slow`, the others `long`.
VARIANTS = [
    pytest.param(*width.values, chip, id=f"{width.id}-{chip}", marks=(pytest.mark.slow, *marks))
    for width in WIDTHS
    for chip in (80, 90, 100)
    for marks in [() if chip == 90 and width.values[0] != 1024 and not width.marks else (pytest.mark.long,)]
]
