"""sslfast.compat.solo against solo-learn's formulas, written out: its package needs libraries that it names not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sslfast.compat import solo as ours


def randn(*shape: int, device: str, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def simclr(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """The mean over all rows of minus the log of the partner's part in the sum over all other rows."""
    z = F.normalize(torch.cat([z1, z2]), dim=-1)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    return -logits.log_softmax(dim=1).roll(len(z1), dims=0).diagonal().mean()


def assert_same(mine: Callable, its: Callable, device: str) -> None:
    found = []
    for loss in (mine, its):
        leaves = [randn(9, 7, device=device, seed=seed).requires_grad_() for seed in (0, 1)]
        value = loss(*leaves)
        found.append([value.detach(), *torch.autograd.grad(value, leaves, materialize_grads=True)])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr(temperature: float, device: str) -> None:
    assert_same(lambda *z: ours.simclr_loss_func(*z, temperature), lambda *z: simclr(*z, temperature), device)
    with pytest.raises(ValueError, match="extra_pos_mask is not served; use"):
        ours.simclr_loss_func(*randn(2, 4, 3, device=device), extra_pos_mask=torch.ones(8, 8, dtype=torch.bool))


@pytest.mark.parametrize("size", [0.1, 3.0])
def test_moco(size: float, device: str) -> None:
    """Of dot products: its rows need not be of unit length."""
    queue = randn(7, 30, device=device, seed=5)

    def moco(query: Tensor, key: Tensor) -> Tensor:
        logits = torch.cat([(query * key).sum(dim=1, keepdim=True), query @ (size * queue)], dim=1) / 0.1
        return -logits.log_softmax(dim=1)[:, 0].mean()

    assert_same(lambda q, k: ours.moco_loss_func(q, k, size * queue), moco, device)
    with pytest.raises(ValueError, match=r"queue must be \(D, K\), as wide as query, got shape \(30, 7\)"):
        ours.moco_loss_func(*randn(2, 4, 7, device=device), queue.T)


@pytest.mark.parametrize("simplified", [True, False])
def test_byol_and_simsiam(simplified: bool, device: str) -> None:
    def cosine(p: Tensor, z: Tensor) -> Tensor:
        return F.cosine_similarity(p, z.detach(), dim=-1).mean()

    assert_same(lambda *x: ours.simsiam_loss_func(*x, simplified), lambda *x: -cosine(*x), device)
    assert_same(lambda *x: ours.byol_loss_func(*x, simplified), lambda *x: 2 - 2 * cosine(*x), device)
