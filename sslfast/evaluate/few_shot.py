"""Few-shot: how much a classifier learns from n labels a class."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sslfast.evaluate.finetune import FineTuning, tune_and_test
from sslfast.evaluate.linear import linear_probe
from sslfast.evaluate.task import Task

SHOTS = (1, 5, 10, 20)
FEW = FineTuning(epochs=50, train_batch_size=64, warmup_epochs=5.0)


def few_shot(
    network: nn.Module,
    task: Task,
    *,
    shots: Sequence[int] | None = None,
    draws: int = 5,
    C: float = 0.1,
    max_iter: int = 300,
) -> dict[str, Any]:
    """The protocol: `linear_probe` on the frozen features of n training examples a class.

    The examples are drawn `draws` times, see `draw_shots`: the same ones for every network.

    Args:
        network, task: as for `linear`.
        shots: the numbers n; None for those of 1, 5, 10, 20 that every class has.
        draws: how many times examples are drawn.
        C, max_iter: as in `linear_probe`.

    Returns:
        "shots": for each n, as text, the "mean" and standard deviation "std" (of a sample; 0 of one draw) of the test
        accuracy, and the "accuracies" themselves; "accuracy" and "std", those of the largest n; "converged": whether
        all did; "features" F.

    Raises:
        ValueError: a class has fewer than n examples; shots, draws, C or max_iter is out of range.
    """
    train_x, train_y, test_x, test_y = (tensor.cpu() for tensor in task.features(network))
    found = []

    def accuracy(chosen: Tensor, seed: int) -> float:
        found.append(linear_probe(train_x[chosen], train_y[chosen], test_x, test_y, C=C, max_iter=max_iter))
        return found[-1]["accuracy"]

    result = _repeat(accuracy, train_y, task, shots, draws)
    return {**result, "converged": all(probe["converged"] for probe in found), "features": train_x.shape[1]}


def few_shot_finetune(
    network: nn.Module,
    task: Task,
    *,
    shots: Sequence[int] | None = None,
    draws: int = 5,
    **settings: Any,
) -> dict[str, Any]:
    """The protocol: as `few_shot`, with the same draws, but all of the network is trained, as in `finetune`.

    Args:
        network, task: as for `finetune`.
        shots, draws: as in `few_shot`.
        settings: fields of `FineTuning`, which otherwise are those of `FEW`.

    Returns:
        "shots", "accuracy" and "std" as of `few_shot`; "features" F.
    """
    tuning = replace(FEW, **settings)
    indices = task.indices(task.train)

    def accuracy(chosen: Tensor, seed: int) -> float:
        return tune_and_test(network, task, indices[chosen], tuning, seed=seed)["accuracy"]

    return {**_repeat(accuracy, task.train.labels[indices], task, shots, draws), "features": network.num_features}


def draw_shots(labels: Tensor, shots: int, *, seed: int, classes: int) -> Tensor:
    """`shots` examples of each class, (classes · shots,) indices of `labels`; a larger draw holds the smaller ones."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(labels), generator=generator)
    return torch.cat([shuffled[labels[shuffled] == k][:shots] for k in range(classes)])


def _repeat(
    accuracy: Callable[[Tensor, int], float], labels: Tensor, task: Task, shots: Sequence[int] | None, draws: int
) -> dict[str, Any]:
    """The test accuracies of every n and draw, and what comes of them."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    classes = task.train.classes
    counts = torch.bincount(labels, minlength=len(classes))
    fewest, least = int(counts.min()), classes[int(counts.argmin())]
    if shots is None:
        shots = [n for n in SHOTS if n <= fewest] or SHOTS[:1]
    if not shots or min(shots) < 1:
        raise ValueError(f"shots must be numbers of at least 1, got {list(shots)}")
    if max(shots) > fewest:
        left = "" if task.limit is None else f" among the {task.limit} that limit leaves"
        raise ValueError(
            f"shots must be at most {fewest}, the training examples of class {least}{left}, got {max(shots)}"
        )
    found = {}
    for n in sorted(set(shots)):
        # Seeds of different draws shall share no stream with those of a neighbouring seed.
        seeds = [(task.seed * 10_007 + draw) % 2**63 for draw in range(draws)]
        accuracies = [accuracy(draw_shots(labels, n, seed=seed, classes=len(classes)), seed) for seed in seeds]
        std = statistics.stdev(accuracies) if draws > 1 else 0.0
        found[str(n)] = {"mean": statistics.fmean(accuracies), "std": std, "accuracies": accuracies}
    last = found[str(max(shots))]
    return {"accuracy": last["mean"], "std": last["std"], "shots": found}
