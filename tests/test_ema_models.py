"""sslfast.EMA and the ways a model can change: tied, replaced, parametrized, compiled, copied, and another one."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from ema_networks import network, state, train
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.utils import parametrizations

from sslfast import EMA


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


@pytest.mark.parametrize("numbered", [True, False])
def test_updates_in_a_compiled_step(numbered):
    """In one graph, which holds for all steps of the schedule."""
    model = nn.Linear(3, 2)
    emas = [EMA(model, 0.5, "cosine", total_steps=6) for _ in range(2)]
    counter = CompileCounterWithBackend("eager")

    @torch.compile(fullgraph=True, backend=counter)
    def update(step: int) -> None:
        emas[1].update(step if numbered else None)

    for step in range(2, 8):
        for ema in emas:
            ema.step.fill_(step)
        train(model, step)
        emas[0].update()
        update(step)
        torch.testing.assert_close(state(emas[0]), state(emas[1]))
    assert counter.frame_count <= 2


def test_copies_of_both_belong_together():
    """As a deep copy of a method that holds a model and its EMA."""
    pair = nn.ModuleDict({"student": network()})
    pair["teacher"] = EMA(pair["student"], 0.0)
    twin = copy.deepcopy(pair)
    train(twin["student"], 0)
    twin["teacher"].update()
    assert torch.equal(twin["teacher"].module[3].bias, twin["student"][3].bias)
    assert not torch.equal(twin["teacher"].module[3].bias, pair["teacher"].module[3].bias)


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
