"""Linear probe: logistic regression on the features of a frozen backbone."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sslfast._extras import require
from sslfast.evaluate.task import Task, check_features

DEFAULT = 0.1  # where no class has enough examples to choose by
GRID = (0.001, 0.01, 0.1, 1.0, 10.0)
FOLDS = 5  # one of them is held out to choose C


def linear(network: nn.Module, task: Task, *, C: float | None = None, max_iter: int = 300) -> dict[str, Any]:
    """The protocol: `linear_probe` on the frozen network's features, which are computed once."""
    return linear_probe(*task.features(network), C=C, max_iter=max_iter)


def linear_probe(
    train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor, *, C: float | None = None, max_iter: int = 300
) -> dict[str, Any]:
    """Accuracy of a multinomial logistic regression (scikit-learn, L-BFGS) on standardised features.

        x = (x - train_x.mean(0)) / train_x.std(0)                      # constant features are only centred
        minimise over W, b: ||W||² / 2 + C · sum(cross_entropy(x @ W + b, y))

    Which C suits depends on the features and, the loss being a sum, on how many there are. So it is chosen for each
    network by itself: of GRID the one that is best (the least of several) on a fifth of each class of the training
    features, learned from the others in max_iter iterations for all of GRID. No test feature is looked at.

    Args:
        train_x, test_x: (N_train, F) and (N_test, F) features, any device; computed with in float32 on the CPU.
        train_y, test_y: (N_train,) and (N_test,) int64 labels.
        C: inverse strength of the L2 penalty, > 0; None to choose it.
        max_iter: L-BFGS iterations at most. Stopping there is early stopping; "converged" then is False.

    Returns:
        "accuracy" and "train_accuracy" in [0, 1], the "C" used and, if it was chosen, "held_out", the accuracy that
        each C of the grid had there; "max_iter", "iterations", "converged", "features" F, "predictions" (N_test,)
        int64.

    Raises:
        ValueError: a shape does not fit, a feature is not finite, there is one class only, or C or max_iter is out of
            range. ImportError: scikit-learn is not installed.
    """
    check_features(train_x, train_y, test_x, test_y)
    if C is not None and not C > 0:
        raise ValueError(f"C must be above 0, got {C}")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter}")
    if len(train_y.unique()) < 2:
        raise ValueError(f"train_y must have at least two classes, got label {int(train_y[0])} only")
    x, y = train_x.detach().float().cpu().numpy(), train_y.cpu().numpy()
    held_out = {} if C is not None else _held_out_accuracies(x, y, max_iter)
    used = C if C is not None else max(held_out, key=held_out.__getitem__, default=DEFAULT)
    model = _model(max_iter, C=used)
    converged = _fit(model, x, y)
    predictions = torch.from_numpy(model.predict(test_x.detach().float().cpu().numpy()))
    return {
        "accuracy": (predictions == test_y.cpu()).double().mean().item(),
        "train_accuracy": float(model.score(x, y)),
        "C": used,
        **({"held_out": {f"{C:g}": round(value, 6) for C, value in held_out.items()}} if held_out else {}),
        "max_iter": max_iter,
        "iterations": int(model[-1].n_iter_.max()),
        "converged": converged,
        "features": train_x.shape[1],
        "predictions": predictions,
    }


def _held_out_accuracies(x: np.ndarray, y: np.ndarray, max_iter: int) -> dict[float, float]:
    """For each C of GRID the accuracy on a fifth of every class; empty if no class has enough for one.

    Each C begins where the one before ended, so that all of them together take no more iterations than one probe.
    """
    held = np.zeros(len(y), dtype=bool)
    shuffled = np.random.default_rng(0).permutation(len(y))
    for label in np.unique(y):
        mates = shuffled[y[shuffled] == label]
        held[mates[: len(mates) // FOLDS]] = True
    if not held.any():
        return {}
    model, found = _model(max(1, max_iter // len(GRID)), warm_start=True), {}
    for C in GRID:
        _fit(model.set_params(logisticregression__C=C), x[~held], y[~held])
        found[C] = float(model.score(x[held], y[held]))
    return found


def _model(max_iter: int, **options: Any) -> Any:
    """Standardisation, then the regression."""
    scaler = require("sklearn.preprocessing", extra="train").StandardScaler()
    regression = require("sklearn.linear_model", extra="train").LogisticRegression(max_iter=max_iter, **options)
    return require("sklearn.pipeline", extra="train").make_pipeline(scaler, regression)


def _fit(model: Any, x: np.ndarray, y: np.ndarray) -> bool:
    """Fit it; whether it converged."""
    convergence = require("sklearn.exceptions", extra="train").ConvergenceWarning
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", convergence)
        model.fit(x, y)
    others = [warning for warning in caught if not issubclass(warning.category, convergence)]
    for warning in others:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return len(others) == len(caught)
