"""The Triton kernels of siglip_loss, called directly: on a GPU, and on the CPU under Triton's interpreter in a process
of its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_as_accurate

from sslfast.kernels import reference_image_text as formula

pytest.importorskip("triton")

from triton_compile import recorded_launches
from triton_kernels import DEVICE, DTYPES, assert_fit, compiles, planned_for, run_interpreted, runs, shrink_tiles, views

from sslfast.kernels.triton import siglip_loss as kernels
from sslfast.kernels.triton.unit_rows import normalize

SCALE, BIAS = 10.0, -6.0


@pytest.fixture
def small_tiles(monkeypatch):
    shrink_tiles(monkeypatch)


def number(value):
    return torch.tensor(value, device=DEVICE, dtype=torch.float32)


NAMES = ("losses", "weights", "dimage", "dtext")


def check(n, d, dtype, factor=None, own=True):
    """The sums against the formula in float64, from the same unit rows."""
    u, _ = normalize(*views(n, d, dtype))
    image, text = u.chunk(2)
    found = kernels.sums(image, text, factor, own, 0.0, 0.0, number(SCALE), number(BIAS), True, True, True)
    eager, exact, one_ulp_on = (
        formula.siglip_sums(image.to(t), text.to(t), None if factor is None else factor.to(t), own, scale, BIAS)
        for t, scale in ((torch.float32, SCALE), (torch.float64, SCALE), (torch.float64, SCALE * (1 + 2**-23)))
    )
    for name, *results, moved in zip(NAMES, found, eager, exact, one_ulp_on):
        by_row = name in ("losses", "weights")
        inherent = (moved - results[-1]).abs().max().item() if by_row else 0.0
        assert_as_accurate(*results, name, dtype=torch.float32 if by_row else dtype, inherent=inherent)
    return image, text, found


@runs
@pytest.mark.parametrize(
    ("n", "d", "dtype"),
    [(1, 1, torch.float16), (3, 128, torch.bfloat16), *((40, 70, dtype) for dtype in DTYPES)],
    ids=str,
)
def test_ragged_shapes(n, d, dtype, small_tiles):
    check(n, d, dtype)


@runs
@pytest.mark.parametrize(
    ("n", "d", "dtype"),
    [(130, 129, torch.float32), pytest.param(140, 300, torch.bfloat16, marks=pytest.mark.long)],
)
def test_default_tiles(n, d, dtype):
    check(n, d, dtype)


@runs
@pytest.mark.parametrize(("dtype", "own"), [(torch.float32, True), (torch.float16, False)], ids=str)
def test_rows_with_factors_and_each_result_alone(dtype, own, small_tiles):
    """A factor may be beyond the range of float16, and few results cost no others."""
    factor = 1e6 * torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(DEVICE)
    image, text, all_of_them = check(20, 40, dtype, factor, own)
    for wanted in ((True, False, False), (False, True, False), (False, False, True)):
        found = kernels.sums(image, text, factor, own, SCALE, BIAS, None, None, *wanted)
        asked = (wanted[0], wanted[1] or wanted[2], *wanted[1:])
        for result, expected, is_asked in zip(found, all_of_them, asked):
            assert torch.equal(result, expected) if is_asked else len(result) == 0


@runs
def test_small_weights_of_float16_do_not_vanish(small_tiles):
    """With a bias of -20 the weights of others are 1e-9 of that of an image's own text; the largest by themselves."""
    image, text = normalize(*views(20, 32, torch.float16))[0].chunk(2)
    found = kernels.sums(image, text, None, False, 4.0, -20.0, None, None, False, True, True)
    exact = formula.siglip_sums(image.double(), text.double(), None, False, 4.0, -20.0)
    for result, expected in zip(found[1:], exact[1:]):
        assert (result - expected).norm() <= 2e-2 * expected.norm()


@runs
def test_nan_in_nan_out(small_tiles):
    image, text = normalize(*views(20, 24))[0].chunk(2)
    image[3, 2] = float("nan")
    losses, weights, dimage, dtext = kernels.sums(image, text, None, True, SCALE, BIAS, None, None, True, True, True)
    for x in (losses, weights, dimage):
        assert x[3].isnan().all()
        assert x[4:].isfinite().all()
    assert dtext.isnan().all()


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)


def launches(monkeypatch, capability, n, d, dtype):
    """The sums of a loss alone, of one with its gradients, and of gradients that wait for the factors of the losses."""
    z, scale = torch.empty(n, d, dtype=dtype), torch.tensor(SCALE)
    with planned_for(monkeypatch, capability):
        found, factor = [], torch.empty(n, dtype=torch.float32)
        for factors, *wanted in ((None, True, False, False), (None, True, True, True), (factor, False, True, True)):
            options = factors, True, 0.0, BIAS, scale, None, *wanted
            found += recorded_launches(monkeypatch, kernels.sums, z, z, *options)[0]
    return found


@compiles
@pytest.mark.parametrize(
    "capability", [pytest.param(80, marks=pytest.mark.long), 90, pytest.param(100, marks=pytest.mark.long)]
)
@pytest.mark.parametrize(
    ("d", "dtype"),
    [
        pytest.param(128, torch.bfloat16, marks=pytest.mark.long),
        (512, torch.bfloat16),
        pytest.param(256, torch.bfloat16, marks=pytest.mark.long),
        pytest.param(256, torch.float16, marks=pytest.mark.long),
        pytest.param(256, torch.float32, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_default_configurations_compile_without_spills(d, dtype, capability, monkeypatch):
    assert_fit(launches(monkeypatch, capability, 4096, d, dtype), capability)
