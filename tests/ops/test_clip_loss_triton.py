"""The Triton kernels of clip_loss, called directly: on a GPU, and on the CPU under Triton's interpreter in a process of
its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import functools

import pytest
import torch

from sslfast.kernels import reference_image_text as reference

pytest.importorskip("triton")

from triton_kernels import (
    DEVICE,
    DTYPES,
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

from sslfast.kernels.triton import clip_loss as kernels


@pytest.fixture
def small_tiles(monkeypatch):
    shrink_tiles(monkeypatch)
    monkeypatch.setattr(kernels, "GROUPS", 2)


FORMULA = reference.clip_loss_forward, reference.clip_loss_backward
check = functools.partial(check_pair_loss, kernels, FORMULA)
run = functools.partial(run_pair_loss, kernels)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 128), (50, 60)])
def test_ragged_shapes(n, d, dtype, small_tiles):
    check(*views(n, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize(("n", "d", "dtype"), [(130, 129, torch.float32), (70, 300, torch.bfloat16)])
def test_default_tiles(n, d, dtype):
    check(*views(n, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize("temperature", [0.01, 1 / 64, 100.0])
def test_temperatures(temperature, small_tiles):
    check(*views(37, 24, noise=2.0), temperature)


@runs
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_tensor_and_number_give_the_same_bits(temperature, small_tiles):
    image, text = views(20, 24, torch.bfloat16)
    expected = run(image, text, temperature)
    actual = run(image, text, torch.tensor(temperature, device=DEVICE))
    for name in expected.keys() - {"lse"}:
        assert torch.equal(actual[name], expected[name]), name


@runs
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_nan_in_nan_out(temperature, small_tiles):
    """A NaN among the images reaches its own loss and those of all texts."""
    image, text = views(40, 24)
    image[3, 2] = float("nan")
    outputs = run(image, text, torch.tensor(temperature, device=DEVICE))
    assert outputs["loss"][3].isnan()
    assert outputs["loss"][40:].isnan().all()
    assert outputs["loss"][:3].isfinite().all()
    assert outputs["dz"].isnan().all()
    assert outputs["dtau"].isnan()
    assert run(image, text, torch.tensor(-1.0, device=DEVICE))["loss"].isnan().all()


@runs
@pytest.mark.parametrize("size", [1e-6, 6e4])
def test_float16_weights_neither_overflow_nor_vanish(size, small_tiles):
    image, text = (z * 8 for z in views(50, 32, torch.float16))
    grad = gradient(100, size)
    exact = run_pair_reference(FORMULA, image, text, 0.2, grad)
    assert_rounded_once_to_float16(run(image, text, 0.2, grad)["dz"], exact["dz"])


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)


@compiles
@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.parametrize(
    ("d", "dtype"),
    [
        (128, torch.bfloat16),
        pytest.param(1024, torch.bfloat16, marks=pytest.mark.slow),
        pytest.param(256, torch.float32, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_default_configurations_compile_without_spills(d, dtype, capability, monkeypatch):
    forward, backward = pair_loss_launches(monkeypatch, kernels, capability, 4096, d, dtype, torch.tensor(0.2))
    assert_fit(forward + backward, capability)
