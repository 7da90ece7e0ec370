"""The protocols by name, and what is the same for all of them: the networks, the baselines, the result."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslfast._version import __version__
from sslfast.evaluate.features import fingerprint
from sslfast.evaluate.knn import knn
from sslfast.evaluate.linear import linear
from sslfast.evaluate.results import merge_result
from sslfast.evaluate.run import Run
from sslfast.evaluate.task import Task, choose_device

# A protocol takes a network and a task and returns JSON values: "accuracy", its settings, and how it went; also
# "predictions" (N_test,) if it makes one for every test image.
PROTOCOLS: dict[str, Callable[..., dict[str, Any]]] = {"linear": linear, "knn": knn}

MOST_CLASSES, MOST_CONFUSED = 100, 20  # classes up to which results.json has an accuracy each, a confusion matrix
PACKAGES = ("torch", "scikit-learn", "numpy")


def evaluate(
    run: str | Path,
    protocol: str,
    *,
    data: str | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    limit: int | None = None,
    seed: int | None = None,
    workers: int = 4,
    skip_corrupt: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Judge a run's last backbone by a protocol, beside two baselines, and write it to RUN/results.json.

    The baselines are the same protocol on raw pixels (of at most 32 x 32) and on the backbone as it was initialised,
    before training. There is no choosing among epochs: what is judged is the end of the run.

    Args:
        run: the run folder. Its exported backbone is taken, or its last checkpoint if it has not finished.
        protocol: "linear" or "knn".
        data: another data set to train and test the classifier on; the run's own if None. Its images are brought to the
            network's input size and channels and normalised as in training.
        data_root: folder of the downloaded sets.
        download: fetch the images if they are not there.
        device: where features are computed; CUDA if there is a device, else the CPU.
        batch_size: images a forward pass.
        limit: at most this many images of each split, drawn at random; None for all.
        seed: of that draw; the run's own if None. The initial backbone always has the run's.
        workers: processes that decode images which are not in memory.
        skip_corrupt: go on without image files that cannot be read, as training does if the run was told so.
        options: the protocol's own settings, for knn `k` and `temperature`, for linear `C` and `max_iter`. One that is
            None has its default.

    Returns:
        The entry of RUN/results.json, under the protocol's name (`protocol@data` for another data set): accuracy and
        baselines in [0, 1] and all that is needed to get them again.

    Raises:
        ValueError: there is no such protocol; an option is out of range; a file of the run is damaged.
        TypeError: the protocol has no such option.
        FileNotFoundError: `run` is not a run, has no weights, or the images are not there.
        RuntimeError: a network changed while it was evaluated.
    """
    settings = _settings(protocol, options)
    run = Run(Path(run))
    data = data or run.config["data"]
    root = None if data_root is None else Path(data_root)
    options = {"data": data, "root": root, "download": download, "skip_corrupt": skip_corrupt}
    task = Task(
        *(run.modality.load(split, **options) for split in ("train", "test")),
        inputs=run.modality.inputs,
        device=choose_device(device),
        batch_size=batch_size,
        seed=run.config["seed"] if seed is None else seed,
        limit=limit,
        workers=workers,
    )
    judge = PROTOCOLS[protocol]
    backbone = run.backbone().to(memory_format=torch.channels_last)
    found = judge(backbone, task, **settings)
    initial = run.initial_backbone().to(memory_format=torch.channels_last)
    untrained = {**run.modality.baselines(), "random_init": initial}
    baselines = {name: judge(network, task, **settings) for name, network in untrained.items()}
    predictions = found.pop("predictions", None)
    for baseline in baselines.values():
        baseline.pop("predictions", None)

    epoch, step = run.progress
    unreadable = sorted(task.train.corrupt | task.test.corrupt)
    result = {
        "protocol": protocol,
        "accuracy": found.pop("accuracy"),
        "baselines": {name: baseline.pop("accuracy") for name, baseline in baselines.items()},
        **found,
        # What is the same for all networks is said once, above.
        "baseline_details": {
            name: {key: value for key, value in baseline.items() if value != found.get(key)}
            for name, baseline in baselines.items()
        },
        "data": data,
        "train_examples": len(task.indices(task.train)),
        "test_examples": len(task.indices(task.test)),
        **({"unreadable": unreadable} if unreadable else {}),  # skipped, as in training
        "limit": limit,
        **run.modality.describe(),
        "method": run.config["method"],
        "backbone": run.config["backbone"],
        "weights_sha256": fingerprint(backbone),
        "epoch": epoch,
        "epochs": run.config.get("epochs"),
        "step": step,
        "seed": task.seed,
        "run_seed": run.config["seed"],
        **(_by_class(task, predictions) if predictions is not None else {}),
        "versions": {"sslfast": __version__, "python": platform.python_version()}
        | {package: metadata.version(package) for package in PACKAGES},
    }
    own = data == run.config["data"]
    merge_result(run.folder, protocol if own else f"{protocol}@{data}", result)
    return result


def _settings(protocol: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options that were given a value, if the protocol has them."""
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {protocol!r}")
    parameters = inspect.signature(PROTOCOLS[protocol]).parameters.values()
    allowed = [parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    given = {name: value for name, value in options.items() if value is not None}
    if unknown := [name for name in given if name not in allowed]:
        raise TypeError(f"protocol {protocol} has no option {', '.join(unknown)}; it has {', '.join(allowed)}")
    return given


def _by_class(task: Task, predictions: Tensor) -> dict[str, Any]:
    """Each class's accuracy, and the confusion matrix (rows: true class, columns: predicted), if they are small."""
    classes = task.test.classes
    if len(classes) > MOST_CLASSES:
        return {}
    labels = task.test.labels[task.indices(task.test)]
    size = len(classes)
    counts = torch.bincount(labels * size + predictions, minlength=size * size).view(size, size)
    accuracy = (counts.diagonal() / counts.sum(dim=1).clamp_min(1)).tolist()
    by_class = {"class_accuracy": {name: round(value, 6) for name, value in zip(classes, accuracy)}}
    return by_class | ({"confusion": counts.tolist()} if size <= MOST_CONFUSED else {})
