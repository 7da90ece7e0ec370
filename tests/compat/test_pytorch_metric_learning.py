"""sslfast.compat.pytorch_metric_learning against the installed library: value, gradient, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers
from torch import Tensor, nn

from sslfast.compat import pytorch_metric_learning as ours


def randn(*shape: int, device: str = "cpu", seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def assert_same(mine: Callable, its: Callable, *inputs: Tensor) -> None:
    found = []
    for loss in (mine, its):
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = loss(*leaves)
        found.append([value.detach(), *torch.autograd.grad(value, leaves, materialize_grads=True)])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("labels", [[5, 2, 9, 2, 7, 5, 7, 9], [4, 1, 4, 1, 1, 4, 1, 4], [3] * 8], ids=str)
def test_nt_xent_of_labels_in_any_order(labels: list[int], temperature: float, device: str) -> None:
    labels = torch.tensor(labels, device=device)
    mine, its = (library.NTXentLoss(temperature=temperature) for library in (ours, losses))
    assert_same(lambda x: mine(x, labels), lambda x: its(x, labels), randn(8, 6, device=device))


def test_nt_xent_against_another_side(device: str) -> None:
    labels, there = torch.tensor([3, 1, 2, 0], device=device), torch.tensor([0, 1, 2, 3], device=device)
    x, y = randn(4, 6, device=device), randn(4, 6, device=device, seed=1)
    mine, its = ours.NTXentLoss(), losses.NTXentLoss()
    assert_same(
        lambda x, y: mine(x, labels, ref_emb=y, ref_labels=there),
        lambda x, y: its(x, labels, ref_emb=y, ref_labels=there),
        x,
        y,
    )


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("rows", [1, 2, 17])
def test_self_supervised(rows: int, symmetric: bool, device: str) -> None:
    mine, its = (
        library.SelfSupervisedLoss(library.NTXentLoss(temperature=0.2), symmetric=symmetric)
        for library in (ours, losses)
    )
    assert_same(mine, its, randn(rows, 6, device=device), randn(rows, 6, device=device, seed=1))


LABELS = [[5, 2, 9, 2, 2, 5, 7, 9], [3] * 8, list(range(8)), [1, 1, 2, 3, 4, 5, 6, 7]]


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("labels", LABELS, ids=str)
def test_sup_con(labels: list[int], temperature: float, device: str) -> None:
    labels = torch.tensor(labels, device=device)
    mine, its = (library.SupConLoss(temperature=temperature) for library in (ours, losses))
    assert_same(lambda x: mine(x, labels), lambda x: its(x, labels), randn(8, 6, device=device))


def test_sup_con_of_two_views(device: str) -> None:
    mine, its = (library.SelfSupervisedLoss(library.SupConLoss()) for library in (ours, losses))
    assert_same(mine, its, randn(5, 6, device=device), randn(5, 6, device=device, seed=1))


def test_what_is_not_served_says_what_to_use() -> None:
    x, pairs = randn(4, 6), (torch.tensor([0]),) * 4
    loss = ours.NTXentLoss()
    for wrong, match in (
        (lambda: ours.NTXentLoss(distance=distances.LpDistance()), "distance is not served; use pytorch-metric"),
        (lambda: ours.NTXentLoss(reducer=reducers.MeanReducer()), "reducer is not served"),
        (lambda: loss(x), "labels must be given"),
        (lambda: ours.SupConLoss()(x), "labels must be given"),
        (lambda: ours.SupConLoss()(x, torch.arange(4), ref_emb=x), "ref_emb is not served"),
        (lambda: ours.SelfSupervisedLoss(ours.SupConLoss(), symmetric=False)(x, x), "symmetric must be True"),
        (lambda: loss(x, torch.tensor([0, 0, 1, 1]), pairs), "indices_tuple is not served"),
        (lambda: loss(x, torch.tensor([0, 0, 0, 1])), "labels must come equally often.*use SupConLoss"),
        (lambda: ours.SupConLoss()(x, torch.arange(3)), r"SupConLoss: labels must be \(N,\) for embeddings"),
        (lambda: loss(x, torch.tensor([0, 0, 1, 2])), "labels must come equally often"),
        (lambda: loss(x[:3], torch.tensor([0, 0, 1])), "labels must come equally often"),
        (lambda: loss(x, torch.arange(4), ref_emb=x), "ref_labels with ref_emb"),
        (lambda: loss(x, torch.arange(4), ref_emb=x, ref_labels=torch.arange(1, 5)), "once in labels"),
    ):
        with pytest.raises(ValueError, match=match):
            wrong()
    with pytest.raises(TypeError, match=r"loss must be one of sslfast.*got torch.nn.modules.loss.MSELoss"):
        ours.SelfSupervisedLoss(nn.MSELoss())
