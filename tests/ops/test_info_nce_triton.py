"""The Triton kernels of info_nce, called directly: on a GPU, and on the CPU under Triton's interpreter
in a process of its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslfast.kernels import reference

pytest.importorskip("triton")

from triton_compile import recorded_launches
from triton_kernels import (
    DEVICE,
    DTYPES,
    VARIANTS,
    WIDTHS_ON_CHIPS,
    assert_all_as_accurate,
    assert_fit,
    assert_rounded_once_to_float16,
    compiles,
    gradient,
    number_and_tensor,
    planned_for,
    run_interpreted,
    runs,
    shrink_tiles,
    unit_rows,
    views,
)

from sslfast.kernels.triton import info_nce


@pytest.fixture
def small_tiles(monkeypatch):
    shrink_tiles(monkeypatch, multiprocessors=20)


def embeddings(n, k, d, dtype=torch.float32, noise=1.0, seed=0):
    """Queries and keys of n images, and a queue of k unit rows, None if zero."""
    return *views(n, d, dtype, noise, seed), unit_rows(k, d, dtype, seed + 1) if k else None


def summary(outputs, gradients, tau):
    """Everything by name; the logarithm of the sum of exponentials is what shift and inverse_sum stand for."""
    losses, shift, inverse_sum, mean, u, *_ = outputs
    lse = shift.double() / tau - inverse_sum.double().log()
    return {"loss": losses, "lse": lse, "mean": mean, "u": u} | dict(zip(("dq", "dk", "dtau"), gradients))


def run(query, key, queue, temperature, grad=None, with_key=True):
    number, tau = number_and_tensor(temperature)
    outputs = info_nce.forward(query, key, queue, number, tau, True)
    losses, shift, inverse_sum, mean, u, scale, _ = outputs
    grad = torch.full_like(losses, 1 / len(losses)) if grad is None else grad
    saved = (grad, u, scale, losses, shift, inverse_sum, mean)
    outputs = summary(outputs, info_nce.backward(*saved, number, tau, queue is None, with_key), float(temperature))
    if tau is None:
        del outputs["dtau"]  # undefined
    return outputs


def run_reference(query, key, queue, temperature, grad, dtype):
    query, key, queue = (None if x is None else x.to(dtype) for x in (query, key, queue))
    outputs = reference.info_nce_forward(query, key, queue, temperature, True)
    losses, shift, inverse_sum, mean, u, scale, _ = outputs
    saved = (grad.to(dtype), u, scale, losses, shift, inverse_sum, mean)
    return summary(outputs, reference.info_nce_backward(*saved, temperature, queue is None, True), temperature)


def check(query, key, queue, temperature):
    grad = gradient(len(query), 1 / len(query))
    actual = run(query, key, queue, torch.tensor(temperature, device=DEVICE, dtype=torch.float32), grad)
    assert_all_as_accurate(
        actual,
        lambda dtype, tau: run_reference(query, key, queue, tau, grad, dtype),
        query.dtype,
        temperature,
    )


SHAPES = [(1, 0, 1), (1, 1, 1), (2, 1, 60), (3, 40, 128), (20, 0, 129), (40, 70, 60), (9, 7, 257)]


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "k", "d"), SHAPES)
def test_ragged_shapes(n, k, d, dtype, small_tiles):
    check(*embeddings(n, k, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("n", "k", "d"), [(30, 20, 60), (33, 300, 128), (130, 0, 40), (10, 140, 300)])
def test_default_tiles(n, k, d, dtype):
    """The first is smaller than a tile in both ways, the second in one."""
    check(*embeddings(n, k, d, dtype), temperature=0.2)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [0, 90])
@pytest.mark.parametrize("temperature", [0.01, 1 / 64, 0.07, 100.0])
def test_temperatures(temperature, k, dtype, small_tiles):
    check(*embeddings(37, k, 24, dtype, noise=2.0), temperature)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_tensor_and_number_give_the_same_bits(temperature, dtype, small_tiles):
    for k in (0, 40):
        inputs = embeddings(10, k, 24, dtype)
        expected = run(*inputs, temperature)
        actual = run(*inputs, torch.tensor(temperature, device=DEVICE))
        assert set(actual) - set(expected) == {"dtau"}
        for name in expected.keys() - {"lse"}:
            assert torch.equal(actual[name], expected[name]), name


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_wanted_is_not_made(dtype, small_tiles):
    """Without mean and without a gradient to the keys the rest is the same."""
    query, key, queue = embeddings(20, 50, 24, dtype)
    full, bare = (info_nce.forward(query, key, queue, 0.2, None, with_mean) for with_mean in (True, False))
    assert bare[3].shape == (0, 24)
    torch.testing.assert_close(bare[0], full[0], rtol=1e-5, atol=1e-6)
    got, expected = (shift / 0.2 - inverse_sum.log() for _, shift, inverse_sum, *_ in (bare, full))
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    tau = torch.tensor(0.2, device=DEVICE)
    for k in (0, 50):
        queue = queue if k else None
        expected, got = (run(query, key, queue, tau, with_key=with_key) for with_key in (True, False))
        assert got["dk"].shape == (0, 24)
        assert torch.equal(got["dq"], expected["dq"])
        assert torch.equal(got["dtau"], expected["dtau"])


@runs
def test_strided_inputs_and_an_expanded_gradient(small_tiles):
    query, key, queue = embeddings(40, 60, 24)
    expected = run(query, key, queue, 0.2)
    wide = torch.stack([query, key], dim=-1)
    actual = run(wide[..., 0], key.T.contiguous().T, queue, 0.2, torch.tensor(1 / 40, device=DEVICE).expand(40))
    for name in expected:  # other strides may be summed in another order
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-7)


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_same_input_same_bits(dtype, small_tiles):
    for k in (0, 60):
        inputs = embeddings(10, k, 70, dtype)
        first, second = run(*inputs, 0.2), run(*inputs, 0.2)
        for name in first:
            assert torch.equal(first[name], second[name]), name


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("k", [0, 60])
def test_zero_and_short_rows(k, dtype, small_tiles):
    """Zero rows have gradient zero; those shorter than 1e-12 are divided by that, a constant, as F.normalize does."""
    query, key, queue = embeddings(30, k, 20, dtype)
    query[4], key[7] = 0, 0
    if dtype != torch.float16:
        query[5] *= 1e-14
    check(query, key, queue, 0.2)
    outputs = run(query, key, queue, 0.2)
    assert (outputs["dq"][4] == 0).all()
    assert (outputs["dk"][7] == 0).all()


@runs
@pytest.mark.parametrize("k", [0, 40])
@pytest.mark.parametrize("temperature", [0.01, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_in_nan_out(dtype, temperature, k, small_tiles):
    """A NaN reaches every loss through a negative, and its own through the query."""
    query, key, queue = embeddings(10, k, 24, dtype)
    query[3, 2] = float("nan")
    temperature = torch.tensor(temperature, device=DEVICE)
    outputs = run(query, key, queue, temperature)
    for name in ("loss", "dq"):
        assert outputs[name][3].isnan().all(), name
        assert outputs[name][:3].isfinite().all(), name
    assert outputs["dk"][3].isnan().all()
    assert outputs["dtau"].isnan()
    query, key, queue = embeddings(10, k, 24, dtype)
    (key if queue is None else queue)[3, 2] = float("nan")
    outputs = run(query, key, queue, temperature)
    for name in ("loss", "dq", "dk", "dtau"):
        assert outputs[name].isnan().all(), name


@runs
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
@pytest.mark.parametrize("length", [1e-3, 8.0, 1e4])
def test_queue_rows_of_any_length_are_the_formula_or_nan(length, temperature, dtype, small_tiles):
    """NaN only where a plain sum of exponentials overflows; float16 has none. Halves round what is compared."""
    query, key, queue = embeddings(40, 90, 24, dtype, noise=3.0)
    queue[20:50] *= length
    grad = torch.ones(40, device=DEVICE)
    actual = run(query, key, queue, temperature, grad)
    exact = run_reference(query, key, queue, temperature, grad, torch.float64)
    highest = (F.normalize(query.double()) @ queue.double().T).amax(dim=1) / temperature
    overflows = (highest > 88.7) & (temperature > 1 / 64) & (dtype != torch.float16)
    for name in ("loss", "dq"):
        assert torch.equal(actual[name].reshape(40, -1).isnan().any(dim=1), overflows), name
        if dtype == torch.float32:
            torch.testing.assert_close(
                actual[name][~overflows].double(), exact[name][~overflows], rtol=1e-3, atol=1e-4 * max(1, length)
            )


@runs
@pytest.mark.parametrize("value", [0.0, -0.1, float("nan")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_senseless_temperature_in_a_tensor_gives_nan(value, dtype, small_tiles):
    for k in (0, 60):
        outputs = run(*embeddings(10, k, 24, dtype), torch.tensor(value, device=DEVICE))
        for name in ("loss", "dq", "dk", "dtau"):
            assert outputs[name].isnan().all(), name


@runs
@pytest.mark.parametrize("k", [0, 300])
@pytest.mark.parametrize("size", [0.0, 1e-6, 1.0, 6e4])
def test_float16_weights_neither_overflow_nor_vanish(size, k, small_tiles):
    query, key, queue = embeddings(50, k, 32, torch.float16)
    query, key = query * 8, key * 8
    grad = gradient(50, size)
    actual = run(query, key, queue, 0.2, grad)
    exact = run_reference(query, key, queue, 0.2, grad, torch.float64)
    for name in ("dq", "dk"):
        assert_rounded_once_to_float16(actual[name], exact[name])


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)


def launches(monkeypatch, capability, n, k, d, dtype, temperature=0.2, with_key=False):
    """Of a forward with mean and a backward."""
    number, tau = number_and_tensor(temperature)
    z, queue = torch.empty(n, d, dtype=dtype), torch.empty(k, d, dtype=dtype) if k else None
    with planned_for(monkeypatch, capability):
        forward, outputs = recorded_launches(monkeypatch, info_nce.forward, z, z, queue, number, tau, True)
        losses, shift, inverse_sum, mean, u, scale, _ = outputs
        saved = (losses, u, scale, losses, shift, inverse_sum, mean, number, tau)
        backward, _ = recorded_launches(monkeypatch, info_nce.backward, *saved, not k, with_key)
    assert len(forward) == (3 if tau is None or dtype == torch.float16 else 4)
    assert len(backward) == (1 if tau is None else 2) or (with_key and not k)
    return forward + backward


@compiles
@pytest.mark.parametrize(("d", "dtype", "capability"), WIDTHS_ON_CHIPS)
def test_default_configurations_compile_without_spills(d, dtype, capability, monkeypatch):
    """What is not NT-Xent's code as well."""
    temperature = torch.tensor(0.2) if dtype == torch.bfloat16 else 0.2  # a tensor launches both variants
    assert_fit(launches(monkeypatch, capability, 4096, 0, d, dtype, temperature), capability)


@compiles
@pytest.mark.parametrize(("d", "dtype", "capability"), VARIANTS)
@pytest.mark.parametrize(("n", "k"), [(4096, 0), (256, 65536)])
def test_every_variant_compiles_without_spills(n, k, d, dtype, capability, monkeypatch):
    temperature = 0.01 if dtype == torch.float32 else torch.tensor(0.2)
    assert_fit(launches(monkeypatch, capability, n, k, d, dtype, temperature, with_key=True), capability)


@compiles
@pytest.mark.parametrize(("n", "k"), [(1, 0), (1, 1), (1, 4096)])
def test_the_smallest_and_an_unaligned_shape_compile(n, k, monkeypatch):
    assert_fit(launches(monkeypatch, 90, n, k, 129, torch.bfloat16), 90, spills=True)
