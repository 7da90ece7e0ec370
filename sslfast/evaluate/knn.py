"""k nearest neighbours with weighted votes, as DINO evaluates (Caron et al. 2021, https://arxiv.org/abs/2104.14294)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.evaluate.task import Task, check_features

SMALL = 10_000  # training images below which k is 20 instead of 200
CELLS = 1 << 25  # similarities held at a time: 128 MiB of float32


def knn(network: nn.Module, task: Task, *, k: int | None = None, temperature: float = 0.1) -> dict[str, Any]:
    """The protocol: the test images' labels, by a vote among the nearest training images. See `knn_scores`.

    Returns:
        "accuracy" in [0, 1], the "k" and "temperature" used ("k_requested" if k was more than there are training
        images), "features" F, "predictions" (N_test,).
    """
    train_x, train_y, test_x, test_y = task.features(network)
    wanted = default_k(len(train_x)) if k is None else k
    predictions = knn_scores(train_x, train_y, test_x, k=wanted, temperature=temperature).argmax(dim=1)
    used = min(wanted, len(train_x))
    return {
        "accuracy": (predictions == test_y).double().mean().item(),
        "k": used,
        **({"k_requested": wanted} if used < wanted else {}),
        "temperature": temperature,
        "features": train_x.shape[1],
        "predictions": predictions.cpu(),
    }


def knn_accuracy(
    train_x: Tensor,
    train_y: Tensor,
    test_x: Tensor,
    test_y: Tensor,
    *,
    k: int | None = None,
    temperature: float = 0.1,
) -> float:
    """The fraction of test images whose label the vote of `knn_scores` finds, in [0, 1].

    Args:
        train_x, test_x: (N_train, F) and (N_test, F) features, on one device.
        train_y, test_y: (N_train,) and (N_test,) int64 labels.
        k, temperature: as in `knn_scores`.

    Raises:
        ValueError: a shape does not fit, a feature is not finite, k < 1 or temperature <= 0.
    """
    check_features(train_x, train_y, test_x, test_y)
    scores = knn_scores(train_x, train_y, test_x, k=k, temperature=temperature)
    return (scores.argmax(dim=1) == test_y).double().mean().item()


def knn_scores(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, *, k: int | None = None, temperature: float = 0.1
) -> Tensor:
    """How the k nearest training images vote on the class of each test image.

        similarity = F.normalize(test_x) @ F.normalize(train_x).T
        nearest, index = similarity.topk(k)
        scores[i, c] = sum(exp(nearest[i] / temperature)[train_y[index[i]] == c])   # each row divided by its sum

    Worked on some test images at a time, so that never more than 2^25 similarities are in memory (one row, if there are
    more training images than that).

    Args:
        train_x, test_x: (N_train, F) and (N_test, F) features, on one device.
        train_y: (N_train,) int64 labels.
        k: neighbours that vote; at most N_train of them do. None is 200, or 20 below 10,000 training images.
        temperature: of the weights; the smaller, the more the nearest ones decide.

    Returns:
        (N_test, classes) scores, each row with the sum 1; classes is the largest training label + 1.

    Raises:
        ValueError: k < 1 or temperature <= 0.
    """
    k = default_k(len(train_x)) if k is None else k
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    bank = F.normalize(train_x.float(), dim=1).T  # (F, N_train)
    classes = int(train_y.max()) + 1
    scores = []
    for chunk in test_x.split(max(1, CELLS // len(train_x))):
        nearest, index = (F.normalize(chunk.float(), dim=1) @ bank).topk(min(k, len(train_x)), dim=1)  # (B, k)
        weights = (nearest / temperature).softmax(dim=1)  # cannot overflow at a small temperature
        scores.append(weights.new_zeros(len(chunk), classes).scatter_add_(1, train_y[index], weights))
    return torch.cat(scores)


def default_k(train_images: int) -> int:
    """200 neighbours, 20 on small sets."""
    return 200 if train_images >= SMALL else 20
