"""The Triton kernels of nt_xent, called directly: on a GPU, and on the CPU under Triton's interpreter in a process of
its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from sslfast.kernels import reference

pytest.importorskip("triton")

from triton_kernels import (
    DEVICE,
    DTYPES,
    WIDTHS_ON_CHIPS,
    assert_fit,
    assert_rounded_once_to_float16,
    check_pair_loss,
    compiles,
    gradient,
    pair_loss_launches,
    run_interpreted,
    run_pair_loss,
    run_pair_reference,
    runs,
    shrink_tiles,
    views,
)

from sslfast.kernels.triton import nt_xent as kernels
from sslfast.kernels.triton import plans, softmax


@pytest.fixture
def small_tiles(monkeypatch):
    shrink_tiles(monkeypatch)
    monkeypatch.setattr(kernels, "GROUPS", 2)


FORMULA = reference.nt_xent_forward, reference.nt_xent_backward
check = functools.partial(check_pair_loss, kernels, FORMULA)
run = functools.partial(run_pair_loss, kernels)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 60), (3, 128), (20, 129), (50, 60)])
def test_ragged_shapes(n, d, dtype, small_tiles):
    check(*views(n, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), [(3, 60), (130, 129), (65, 300)])
def test_default_tiles(n, d, dtype):
    """The first is smaller than a tile."""
    check(*views(n, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 1 / 64, 0.07, 0.5, 100.0])
def test_temperatures(temperature, dtype, small_tiles):
    check(*views(37, 24, dtype, noise=2.0), temperature)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_tensor_and_number_give_the_same_bits(temperature, dtype, small_tiles):
    z1, z2 = views(20, 24, dtype)
    expected = run(z1, z2, temperature)
    actual = run(z1, z2, torch.tensor(temperature, device=DEVICE))
    assert set(actual) - set(expected) == {"dtau"}
    for name in expected.keys() - {"lse"}:
        assert torch.equal(actual[name], expected[name]), name


@runs
@pytest.mark.parametrize(("multiprocessors", "splits"), [(1, 1), (20, 2), (100, 7)])
def test_columns_are_split_until_the_gradient_fills_the_chip(multiprocessors, splits, monkeypatch, small_tiles):
    monkeypatch.setattr(plans, "chip", lambda device: (90, multiprocessors))
    z1, z2 = views(100, 16, torch.bfloat16)
    check(z1, z2, 0.2)
    ones = torch.ones(200, device=DEVICE)
    u, factors = torch.cat([z1, z2]), softmax.Factors(ones, ones, ones, ones)
    assert len(softmax.weighted_sums(factors, u, u, "views", 0.2, None, kernels.SPLITS)) == splits


@runs
def test_strided_inputs_and_an_expanded_gradient(small_tiles):
    z1, z2 = views(40, 48)
    expected = run(z1[:, ::2].contiguous(), z2[:, ::2].contiguous(), 0.2)
    wide = torch.stack([z1, z2], dim=-1)
    grad = torch.tensor(1 / 80, device=DEVICE).expand(80)
    actual = run(wide[:, ::2, 0], z2.T.contiguous().T[:, ::2], 0.2, grad)
    for name in expected:  # other strides may be summed in another order
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-7)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_input_same_bits(dtype, small_tiles):
    z1, z2 = views(25, 70, dtype)
    first, second = run(z1, z2, 0.2), run(z1, z2, 0.2)
    for name in first:
        assert torch.equal(first[name], second[name]), name


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_rows_have_zero_gradient(dtype, small_tiles):
    z1, z2 = views(30, 20, dtype)
    z1[4], z2[7] = 0, 0
    check(z1, z2, 0.2)
    assert (run(z1, z2, 0.2)["dz"][[4, 37]] == 0).all()


@runs
def test_rows_too_short_to_normalise(small_tiles):
    """Shorter than 1e-12 they are divided by that, a constant, as F.normalize does."""
    z1, z2 = views(30, 20)
    z1[4] *= 1e-14
    check(z1, z2, 0.2)


@runs
@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 3e37), (torch.bfloat16, 3e37), (torch.float16, 1e4)])
def test_huge_values_do_not_overflow(dtype, size, small_tiles):
    z1, z2 = views(30, 20, dtype)
    huge = tuple(z.double() / z.double().abs().max() * size for z in (z1, z2))
    check(*(z.to(dtype) for z in huge), 0.2)


@runs
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_identical_and_opposite_rows(temperature, small_tiles):
    z = torch.full((20, 12), 0.3, device=DEVICE)
    together = run(z, z, temperature)
    rounding = torch.finfo(torch.float32).eps / temperature  # the positive's cosine is summed in another order
    torch.testing.assert_close(together["loss"], torch.full_like(together["loss"], 39).log(), rtol=1e-6, atol=rounding)
    assert together["dz"].abs().max() < 1e-6
    apart = run(z, -z, temperature)
    expected = 2 / temperature + math.log(19 + 20 * math.exp(-2 / temperature))
    torch.testing.assert_close(apart["loss"], torch.full_like(apart["loss"], expected), rtol=1e-6, atol=0)


@runs
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_in_nan_out(dtype, temperature, small_tiles):
    z1, z2 = views(40, 24, dtype)
    z1[3, 2] = float("nan")
    outputs = run(z1, z2, torch.tensor(temperature, device=DEVICE))
    for name in ("loss", "dz", "dtau"):
        assert outputs[name].isnan().all(), name


@runs
@pytest.mark.parametrize("value", [0.0, -0.1, float("nan")])
def test_a_senseless_temperature_in_a_tensor_gives_nan(value, small_tiles):
    outputs = run(*views(40, 24), torch.tensor(value, device=DEVICE))
    for name in ("loss", "dz", "dtau"):
        assert outputs[name].isnan().all(), name


@runs
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 6e4])
def test_float16_weights_neither_overflow_nor_vanish(size, small_tiles):
    z1, z2 = (z * 8 for z in views(50, 32, torch.float16))
    grad = gradient(100, size)
    exact = run_pair_reference(FORMULA, z1, z2, 0.2, grad)
    assert_rounded_once_to_float16(run(z1, z2, 0.2, grad)["dz"], exact["dz"])


@runs
def test_panels_narrower_than_a_tile(monkeypatch):
    """A tile of 128 columns keeps off the weights beyond its panel of 64, which are the next row's."""
    shrink_tiles(monkeypatch, columns=128)
    check(*views(75, 60), temperature=0.2)


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)


@compiles
@pytest.mark.parametrize(("d", "dtype", "capability"), WIDTHS_ON_CHIPS)
def test_default_configurations_compile_without_spills(d, dtype, capability, monkeypatch):
    temperature = torch.tensor(0.2) if dtype == torch.bfloat16 else 0.2  # a tensor launches both variants
    forward, backward = pair_loss_launches(monkeypatch, kernels, capability, 4096, d, dtype, temperature)
    assert len(forward) == (4 if dtype == torch.bfloat16 else 3)
    assert_fit(forward + backward, capability)


@compiles
def test_the_smallest_and_an_unaligned_shape_compile(monkeypatch):
    forward, backward = pair_loss_launches(monkeypatch, kernels, 90, 1, 129, torch.bfloat16)
    assert_fit(forward + backward, 90, spills=True)
