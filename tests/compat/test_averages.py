"""The faces of moving averages against the libraries they are of: every tensor after every update."""

from __future__ import annotations

import copy
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import ema_pytorch
import pytest
import timm.utils
import torch
from torch import nn
from torch.optim import swa_utils

from sslfast.compat import ema_pytorch as our_ema_pytorch
from sslfast.compat import timm as our_timm
from sslfast.compat import torch as our_torch


def network(device: str = "cpu", dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))
    model.register_buffer("phase", torch.randn(4, dtype=torch.complex64))
    return model.to(device, dtype) if dtype != torch.float32 else model.to(device)


@torch.no_grad()
def train(model: nn.Module, step: int) -> None:
    """Something that changes every tensor."""
    generator = torch.Generator().manual_seed(step)
    for x in model.state_dict().values():
        noise = torch.rand(x.shape, generator=generator).to(x.device)
        x.add_(1 if x.dtype == torch.int64 else noise)


def assert_same(mine: nn.Module, its: nn.Module, **tolerance: float) -> None:
    mine, its = mine.state_dict(), its.state_dict()
    assert mine.keys() == its.keys()
    for name, x in its.items():
        torch.testing.assert_close(mine[name], x, **{"rtol": 1e-5, "atol": 1e-6} | tolerance, msg=f"{name}: {x}")


def signature(function: Callable) -> list[tuple[str, Any]]:
    return [(p.name, p.default) for p in inspect.signature(function).parameters.values()]


def test_signatures() -> None:
    assert signature(our_torch.get_ema_multi_avg_fn) == signature(swa_utils.get_ema_multi_avg_fn)
    theirs = [name for name, _ in signature(timm.utils.ModelEmaV3)]
    assert [name for name, _ in signature(our_timm.ModelEmaV3)][: len(theirs)] == theirs
    mine, its = signature(our_ema_pytorch.EMA.__init__), signature(ema_pytorch.EMA.__init__)
    assert [(name, value or None) for name, value in mine] == [(name, value or None) for name, value in its]


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_model(use_buffers: bool, device: str) -> None:
    model = network(device)
    del model.phase  # torch groups tensors by dtype, and lerps complex ones only with a complex weight
    mine, its = (
        swa_utils.AveragedModel(model, multi_avg_fn=function(0.9), use_buffers=use_buffers)
        for function in (our_torch.get_ema_multi_avg_fn, swa_utils.get_ema_multi_avg_fn)
    )
    for step in range(4):
        train(model, step)
        mine.update_parameters(model)
        its.update_parameters(model)
        assert_same(mine, its)


def test_averaged_model_in_bfloat16_moves_on_average(device: str) -> None:
    model = nn.Linear(64, 64, bias=False).to(device, torch.bfloat16)
    nn.init.constant_(model.weight, 1.0)
    mine = swa_utils.AveragedModel(model, multi_avg_fn=our_torch.get_ema_multi_avg_fn(0.999))
    mine.update_parameters(model)
    nn.init.constant_(model.weight, 2.0)
    for _ in range(100):
        mine.update_parameters(model)
    # 13 of 100 steps move an element by 2^-7: 0.026 is its standard deviation.
    assert abs(mine.module.weight.double().mean().item() - (2 - 0.999**100)) < 5 * 0.026 / 64


@pytest.mark.parametrize(
    "options",
    [{}, {"decay": 0.9, "exclude_buffers": True}, {"use_warmup": True, "min_decay": 0.3, "update_after_step": 2}],
    ids=str,
)
def test_timm(options: dict[str, Any], device: str) -> None:
    model = network(device)
    mine, its = our_timm.ModelEmaV3(model, **options), timm.utils.ModelEmaV3(model, **options)
    assert not mine.module.training
    for step in [None, 0, 1, 2, 3, 4, 5, 20]:
        train(model, step or 50)
        mine.update(model, step)
        its.update(model, step)
        assert_same(mine, its)
        assert mine.get_decay(step) == its.get_decay(step)
    mine.set(model)
    assert_same(mine.module, model)
    x = torch.randn(2, 5, device=device)
    assert torch.equal(mine(x), mine.module(x))


def test_timm_keeps_the_average_of_a_bfloat16_model_in_float32(device: str) -> None:
    model = network(device).bfloat16()
    del model.phase
    mine, its = (make(model, decay=0.99, dtype=torch.float32) for make in (our_timm.ModelEmaV3, timm.utils.ModelEmaV3))
    for step in range(3):
        train(model, step)
        mine.update(model)
        its.update(model)
        assert_same(mine, its)


def test_timm_refuses_what_could_not_move() -> None:
    with pytest.raises(ValueError, match="stochastic_rounding must be True for bfloat16"):
        our_timm.ModelEmaV3(nn.Linear(2, 2).bfloat16(), stochastic_rounding=False)
    with pytest.raises(ValueError, match=r"stochastic_rounding_seed must be from 0 on.*got -1"):
        our_timm.ModelEmaV3(nn.Linear(2, 2), stochastic_rounding_seed=-1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"beta": 0.9, "inv_gamma": 2.0, "power": 1.0, "min_value": 0.2},
        {"include_online_model": False, "forward_method_names": ("extra_repr",), "allow_different_devices": True},
        {"ignore_names": {"0.weight"}, "ignore_startswith_names": {"2."}, "param_or_buffer_names_no_ema": {"0.bias"}},
        {"beta": 1.0},
    ],
    ids=str,
)
def test_ema_pytorch(options: dict[str, Any], device: str) -> None:
    model = network(device)
    mine, its = (
        make(model, update_after_step=3, update_every=2, **options).to(device)
        for make in (our_ema_pytorch.EMA, ema_pytorch.EMA)
    )
    for step in range(12):
        train(model, step)
        mine.update()
        its.update()
        assert mine.get_current_decay() == pytest.approx(its.get_current_decay(), rel=1e-6)
        assert_same(mine, its, rtol=1e-4)
    model.eval(), mine.eval(), its.eval()
    x = torch.randn(2, 5, device=device)
    torch.testing.assert_close(mine(x), its(x))
    mine.copy_params_from_ema_to_model()
    assert torch.equal(model[0].weight, mine.ema_model[0].weight)


def test_ema_pytorch_goes_on_after_a_load_and_a_copy() -> None:
    options = {"update_after_step": 2, "update_every": 3, "beta": 0.9}
    model = network()
    whole = our_ema_pytorch.EMA(model, **options)
    for step in range(9):
        if step == 4:
            loaded = our_ema_pytorch.EMA(network(), **options)
            loaded.load_state_dict(whole.state_dict())
            others = [loaded, pickle.loads(pickle.dumps(whole)), copy.deepcopy(whole)]
        for ema in [whole, *(others if step >= 4 else [])]:
            train(ema.model, step)
            ema.update()
    for ema in others:
        assert_same(ema, whole, rtol=0, atol=0)


def test_ema_pytorch_refuses_what_it_cannot_serve() -> None:
    for name in ("update_model_with_ema_every", "move_ema_to_online_device", "lazy_init_ema"):
        with pytest.raises(ValueError, match=rf"{name} is not served; use ema_pytorch\.EMA"):
            our_ema_pytorch.EMA(nn.Linear(2, 2), **{name: 1})
