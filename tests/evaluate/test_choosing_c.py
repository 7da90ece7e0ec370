"""The strength of the linear probe, chosen on held-out training features; and sets that nothing can be told of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sslfast.evaluate import evaluate, linear_probe
from sslfast.evaluate.linear import GRID
from sslfast.report.verdict import verdict


def noisy(count: int, *, seed: int, features: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes, told apart by one feature of many."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (count,), generator=generator)
    x = torch.randn(count, features, generator=generator)
    x[:, 0] += 1.5 * y
    return x, y


def test_the_best_of_the_grid_on_a_fifth_of_the_training_features_is_taken() -> None:
    train, test = noisy(100, seed=0), noisy(500, seed=1)
    found = linear_probe(*train, *test)
    assert [float(C) for C in found["held_out"]] == list(GRID)
    best = max(found["held_out"].values())
    assert f"{found['C']:g}" == next(C for C, accuracy in found["held_out"].items() if accuracy == best)
    again = linear_probe(*train, *test, C=found["C"])
    assert again["accuracy"] == found["accuracy"]
    assert "held_out" not in again


def test_test_features_have_no_say() -> None:
    train, (test_x, test_y) = noisy(100, seed=0), noisy(500, seed=1)
    found = [linear_probe(*train, x, test_y)["held_out"] for x in (test_x, -test_x)]
    assert found[0] == found[1]


def test_every_class_is_held_out_by_a_fifth_and_none_if_there_are_too_few() -> None:
    x, y = torch.randn(8, 3), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    result = linear_probe(x, y, x, y)
    assert result["C"] == 0.1
    assert "held_out" not in result


def test_run_and_baselines_choose_for_themselves_and_random_init_is_of_several_seeds(run: Path) -> None:
    evaluate(run, "linear", limit=200)
    entry = json.loads((run / "results.json").read_text())["linear"]
    assert entry["C"] in GRID
    assert set(entry["held_out"]) == {f"{C:g}" for C in GRID}
    assert entry["settings"]["C"] is None
    details = entry["baseline_details"]
    assert all("held_out" in baseline for baseline in details.values())
    inits = details["random_init"]["inits"]
    assert len(set(inits["accuracies"])) > 1
    assert entry["baselines"]["random_init"] == pytest.approx(sum(inits["accuracies"]) / 3)
    assert inits["std"] == pytest.approx(torch.tensor(inits["accuracies"], dtype=torch.float64).std().item())
    said = verdict(entry)
    assert said.startswith(f"Linear probe on digits: {100 * entry['accuracy']:.1f} %, ")


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("linear", r"linear needs training examples of two classes or more, and all are of \d"),
        ("knn", r"knn needs training examples of two classes"),
        ("few-shot", r"few-shot needs training examples of two classes"),
    ],
)
def test_one_class_is_no_question(run: Path, protocol: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(run, protocol, limit=1)


def test_few_shot_of_a_class_without_examples_says_what_limit_left(run: Path) -> None:
    with pytest.raises(ValueError, match=r"at most 0, the training examples of class \d among the 5 that limit leaves"):
        evaluate(run, "few-shot", limit=5)


def test_the_verdict_is_of_both_baselines_and_counts_errors() -> None:
    entry = {"protocol": "knn", "metric": "accuracy", "accuracy": 0.8, "data": "photos", "test_examples": 600}
    entry |= {
        "baselines": {"pixels": 0.5, "random_init": 0.6},
        "baseline_details": {"random_init": {"inits": {"std": 0.031}}},
    }
    assert verdict(entry) == (
        "kNN on photos: 80.0 %, better than both baselines: 20.0 points above random init (60.0 ± 3.1 %), "
        "30.0 points above raw pixels (50.0 %)"
    )
    entry["baseline_details"] = {}
    said = {}
    for accuracy in (0.64, 0.65, 0.66, 0.55, 0.54):
        said[accuracy] = verdict(entry | {"accuracy": accuracy}).partition("%, ")[2].partition(":")[0]
    assert said == {
        0.66: "better than both baselines",
        0.65: "not clearly better than random init",  # 5 points; two standard errors are 5.6
        0.64: "not clearly better than random init",
        0.55: "not clearly better than random init and raw pixels",
        0.54: "worse than random init",
    }
    assert verdict(entry | {"metric": "loss"}) is None
