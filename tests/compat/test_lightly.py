"""sslfast.compat.lightly against the installed lightly: value, gradient, and what is done differently."""

from __future__ import annotations

import inspect

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gloo import run_ranks
from lightly.loss import DCLLoss, DCLWLoss, NegativeCosineSimilarity, NTXentLoss
from lightly.models.modules.memory_bank import MemoryBankModule
from lightly.models.utils import get_at_index, random_token_mask, update_momentum
from torch import nn

from sslfast.compat import lightly as ours


def value_and_gradients(loss: nn.Module, x0: torch.Tensor, x1: torch.Tensor) -> list[torch.Tensor]:
    x0, x1 = (x.clone().requires_grad_() for x in (x0, x1))
    value = loss(x0, x1)
    value.backward()
    return [value.detach(), x0.grad, x1.grad]


def test_signatures():
    for mine, its in (
        (ours.NTXentLoss, NTXentLoss),
        (ours.NTXentLoss.forward, NTXentLoss.forward),
        (ours.DCLLoss, DCLLoss),
        (ours.DCLLoss.forward, DCLLoss.forward),
        (ours.DCLWLoss, DCLWLoss),
        (ours.NegativeCosineSimilarity, NegativeCosineSimilarity),
        (ours.NegativeCosineSimilarity.forward, NegativeCosineSimilarity.forward),
        (ours.MemoryBankModule, MemoryBankModule),
        (ours.MemoryBankModule.forward, MemoryBankModule.forward),
        (ours.update_momentum, update_momentum),
        (ours.get_at_index, get_at_index),
        (ours.random_token_mask, random_token_mask),
    ):
        mine, its = (inspect.signature(f).parameters.values() for f in (mine, its))
        assert [(p.name, p.default) for p in mine] == [(p.name, p.default) for p in its]


@pytest.mark.parametrize("first", [True, False])
def test_memory_bank(first, device):
    """Batches that end at the end of the bank, pass it, and are larger."""
    mine, its = (kind((7, 3), feature_dim_first=first).to(device) for kind in (ours.MemoryBankModule, MemoryBankModule))
    assert mine.bank.norm(dim=1).allclose(torch.ones(7, device=device))
    its.bank.copy_(mine.bank)
    for n, update in ((3, True), (4, True), (5, False), (5, True), (4, True), (2, True)):
        batch = torch.randn(n, 3, generator=torch.Generator().manual_seed(n)).to(device)
        (output, bank), (_, wanted) = mine(batch, update=update), its(batch, update=update)
        assert output is batch
        assert torch.equal(bank, wanted)
        assert torch.equal(mine.bank, its.bank)
        assert torch.equal(mine.bank_ptr, its.bank_ptr)
    assert ours.MemoryBankModule(0)(batch) == (batch, None)
    assert ours.MemoryBankModule(5, feature_dim_first=first)(batch)[1].shape == ((3, 5) if first else (5, 3))
    for size in (-1, (10, -1)):
        with pytest.raises(ValueError, match=r"Illegal memory bank size .*, all entries must be non-negative"):
            ours.MemoryBankModule(size)


@pytest.mark.parametrize(
    ("shapes", "dim"), [([(17, 33)] * 2, 1), ([(4, 6, 5)] * 2, 1), ([(4, 6, 5)] * 2, -1), ([(4, 1, 5), (6, 5)], 2)]
)
@pytest.mark.parametrize(
    "dtypes", [(torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)], ids=str
)
def test_negative_cosine_similarity(dtypes, shapes, dim, device):
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(shape, generator=generator).to(device, dtype) for shape, dtype in zip(shapes, dtypes)]
    actual = value_and_gradients(ours.NegativeCosineSimilarity(dim), *inputs)
    expected = value_and_gradients(NegativeCosineSimilarity(dim), *inputs)
    tolerance = 1e-2 if torch.bfloat16 in dtypes else 1e-6
    for mine, its in zip(actual, expected):
        torch.testing.assert_close(mine, its, rtol=tolerance, atol=tolerance)


def test_short_vectors_differ_as_documented(device):
    x0, x1 = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0)).to(device)
    short = value_and_gradients(ours.NegativeCosineSimilarity(eps=1.0), 1e-3 * x0, x1)
    torch.testing.assert_close(short[0], NegativeCosineSimilarity()(x0, x1), rtol=1e-6, atol=1e-6)
    assert (value_and_gradients(ours.NegativeCosineSimilarity(), 0 * x0, x1)[1] == 0).all()


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="eps must be positive, got 0"):
        ours.NegativeCosineSimilarity(eps=0)
    x = torch.ones(4, 3)
    with pytest.raises(ValueError, match=r"x1 must broadcast with x0, \(4, 3\), got \(3, 4\)"):
        ours.NegativeCosineSimilarity()(x, x.T)
    with pytest.raises(ValueError, match=r"x0 must have a dimension 1, got shape \(3,\)"):
        ours.NegativeCosineSimilarity()(x[0], x[0])


@pytest.mark.parametrize("m", [0.0, 0.3, 0.996, 1.0])
def test_update_momentum(m, device):
    def network(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 5)).to(device)

    model, averages = network(0), [network(1), network(1)]
    model[1].running_mean += 1
    ours.update_momentum(model, averages[0], m)
    update_momentum(model, averages[1], m)
    for (name, mine), its in zip(averages[0].state_dict().items(), averages[1].state_dict().values()):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-7, msg=lambda message, n=name: f"{n}: {message}")
    with pytest.raises(ValueError, match=r"equally many.*got 6 targets and 5 sources"):
        ours.update_momentum(nn.Sequential(*list(model)[:2], nn.Linear(6, 5, bias=False)), averages[0], m)


def test_update_momentum_of_bfloat16_moves_on_average(device):
    model, average = (nn.Linear(64, 64, bias=False).to(device, torch.bfloat16) for _ in range(2))
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(average.weight, 1.0)
    torch.manual_seed(0)
    for _ in range(100):
        ours.update_momentum(model, average, 0.999)
    # 13 of 100 steps move an element by 2^-7: 0.026 is its standard deviation.
    assert abs(average.weight.double().mean().item() - (2 - 0.999**100)) < 5 * 0.026 / 64


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent(temperature, device):
    views = torch.randn(2, 33, 20, generator=torch.Generator().manual_seed(0)).to(device)
    actual = value_and_gradients(ours.NTXentLoss(temperature), *views)
    for mine, its in zip(actual, value_and_gradients(NTXentLoss(temperature), *views)):
        torch.testing.assert_close(mine, its, rtol=1e-5, atol=1e-6)


def squared_distances(x0: torch.Tensor, x1: torch.Tensor) -> torch.Tensor:
    return (x0 - x1).square().sum(dim=1)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor")  # lightly's
def test_decoupled(device):
    x0, x1 = torch.randn(2, 12, 7, generator=torch.Generator().manual_seed(0)).to(device)
    for mine, its in (
        (ours.DCLLoss(), DCLLoss()),
        (ours.DCLLoss(0.5), DCLLoss(0.5)),
        (ours.DCLLoss(0.5, squared_distances), DCLLoss(0.5, squared_distances)),
        (ours.DCLWLoss(0.2, sigma=0.3), DCLWLoss(0.2, sigma=0.3)),
    ):
        for actual, expected in zip(value_and_gradients(mine, x0, x1), value_and_gradients(its, x0, x1)):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-6)
    assert ours.DCLLoss()(x0[:1], x1[:1]) == 0
    with pytest.raises(ValueError, match="DCLWLoss: temperature must be positive"):
        ours.DCLWLoss(-0.1)


def test_nt_xent_with_a_memory_bank(device):
    """Three batches go through banks that begin alike and wrap; without grad nothing is taken in."""
    mine, its = (loss(0.1, memory_bank_size=(24, 20)).to(device) for loss in (ours.NTXentLoss, NTXentLoss))
    mine.memory_bank.keys.copy_(its.memory_bank.bank)
    for number in range(4):
        views = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(number)).to(device)
        with torch.no_grad():
            torch.testing.assert_close(mine(*views), its(*views), rtol=1e-5, atol=1e-6)
        for a, b in zip(value_and_gradients(mine, *views), value_and_gradients(its, *views)):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(mine.memory_bank.keys, its.memory_bank.bank)


def test_a_batch_that_does_not_divide_the_bank_wraps_around():
    loss = ours.NTXentLoss(memory_bank_size=(6, 3))
    first, second = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    for keys in (first, second):
        loss(keys.clone().requires_grad_(), keys)
    expected = F.normalize(torch.cat([second[2:], first[2:], second[:2]]))
    torch.testing.assert_close(loss.memory_bank.keys, expected)


@pytest.mark.parametrize("size", [-1, (2, 3, 4), (-1, 4)])
def test_bad_memory_banks_are_refused_as_lightly_does(size):
    for loss in (ours.NTXentLoss, NTXentLoss):
        with pytest.raises(ValueError, match="size"):
            loss(memory_bank_size=size)


def test_a_memory_bank_of_a_size_alone_has_the_width_of_the_first_batch(device):
    losses = [ours.NTXentLoss(memory_bank_size=size).to(device) for size in (8, (8, 5))]
    views = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).to(device)
    losses[0](*views)
    for loss in losses:
        loss.memory_bank.keys.zero_()
        loss(views[0].clone().requires_grad_(), views[1])
    assert torch.equal(*(loss.memory_bank.keys for loss in losses))
    loaded = ours.NTXentLoss(memory_bank_size=8)
    loaded.load_state_dict(losses[0].state_dict())
    assert torch.equal(loaded.memory_bank.keys.to(device), losses[0].memory_bank.keys)


@pytest.mark.parametrize("bank", [0, (24, 20)])
def test_a_negative_temperature(bank, device):
    mine, its = (loss(-0.5, memory_bank_size=bank).to(device) for loss in (ours.NTXentLoss, NTXentLoss))
    if bank:
        mine.memory_bank.keys.copy_(its.memory_bank.bank)
    views = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0)).to(device)
    for a, b in zip(value_and_gradients(mine, *views), value_and_gradients(its, *views)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for loss in (ours.NTXentLoss, NTXentLoss):
        with pytest.raises(ValueError, match="temperature"):
            loss(0.0)


def test_gathering_needs_torch_distributed(monkeypatch):
    monkeypatch.setattr(dist, "is_available", lambda: False)
    for loss in (ours.NTXentLoss, NTXentLoss):
        with pytest.raises(ValueError, match="gather_distributed"):
            loss(gather_distributed=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("kept", [0, 1, 4])
def test_get_at_index(kept, dtype, device):
    tokens = torch.randint(0, 9, (3, 4, 5), generator=torch.Generator().manual_seed(0)).to(device, dtype)
    index = torch.rand(3, 4, generator=torch.Generator().manual_seed(1)).argsort(1)[:, :kept].to(device)
    assert torch.equal(ours.get_at_index(tokens, index), get_at_index(tokens, index))


@pytest.mark.parametrize("size", [(2, 1), (3, 10), (2, 50), (0, 4), (2, 0)])
@pytest.mark.parametrize("ratio", [0.0, 0.6, 0.95, 1.0])
@pytest.mark.parametrize("mask_class_token", [False, True])
def test_random_token_mask(size, ratio, mask_class_token, device):
    mine, its = (
        function(size, ratio, mask_class_token, device) for function in (ours.random_token_mask, random_token_mask)
    )
    for a, b in zip(mine, its):
        assert (a.shape, a.dtype, a.device) == (b.shape, b.dtype, b.device)
    if 0 not in size:
        assert torch.equal(torch.cat(mine, 1).sort(1).values, torch.arange(size[1], device=device).expand(size))
        assert mask_class_token or (mine[0][:, 0] == 0).all()


def both_gathering() -> list[list[torch.Tensor]]:
    """What this rank gets of ours and of lightly's, both without a bank."""
    views = torch.randn(2, 2, 6, 4, generator=torch.Generator().manual_seed(0))[:, dist.get_rank()]
    return [value_and_gradients(loss(0.2, gather_distributed=True), *views) for loss in (ours.NTXentLoss, NTXentLoss)]


def test_nt_xent_gathering_from_two_processes(tmp_path):
    for mine, its in run_ranks(both_gathering, 2, tmp_path):
        for a, b in zip(mine, its):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
