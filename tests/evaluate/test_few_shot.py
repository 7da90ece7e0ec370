from __future__ import annotations

import statistics

import pytest
import torch

from sslfast.data import load_images
from sslfast.evaluate import Run, evaluate, linear_probe
from sslfast.evaluate.few_shot import draw_shots


def test_draws_have_n_of_each_class_and_hold_the_smaller_draws():
    labels = torch.randint(4, (200,), generator=torch.Generator().manual_seed(0))
    few, more, other = (draw_shots(labels, n, seed=seed, classes=4) for n, seed in ((3, 0), (7, 0), (7, 1)))
    assert labels[more].bincount().tolist() == [7] * 4
    assert len(set(more.tolist())) == 28
    assert set(few.tolist()) < set(more.tolist())
    assert set(more.tolist()) != set(other.tolist())


def test_a_run_beside_its_baselines_on_the_same_draws(run):
    result = evaluate(run, "few-shot", shots=(2, 10), draws=3)
    assert list(result["shots"]) == ["2", "10"]
    assert result["shots"]["2"]["mean"] < result["shots"]["10"]["mean"] == result["accuracy"]
    assert result["std"] == pytest.approx(statistics.stdev(result["shots"]["10"]["accuracies"]))
    assert result["baselines"].keys() == {"pixels", "random_init"}
    train, test = (load_images("digits", split) for split in ("train", "test"))
    inputs = Run(run).modality.inputs
    pixels, others = (inputs(split.images).flatten(1) for split in (train, test))
    for draw, found in enumerate(result["baseline_details"]["pixels"]["shots"]["10"]["accuracies"]):
        chosen = draw_shots(train.labels, 10, seed=3 * 10_007 + draw, classes=10)
        wanted = linear_probe(pixels[chosen], train.labels[chosen], others, test.labels, C=0.1)
        assert found == wanted["accuracy"]


def test_default_shots_are_those_that_every_class_has(run):
    assert list(evaluate(run, "few-shot", draws=1, limit=120)["shots"]) == ["1", "5"]
    result = evaluate(run, "few-shot", draws=1, shots=(1,))
    assert result["std"] == 0


def test_fine_tuned(run):
    result = evaluate(run, "few-shot-finetune", shots=(2,), draws=2, epochs=2, limit=200)
    assert len(result["shots"]["2"]["accuracies"]) == 2
    assert result["baselines"].keys() == {"random_init"}
    assert result["settings"]["epochs"] == 2


def test_wrong_settings_are_named(run):
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        evaluate(run, "few-shot", draws=0)
    with pytest.raises(ValueError, match=r"shots must be numbers of at least 1, got \[0, 5\]"):
        evaluate(run, "few-shot", shots=[0, 5])
    with pytest.raises(ValueError, match=r"shots must be at most \d+, the training examples of class \d, got 1000"):
        evaluate(run, "few-shot", shots=[1000])
