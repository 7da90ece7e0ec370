from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslfast.evaluate import linear_probe


def separable(count: int, *, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes on the corners of a simplex, far apart, in features of very different scales."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (count,), generator=generator)
    x = 6 * F.one_hot(y, 3) + torch.randn(count, 3, generator=generator)
    return x * torch.tensor([1e-3, 1.0, 1e3]) + torch.tensor([5.0, 0.0, -900.0]), y


def test_separable_data_is_separated_whatever_its_scale():
    result = linear_probe(*separable(300, seed=0), *separable(200, seed=1))
    assert result["accuracy"] >= 0.99
    assert result["train_accuracy"] >= 0.99
    assert result["converged"]
    assert result["features"] == 3


def test_labels_without_relation_are_not_learned():
    (train_x, _), (test_x, test_y) = separable(300, seed=0), separable(600, seed=1)
    generator = torch.Generator().manual_seed(2)
    result = linear_probe(train_x, torch.randint(3, (300,), generator=generator), test_x, test_y)
    assert result["accuracy"] < 0.6


def test_it_minimises_the_objective_of_its_docstring():
    train_x, train_y = separable(150, seed=0)
    test_x, _ = separable(150, seed=1)
    noise = torch.Generator().manual_seed(3)
    train_x = train_x + torch.randn(150, 3, generator=noise) * torch.tensor([4e-3, 4.0, 4e3])  # so that they overlap
    C = 0.02
    mean, std = train_x.double().mean(0), train_x.double().std(0, unbiased=False)
    x = (train_x.double() - mean) / std
    weight, bias = (torch.zeros(s, 3, dtype=torch.float64, requires_grad=True) for s in (3, 1))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def objective():
        optimizer.zero_grad()
        loss = weight.square().sum() / 2 + C * F.cross_entropy(x @ weight + bias, train_y, reduction="sum")
        loss.backward()
        return loss

    optimizer.step(objective)
    wanted = ((test_x.double() - mean) / std @ weight + bias).argmax(1)
    found = linear_probe(train_x, train_y, test_x, wanted, C=C)
    assert found["accuracy"] >= 0.99  # a point on the border may fall to the other side in float32


def test_constant_features_do_no_harm():
    train_x, train_y = separable(300, seed=0)
    test_x, test_y = separable(200, seed=1)
    wider = [torch.cat([x, torch.full((len(x), 2), 0.1)], dim=1) for x in (train_x, test_x)]
    assert linear_probe(wider[0], train_y, wider[1], test_y)["accuracy"] >= 0.99


def test_an_early_stop_is_said(recwarn):
    result = linear_probe(*separable(300, seed=0), *separable(20, seed=1), max_iter=2, C=100.0)
    assert (result["converged"], result["iterations"], result["max_iter"]) == (False, 2, 2)
    assert not recwarn


def test_features_stay_as_they_are():
    train_x, train_y = separable(100, seed=0)
    test_x, test_y = separable(50, seed=1)
    before = train_x.clone(), test_x.clone()
    linear_probe(train_x, train_y, test_x, test_y)
    assert torch.equal(train_x, before[0])
    assert torch.equal(test_x, before[1])


def test_wrong_arguments_are_named():
    train_x, train_y = separable(30, seed=0)
    test_x, test_y = separable(10, seed=1)
    with pytest.raises(ValueError, match="C must be above 0, got -1"):
        linear_probe(train_x, train_y, test_x, test_y, C=-1)
    with pytest.raises(ValueError, match="max_iter must be at least 1, got 0"):
        linear_probe(train_x, train_y, test_x, test_y, max_iter=0)
    with pytest.raises(ValueError, match="at least two classes, got label 4 only"):
        linear_probe(train_x, torch.full_like(train_y, 4), test_x, test_y)
    with pytest.raises(ValueError, match="test_x has NaN or infinite"):
        linear_probe(train_x, train_y, test_x * math.inf, test_y)
