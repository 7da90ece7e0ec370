"""sslfast.EMA: values against the formula in float64, schedule, buffers, resume, and the ways a model can change."""

from __future__ import annotations

import copy
import io
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from sslfast import EMA

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


def network(device="cpu", dtype=torch.float32, seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 5)).to(device, dtype)


@torch.no_grad()
def train(model: nn.Module, seed: int) -> None:
    """Stands for a step of an optimizer: every tensor of the model changes."""
    generator = torch.Generator().manual_seed(seed)
    for x in {**dict(model.named_parameters()), **dict(model.named_buffers())}.values():
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        x.add_(1 if not x.is_floating_point() else noise.to(x.dtype))


def exact_average(start: dict, states: list[dict], momenta: list[float]) -> dict:
    """The formula in float64, over state dicts."""
    average = {name: x.double() for name, x in start.items()}
    for state, m in zip(states, momenta):
        average = {name: m * x + (1 - m) * state[name].double() for name, x in average.items()}
    return average


def state(module: nn.Module) -> dict:
    return {name: x.detach().clone() for name, x in module.state_dict().items()}


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


def test_tied_parameters_are_updated_once(device):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
            self.head.weight = self.embedding.weight
            self.first = self.second = nn.BatchNorm1d(4)

    model = Tied().to(device)
    ema = EMA(model, 0.5)
    assert ema.module.head.weight is ema.module.embedding.weight
    before = model.head.weight.detach().clone()
    train(model, 0)
    ema.update(0)
    torch.testing.assert_close(ema.module.head.weight, (before + model.head.weight.detach()) / 2)
    assert ema.module.head.weight is ema.module.embedding.weight


def test_follows_a_model_whose_tensors_were_replaced():
    model = network()
    ema = EMA(model, 0.0)
    other = network(seed=1)
    model.load_state_dict(other.state_dict(), assign=True)
    ema.update()
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in ema.module.state_dict().items())
    model.double()
    ema.double()
    train(model, 3)
    ema.update()
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in ema.module.state_dict().items())
    ema.load_state_dict(copy.deepcopy(ema.state_dict()), assign=True)
    train(model, 4)
    ema.update()
    assert all(torch.equal(x, model.state_dict()[name]) for name, x in ema.module.state_dict().items())


def test_parametrized_modules(device):
    model = parametrizations.weight_norm(nn.Linear(4, 3)).to(device)
    ema = EMA(model, 0.5)
    before = state(model)
    train(model, 0)
    ema.update()
    for name, x in ema.module.state_dict().items():
        torch.testing.assert_close(x, (before[name] + model.state_dict()[name]) / 2)


def test_a_compiled_model():
    model = network()
    compiled = torch.compile(model, backend="eager")
    ema = EMA(compiled, 0.5)
    before = model[3].bias.detach().clone()
    train(model, 0)
    ema.update()
    torch.testing.assert_close(ema.module[3].bias, (before + model[3].bias.detach()) / 2)


def test_copies_of_both_belong_together():
    """As a deep copy of a method that holds a model and its EMA."""
    pair = nn.ModuleDict({"student": network()})
    pair["teacher"] = EMA(pair["student"], 0.0)
    twin = copy.deepcopy(pair)
    train(twin["student"], 0)
    twin["teacher"].update()
    assert torch.equal(twin["teacher"].module[3].bias, twin["student"][3].bias)
    assert not torch.equal(twin["teacher"].module[3].bias, pair["teacher"].module[3].bias)


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


def test_a_model_that_is_another_one_now_is_refused_by_name():
    def refused(change, message):
        model = network()
        ema = EMA(model)
        change(model)
        for follow in (ema.update, lambda: ema.attach(model)):
            with pytest.raises(RuntimeError, match=f"EMA: the model must have the tensors of the average: {message}"):
                follow()

    refused(lambda model: model.append(nn.Linear(5, 5)), "4 is not in both")
    refused(lambda model: model.pop(3), "3 is not in both")
    refused(lambda model: setattr(model[3], "scale", nn.Parameter(torch.ones(()))), r"3\.scale is not in both")
    refused(lambda model: model[3].register_parameter("bias", None), r"3\.bias is None in one of them")
    refused(lambda model: model.__setitem__(3, nn.Linear(96, 6)), r"3\.weight is \(5, 96\) here, \(6, 96\) there")
    refused(lambda model: model[3].to("meta"), r"3\.weight is on cpu here, on meta there")
    refused(lambda model: model[3].double(), r"3\.weight is torch\.float32 here, torch\.float64 there")
    weight = nn.Parameter(torch.ones(5, 96, dtype=torch.complex64))
    refused(
        lambda model: setattr(model[3], "weight", weight), r"3\.weight is torch\.float32 here, torch\.complex64 there"
    )


def test_modules_are_matched_by_name():
    """One that is taken out and put back comes last in the order of modules."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    ema = EMA(model, 0.0)
    model._modules["0"] = model._modules.pop("0")
    train(model, 0)
    ema.update()
    for name, x in model.state_dict().items():
        assert torch.equal(ema.module.state_dict()[name], x), name


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


def unpickled(x: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, unpickled])
def test_a_copy_alone_follows_nobody_until_it_is_told(copied):
    model = network()
    ema = EMA(model, 0.0)
    alone = copied(ema)
    with pytest.raises(RuntimeError, match=r"EMA: there is no model to follow.*attach\(model\)"):
        alone.update()
    again = copied(alone)
    train(model, 0)
    for twin in (alone, again, ema):
        if twin is not ema:
            twin.attach(torch.compile(model, backend="eager"))
        twin.update()
        assert torch.equal(twin.module[3].bias, model[3].bias)
    with pytest.raises(TypeError, match="EMA: model must be a module, got int"):
        ema.attach(3)


def test_a_teacher_for_a_model_that_cannot_be_copied():
    def make():
        return nn.utils.weight_norm(nn.Linear(4, 3))

    model = make()
    model(torch.ones(1, 4))
    with pytest.raises(ValueError, match="EMA: model cannot be copied, pass a teacher"):
        EMA(model)
    ema = EMA(model, 0.5, teacher=make())
    x = torch.randn(2, 4)
    assert torch.equal(ema(x), model(x))
    before = state(model)
    train(model, 0)
    ema.update()
    for name, value in ema.module.state_dict().items():
        torch.testing.assert_close(value, (before[name] + model.state_dict()[name]) / 2)
    with pytest.raises(RuntimeError, match="weight_g, weight_v is not in both"):
        EMA(model, teacher=nn.Linear(4, 3))
    for teacher in (model, "model"):
        with pytest.raises(TypeError, match="EMA: teacher must be another module"):
            EMA(model, teacher=teacher)
