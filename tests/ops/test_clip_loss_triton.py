"""The Triton kernels of clip_loss, called directly: on a GPU, and on the CPU under Triton's interpreter in a process of
its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_as_accurate

from sslfast.kernels import reference_image_text as reference

pytest.importorskip("triton")

from triton_compile import recorded_launches
from triton_kernels import (
    DEVICE,
    DTYPES,
    assert_fit,
    compiles,
    planned_for,
    run_interpreted,
    runs,
    shrink_tiles,
)

from sslfast.kernels.triton import clip_loss as kernels


@pytest.fixture
def small_tiles(monkeypatch):
    shrink_tiles(monkeypatch)
    monkeypatch.setattr(kernels, "GROUPS", 2)


def embeddings(n, d, dtype=torch.float32, noise=1.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(n, d, generator=generator, dtype=torch.float32)
    return tuple(
        (base + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)).to(DEVICE, dtype) for _ in range(2)
    )


def run(image, text, temperature, grad=None):
    """Everything the kernels return, by name; a tensor as temperature takes its own path."""
    number, tau = (0.0, temperature) if isinstance(temperature, torch.Tensor) else (temperature, None)
    losses, shift, inverse_sum, u, scale, _ = kernels.forward(image, text, number, tau)
    grad = torch.full_like(losses, 1 / len(losses)) if grad is None else grad
    dz, dtau = kernels.backward(grad, u, scale, losses, shift, inverse_sum, number, tau)
    return {"loss": losses, "dz": dz} | ({} if tau is None else {"dtau": dtau})


def run_reference(image, text, temperature, grad, dtype):
    outputs = reference.clip_loss_forward(image.to(dtype), text.to(dtype), temperature)
    losses, shift, inverse_sum, u, scale, _ = outputs
    dz, dtau = reference.clip_loss_backward(grad.to(dtype), u, scale, losses, shift, inverse_sum, temperature)
    return {"loss": losses, "dz": dz, "dtau": dtau}


def check(image, text, temperature, size=1.0):
    draw = torch.rand(2 * len(image), generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    grad = size * (draw / len(image)).to(DEVICE)
    actual = run(image, text, torch.tensor(temperature, device=DEVICE, dtype=torch.float32), grad)
    eager = run_reference(image, text, temperature, grad, image.dtype)
    exact = run_reference(image, text, temperature, grad, torch.float64)
    one_ulp_on = run_reference(image, text, temperature * (1 + 2**-23), grad, torch.float64)
    inherent = {"dtau": abs(one_ulp_on["dtau"] - exact["dtau"]).item()}
    for name in actual:
        assert_as_accurate(
            actual[name], eager[name], exact[name], name, dtype=image.dtype, inherent=inherent.get(name, 0.0)
        )


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 128), (50, 60)])
def test_ragged_shapes(n, d, dtype, small_tiles):
    check(*embeddings(n, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize(("n", "d", "dtype"), [(130, 129, torch.float32), (70, 300, torch.bfloat16)])
def test_default_tiles(n, d, dtype):
    check(*embeddings(n, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize("temperature", [0.01, 1 / 64, 100.0])
def test_temperatures(temperature, small_tiles):
    check(*embeddings(37, 24, noise=2.0), temperature)


@runs
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_tensor_and_number_give_the_same_bits(temperature, small_tiles):
    image, text = embeddings(20, 24, torch.bfloat16)
    expected = run(image, text, temperature)
    actual = run(image, text, torch.tensor(temperature, device=DEVICE))
    for name in expected:
        assert torch.equal(actual[name], expected[name]), name


@runs
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_nan_in_nan_out(temperature, small_tiles):
    """A NaN among the images reaches its own loss and those of all texts."""
    image, text = embeddings(40, 24)
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
    """Against a tolerance of float16's own: half an ulp of the weights and of dz each, or half a subnormal step."""
    image, text = (z * 8 for z in embeddings(50, 32, torch.float16))
    grad = size * torch.rand(100, generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(DEVICE)
    actual = run(image, text, 0.2, grad)["dz"].double()
    exact = run_reference(image, text, 0.2, grad, torch.float64)["dz"]
    assert (actual - exact).norm() <= 2**-10 * exact.norm() + 2**-25 * exact.numel() ** 0.5


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)


def launches(monkeypatch, capability, n, d, dtype):
    """All of a forward and a backward, in both variants."""
    z, tau = torch.empty(n, d, dtype=dtype), torch.tensor(0.2)
    with planned_for(monkeypatch, capability):
        forward, outputs = recorded_launches(monkeypatch, kernels.forward, z, z, 0.0, tau)
        losses, shift, inverse_sum, u, scale, _ = outputs
        backward, _ = recorded_launches(
            monkeypatch, kernels.backward, losses, u, scale, losses, shift, inverse_sum, 0.0, tau
        )
    return forward + backward


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
    assert_fit(launches(monkeypatch, capability, 4096, d, dtype), capability)
