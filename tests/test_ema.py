"""sslfast.EMA: values against the formula in float64, schedule, buffers, dtypes, resume, and bad arguments."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from ema_networks import network, state, train
from torch import nn

from sslfast import EMA


def exact_average(start: dict, states: list[dict], momenta: list[float]) -> dict:
    """The formula in float64, over state dicts."""
    average = {name: x.double() for name, x in start.items()}
    for now, m in zip(states, momenta):
        average = {name: m * x + (1 - m) * now[name].double() for name, x in average.items()}
    return average


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("numbered", [True, False])
def test_follows_the_formula(numbered, dtype, device):
    model = network(device, dtype)
    start, states = state(model), []
    ema = EMA(model, 0.9, "cosine", total_steps=5, buffers="average")
    for step in range(5):
        train(model, step)
        states.append(state(model))
        ema.update(step) if numbered else ema.update()
    momenta = [1 - (1 - 0.9) * (math.cos(math.pi * k / 5) + 1) / 2 for k in range(5)]
    exact = exact_average(start, states, momenta)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-13
    for name, x in ema.module.state_dict().items():
        wanted = states[-1][name].double() if "num_batches" in name else exact[name]
        torch.testing.assert_close(
            x.double(), wanted, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_schedule_starts_at_momentum_and_ends_at_one():
    ema = EMA(network(), 0.99, "cosine", total_steps=100)
    assert ema.momentum_at(0) == pytest.approx(0.99, rel=1e-15)
    assert ema.momentum_at(50) == pytest.approx(0.995, rel=1e-15)
    assert ema.momentum_at(100) == ema.momentum_at(10**9) == 1.0
    for step in (0, 37, 100, 2000):
        assert ema.momentum_at(torch.tensor(step)).item() == pytest.approx(ema.momentum_at(step), rel=1e-15)
    assert EMA(network(), 0.99).momentum_at(7) == 0.99


def test_at_the_end_of_the_schedule_the_average_stays(device):
    model = network(device)
    ema = EMA(model, 0.9, "cosine", total_steps=3, buffers="ignore")
    before = state(ema.module)
    train(model, 0)
    ema.update(3)
    assert all(torch.equal(x, before[name]) for name, x in ema.module.state_dict().items())


@pytest.mark.parametrize("buffers", ["copy", "average", "ignore"])
def test_buffers(buffers, device):
    model = network(device)
    ema = EMA(model, 0.75, buffers=buffers)
    before = state(model)
    train(model, 0)
    ema.update(0)
    ours, theirs = ema.module.state_dict(), model.state_dict()
    for name in ("1.running_mean", "1.running_var"):
        wanted = {
            "copy": theirs[name], "ignore": before[name], "average": 0.75 * before[name] + 0.25 * theirs[name]
        }[buffers]  # fmt: skip
        torch.testing.assert_close(ours[name], wanted)
    count = before if buffers == "ignore" else theirs
    assert torch.equal(ours["1.num_batches_tracked"], count["1.num_batches_tracked"])
    torch.testing.assert_close(ours["0.weight"], 0.75 * before["0.weight"] + 0.25 * theirs["0.weight"])


@pytest.mark.parametrize("schedule", ["cosine", None])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_resumes_with_the_same_bits(dtype, schedule, device):
    """Also the noise of stochastic rounding goes on where it was."""

    def run(resumed):
        model = network(device)
        ema = EMA(model, 0.9, schedule, total_steps=6, dtype=dtype)
        for step in range(6):
            train(model, step)
            if resumed and step == 3:
                saved = copy.deepcopy(ema.state_dict())
                ema = EMA(model, 0.9, schedule, total_steps=6, dtype=dtype)
                ema.load_state_dict(saved)
                assert ema.step.item() == 3
            ema.update()
        return ema.state_dict()

    straight, resumed = run(False), run(True)
    assert straight["step"].item() == 6
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_numbered_updates_move_the_count(device):
    model = network(device)
    ema = EMA(model)
    ema.update(41)
    assert ema.step.item() == 42
    ema.update()
    assert ema.step.item() == 43
    ema.update(torch.tensor(7, device=device))
    assert ema.step.item() == 8


def test_a_float32_average_of_a_bfloat16_model(device):
    model = network(device, torch.bfloat16)
    start, states = state(model), []
    ema = EMA(model, 0.999, dtype=torch.float32, buffers="average")
    for step in range(3):
        train(model, step)
        states.append(state(model))
        ema.update()
    exact = exact_average(start, states, [0.999] * 3)
    for name, x in ema.module.state_dict().items():
        if "num_batches" not in name:
            assert x.dtype == torch.float32
            torch.testing.assert_close(x.double(), exact[name], rtol=1e-6, atol=1e-7)


def test_the_average_is_a_module_of_its_own():
    model = network().eval()
    x = torch.randn(2, 3, 6, 6)
    model(x).sum().backward()
    ema = EMA(model)
    assert all(p.grad is None for p in ema.parameters())
    assert torch.equal(ema(x), model(x))
    assert not ema.module.training
    assert ema.train().module.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in ema.parameters())
    ours, theirs = ({p.data_ptr() for p in m.parameters()} for m in (ema, model))
    assert not ours & theirs
    assert {name.partition(".")[0] for name in ema.state_dict()} == {"module", "step"}
    assert len(list(ema.parameters())) == len(list(model.parameters()))  # the model is no part of it
    assert "momentum=0.996" in repr(ema)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("given", [True, False])
def test_captured_in_a_cuda_graph(given, dtype):
    """The replays follow the schedule and the noise: the step lies on the device."""

    def make():
        model = network("cuda")
        return model, EMA(model, 0.9, "cosine", total_steps=5, dtype=dtype)

    (model, ema), (same, eager) = make(), make()
    step = torch.tensor(0, device="cuda") if given else None
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ema.update(step)
    torch.cuda.current_stream().wait_stream(stream)
    eager.update(0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ema.update(step)
    for number in range(1, 5):
        train(model, number)
        train(same, number)
        if given:
            step.fill_(number)
        graph.replay()
        eager.update(torch.tensor(number, device="cuda"))
    assert ema.step.item() == 5
    for a, b in zip(ema.module.state_dict().values(), eager.module.state_dict().values()):
        assert torch.equal(a, b)


MODEL = nn.Linear(3, 2)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": [MODEL]}, TypeError, "model must be a module, got list"),
        ({"momentum": "slow"}, TypeError, "momentum must be a number, got str"),
        ({"momentum": 1.5}, ValueError, r"momentum must be in \[0, 1\], got 1.5"),
        ({"momentum": float("nan")}, ValueError, "momentum must be in.*nan"),
        ({"schedule": "linear"}, ValueError, "schedule must be \"cosine\" or None, got 'linear'"),
        ({"schedule": "cosine"}, ValueError, "total_steps must be given for the cosine schedule.*None"),
        ({"schedule": "cosine", "total_steps": 0}, ValueError, "total_steps must be given.*at least 1, got 0"),
        ({"buffers": "keep"}, ValueError, "buffers must be one of copy, average, ignore, got 'keep'"),
        ({"dtype": torch.int32}, TypeError, "dtype must be float32.*torch.int32"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=f"EMA: {message}"):
        EMA(**{"model": MODEL, **arguments})


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (-1, ValueError, "step must be at least 0, got -1"),
        (torch.tensor(-2), ValueError, "step must be at least 0, got -2"),
        (1.0, TypeError, "step must be an int or a 0-dim int64 tensor, got float"),
        (torch.ones(2), ValueError, r"step must be an int or a 0-dim int64 tensor, got shape \(2,\) of torch.float32"),
    ],
)
def test_bad_steps_are_named(step, error, message):
    with pytest.raises(error, match=f"EMA: {message}"):
        EMA(MODEL).update(step)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_parameters_are_averaged(dtype):
    model = nn.ParameterDict({"filter": nn.Parameter(torch.full((3,), 1 + 2j, dtype=dtype))})
    ema = EMA(model, 0.75)
    with torch.no_grad():
        model["filter"].fill_(5 - 2j)
    ema.update()
    torch.testing.assert_close(ema.module["filter"].detach(), torch.full((3,), 2 + 1j, dtype=dtype))


def test_a_float16_average_moves():
    model = nn.Linear(64, 64).half()
    ema = EMA(model, 0.999)
    with torch.no_grad():
        ema.module.weight.fill_(1)
        model.weight.fill_(2)
    for _ in range(1000):
        ema.update()
    assert abs(ema.module.weight.double().mean() - (2 - 0.999**1000)) < 0.002
