"""The Triton kernels of negative_cosine_similarity, called directly: on a GPU, and on the CPU under Triton's
interpreter in a process of its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from numerics import assert_as_accurate

from sslfast.kernels import reference

triton = pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    import triton_interpreter  # noqa: F401
else:
    from triton_compile import assert_fits, recorded_launches

from sslfast.kernels.triton import negative_cosine_similarity as kernels  # noqa: E402

DEVICE = "cpu" if INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
compiles = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")


def runs(test):
    """Marks what runs kernels."""
    test = pytest.mark.usefixtures("poisoned_memory")(test)
    return test if INTERPRETED else pytest.mark.gpu(test)


def rows(n, d, dtype=torch.float32, noise=1.0):
    generator = torch.Generator().manual_seed(0)
    p = torch.randn(n, d, generator=generator, dtype=torch.float32)
    return p.to(DEVICE, dtype), (p + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)).to(
        DEVICE, dtype
    )


def run(floor, p, z, grad=None):
    if grad is None:
        grad = torch.rand(len(p), generator=torch.Generator().manual_seed(1), dtype=torch.float32).to(DEVICE)
    if floor is kernels:
        dp, dz = kernels.backward(grad, p, z, True, True)
        return {"loss": kernels.forward(p, z), "dp": dp, "dz": dz}
    dp, dz = reference.negative_cosine_similarity_backward(grad.to(p.dtype), p, z, True, True)
    return {"loss": reference.negative_cosine_similarity_forward(p, z), "dp": dp, "dz": dz}


def check(p, z):
    actual, eager, exact = run(kernels, p, z), run(reference, p, z), run(reference, p.double(), z.double())
    for name in actual:
        assert_as_accurate(actual[name], eager[name], exact[name], name, dtype=p.dtype)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "d"), [(1, 2), (3, 60), (257, 20), (33, 128), (5, 2048), (2, 5000)])
def test_ragged_shapes(n, d, dtype):
    check(*rows(n, d, dtype))


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_feature_has_no_angle(dtype):
    p, z = rows(63, 1, dtype)
    results = run(kernels, p, z)
    torch.testing.assert_close(results["loss"], -(p.sign() * z.sign()).float().squeeze(1), rtol=1e-6, atol=0)
    assert (results["dp"].abs() <= 3e-7 / p.abs()).all()
    assert (results["dz"].abs() <= 3e-7 / z.abs()).all()


@runs
@pytest.mark.parametrize("noise", [1e-3, 1e-6, 0.0])
def test_small_gradients_of_nearly_parallel_rows(noise):
    check(*rows(50, 300, noise=noise))


@runs
def test_only_the_gradients_asked_for():
    p, z = rows(9, 20)
    grad = torch.ones(9, device=DEVICE)
    both = kernels.backward(grad, p, z, True, True)
    for wanted in ((True, False), (False, True), (False, False)):
        for given, gradient, asked in zip(kernels.backward(grad, p, z, *wanted), both, wanted):
            assert torch.equal(given, gradient) if asked else given.shape == (0, 20)


@runs
def test_strided_inputs_and_an_expanded_gradient():
    p, z = rows(40, 48)
    grad = torch.tensor(1 / 40, device=DEVICE).expand(40)
    expected = run(kernels, p[:, ::2].contiguous(), z[:, ::2].contiguous(), grad.contiguous())
    wide = torch.stack([p, z], dim=-1)
    for inputs in ((wide[:, ::2, 0], wide[:, ::2, 1]), (p.T.contiguous().T[:, ::2], z[:, ::2])):
        actual = run(kernels, *inputs, grad)
        for name in expected:  # other strides may be summed in another order
            torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-7)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_rows_have_zero_gradient(dtype):
    p, z = rows(30, 20, dtype)
    p[4], z[7], p[9], z[9] = 0, 0, 0, 0
    check(p, z)
    results = run(kernels, p, z)
    assert all((results[name][[4, 7, 9]] == 0).all() for name in results)


@runs
@pytest.mark.parametrize("size", [1e30, 2e38, 1e-10, 1e-20, 1e-37])
def test_huge_and_tiny_values(size):
    p, z = (x / x.abs().max() for x in rows(30, 16))
    p, z = p * size, z.roll(1, dims=0)
    actual, exact = run(kernels, p, z), run(reference, p.double(), z.double())
    for name in actual:
        wanted = exact[name].float()  # may be subnormal
        tolerance = 1e-6 * wanted.abs().max().item() + 1e-44
        torch.testing.assert_close(actual[name], wanted, rtol=1e-5, atol=tolerance)


@runs
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_in_nan_out(dtype, value):
    for which in (0, 1):
        inputs = rows(30, 20, dtype)
        inputs[which][3, 2] = value
        inputs[1 - which][3] *= which  # once beside a zero row
        for name, result in run(kernels, *inputs).items():
            broken = result.isnan().view(30, -1)
            assert broken[3].all(), name
            assert broken.any(dim=1).sum() == 1, name


@runs
def test_same_input_same_bits():
    p, z = rows(25, 300)
    first, second = run(kernels, p, z), run(kernels, p, z)
    assert all(torch.equal(first[name], second[name]) for name in first)


@compiles
def test_under_the_interpreter():
    """All that `runs` here, on CPU tensors: Triton decides at its import whether it interprets."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__).resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@compiles
@pytest.mark.parametrize("capability", [80, 90, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("d", [129, 2048, 8192])
def test_compiles_without_spills(d, dtype, capability, monkeypatch):
    p = torch.empty(64, d, dtype=dtype)
    grad = torch.empty(())
    forward, _ = recorded_launches(monkeypatch, kernels.forward, p, p)
    backward, _ = recorded_launches(monkeypatch, kernels.backward, grad.expand(64), p, p, True, True)
    for launch in forward + backward:
        assert_fits(launch, capability, shared=4096)
