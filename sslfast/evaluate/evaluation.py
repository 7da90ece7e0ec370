"""What is the same for all protocols: the networks, the baselines, the result."""

from __future__ import annotations

import inspect
import json
import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslfast._info import commit, installed
from sslfast.data import located, normalization_of
from sslfast.evaluate.features import fingerprint
from sslfast.evaluate.protocols import PROTOCOLS, settings_of
from sslfast.evaluate.results import merge_result, read_results
from sslfast.evaluate.run import Run
from sslfast.evaluate.task import Task, choose_device

LOGGER = logging.getLogger("sslfast")
RANDOM_INITS = 3  # networks whose accuracies are averaged, of the run's seed and the next ones
MOST_CLASSES, MOST_CONFUSED = 100, 20  # classes up to which results.json has an accuracy each, a confusion matrix
# Of an entry, what says nothing about its baselines.
OWN = ("method", "weights_sha256", "init_from", "epoch", "epochs", "step")


class Evaluation:
    """A run beside its baselines, judged by as many protocols as one likes: every network's features are computed once.

        evaluation = Evaluation("runs/simclr")
        entries = [evaluation.judge(protocol) for protocol in ("linear", "knn", "few-shot")]

    Args:
        run: the run folder. Its exported backbone is taken, or its last checkpoint if it has not finished.
        data: another data set to train and test the classifiers on, by its name or as `sslfast.pretrain` takes it; the
            run's own if None. Its images are brought to the network's input size and channels and normalised as in
            training.
        data_root: folder of the downloaded sets.
        download: fetch the images if they are not there.
        device: where networks compute; CUDA if there is a device, else the CPU.
        batch_size: examples a forward pass.
        limit: at most this many examples of each split, drawn at random; None for all.
        seed: of that draw and of whatever a protocol draws; the run's own if None. The initial networks always have the
            run's.
        workers: processes that decode images which are not in memory.
        skip_corrupt: go on without image files that cannot be read, as training does if the run was told so.
        baselines_from: another run, whose baselines are taken over from its results.json instead of computed, which
            everything that determines them must allow; of a sequence of runs the first one that allows it, and if none
            does, they are computed. "pretext" computes its own nevertheless.

    Raises:
        ValueError: an argument is out of range; a file of the run is damaged; the baselines of the one run that
            `baselines_from` names are others.
        FileNotFoundError: `run` is not a run, or the examples are not there.
    """

    def __init__(
        self,
        run: str | Path | Run,
        *,
        data: Any = None,
        data_root: str | Path | None = None,
        download: bool = False,
        device: torch.device | str | None = None,
        batch_size: int = 256,
        limit: int | None = None,
        seed: int | None = None,
        workers: int = 4,
        skip_corrupt: bool = False,
        baselines_from: str | Path | Sequence[str | Path] | None = None,
    ) -> None:
        self.run = run = Run(Path(run))
        self.data = run.config["data"] if data is None else located(data)
        self._must_fit = isinstance(baselines_from, str | Path)
        sources = [baselines_from] if self._must_fit else baselines_from or ()
        self.baselines_from = [Run(Path(source)) for source in sources]
        read_results(run.folder)  # a damaged file shows before anything is computed
        root = None if data_root is None else Path(data_root)
        options = {"data": self.data, "root": root, "download": download, "skip_corrupt": skip_corrupt}
        modality = run.modality
        self.task = Task(
            *(modality.load(split, **options) for split in ("train", "test")),
            inputs=modality.inputs,
            augmented=modality.augmented,
            device=choose_device(device),
            batch_size=batch_size,
            seed=run.config["seed"] if seed is None else seed,
            limit=limit,
            workers=workers,
        )

    def judge(self, protocol: str, **options: Any) -> dict[str, Any]:
        """The entry of RUN/results.json, which is written; see `evaluate`."""
        settings = settings_of(protocol, options)
        needs, task = PROTOCOLS[protocol].needs, self.task
        if needs != "method":
            self._check_labels(protocol)
        judge = partial(PROTOCOLS[protocol].judge, task=task, **settings)
        if needs == "method":
            self._check_channels()
            network, beside, others = self.run.method(), {"random_init": self.run.initial_method()}, []
            judge = partial(judge, task=replace(task, batch_size=self.run.config["batch_size"]))
        else:
            network = self._backbone
            beside = self._baselines if needs == "features" else {"random_init": self._baselines["random_init"]}
            others = self._others if needs == "features" else []
        name = protocol if self.data == self.run.config["data"] else f"{protocol}@{self.data}"
        about = self._about(network, beside["random_init"]) | {"settings": settings}
        source, taken = self._taken(name, about) if needs != "method" else (None, None)

        LOGGER.info("%s: this run", protocol)
        found = judge(network)
        if taken:
            baselines = taken(found)
        else:
            LOGGER.info("%s: its baselines, %s", protocol, ", ".join(beside))
            baselines = {key: judge(other) for key, other in beside.items()}
            if others:
                baselines["random_init"] = _averaged([baselines["random_init"], *map(judge, others)])
        predictions = found.pop("predictions", None)
        for baseline in baselines.values():
            baseline.pop("predictions", None)
        metric = "accuracy" if "accuracy" in found else "loss"
        unreadable = sorted(task.train.corrupt | task.test.corrupt)
        result = {
            "protocol": protocol,
            "metric": metric,
            metric: found.pop(metric),
            "baselines": {key: baseline.pop(metric) for key, baseline in baselines.items()},
            **({"baselines_from": str(source.folder)} if source else {}),
            **found,
            # What is the same for all networks is said once, above.
            "baseline_details": {
                key: {k: value for k, value in baseline.items() if k == "converged" or value != found.get(k)}
                for key, baseline in baselines.items()
            },
            **({"unreadable": unreadable} if unreadable else {}),  # skipped, as in training
            **about,
            **(_by_class(task, predictions) if predictions is not None else {}),
        }
        merge_result(self.run.folder, name, result)
        return result

    def _taken(self, name: str, about: dict[str, Any]) -> tuple[Run | None, Callable[..., dict[str, Any]] | None]:
        """The first run of `baselines_from` that has these baselines, and what gives them."""
        for source in self.baselines_from:
            try:
                return source, _baselines_of(source, name, about)
            except ValueError:
                if self._must_fit:
                    raise
        if self.baselines_from:
            LOGGER.info("%s: none of %d runs has the same baselines", name, len(self.baselines_from))
        return None, None

    def _check_labels(self, protocol: str) -> None:
        """Refuse examples that there is nothing to tell apart in."""
        task = self.task
        if not (task.train.classes and task.test.classes):
            raise ValueError(f"{self.data} has no labels, which {protocol} needs: judge on others by data (--data)")
        if len(found := task.train.labels[task.indices(task.train)].unique()) < 2:
            only = task.train.classes[int(found[0])]
            raise ValueError(f"{protocol} needs training examples of two classes or more, and all are of {only}")

    def _check_channels(self) -> None:
        """Refuse images that the method's views cannot be made of."""
        if self.run.settings.modality != "images" or self.data == self.run.config["data"]:
            return
        has, wants = self.task.test.shape[0], len(normalization_of(self.run.settings)[0])
        if has != wants:
            raise ValueError(
                f"data {self.data} has {has} channels, but the method was trained on {wants}: "
                "its pretext task cannot be judged there"
            )

    @cached_property
    def _backbone(self) -> nn.Module:
        return self.run.backbone().to(memory_format=torch.channels_last)

    @cached_property
    def _baselines(self) -> dict[str, nn.Module]:
        initial = self.run.initial_backbone().to(memory_format=torch.channels_last)
        return {**self.run.modality.baselines(), "random_init": initial}

    @cached_property
    def _others(self) -> list[nn.Module]:
        """Random inits of other seeds: one alone may be many points off."""
        seeds = [(self.run.config["seed"] + k) % 2**63 for k in range(1, RANDOM_INITS)]
        return [self.run.initial_backbone(seed).to(memory_format=torch.channels_last) for seed in seeds]

    def _about(self, network: nn.Module, initial: nn.Module) -> dict[str, Any]:
        """On what, of what, and by what: all that an entry needs besides the settings to be got again."""
        run, task = self.run, self.task
        epoch, step = run.progress
        return {
            "data": self.data,
            "train_examples": len(task.indices(task.train)),
            "test_examples": len(task.indices(task.test)),
            "limit": task.limit,
            **run.modality.describe(),
            "method": run.config["method"],
            "backbone": run.config["backbone"],
            "weights_sha256": fingerprint(network),
            **({"init_from": began} if (began := run.environment.get("init_from")) else {}),
            "initial_sha256": fingerprint(initial),
            "epoch": epoch,
            "epochs": run.config["epochs"],
            "step": step,
            "seed": task.seed,
            "run_seed": run.config["seed"],
            "versions": installed(),
            "commit": commit(),
        }


def evaluate(run: str | Path | Run, protocol: str = "linear", **options: Any) -> dict[str, Any]:
    """Judge a run's last backbone by a protocol, beside baselines that learned nothing, and write it to results.json.

        evaluate("runs/simclr", "knn", data="cifar100", k=20)

    The baselines are the same protocol on the backbone as the run's seed initialises it, and where a protocol needs
    features only, the mean over that and the next two seeds, and on raw pixels (of at most 32 x 32) or, for text, on a
    bag of words. There is no choosing among epochs: what is judged is the end of the run.

    Args:
        run: the run folder.
        protocol: a name in `PROTOCOLS`.
        options: those of `Evaluation`, and the protocol's own settings, for knn `k` and `temperature`, for linear `C`
            and `max_iter`. A setting that is None has its default.

    Returns:
        The entry of RUN/results.json, under the protocol's name (`protocol@data` for another data set): accuracy and
        baselines in [0, 1] and all that is needed to get them again.

    Raises:
        ValueError: there is no such protocol; an option is out of range; a file of the run is damaged.
        TypeError: the protocol has no such option.
        FileNotFoundError: `run` is not a run, has no weights, or the images are not there.
        RuntimeError: a network that was to stay as it is changed while it was evaluated.
    """
    own = inspect.signature(Evaluation).parameters
    settings = {name: value for name, value in options.items() if name not in own}
    settings_of(protocol, settings)
    return Evaluation(run, **{name: options[name] for name in options if name in own}).judge(protocol, **settings)


def standard_result(run: str | Path, protocol: str) -> dict[str, Any] | None:
    """The entry of results.json that `evaluate(run, protocol)` writes for a finished run; None if there is no such.

    So an entry of an earlier epoch, of a part of the examples, or by other settings does not count.
    """
    entry = read_results(run).get(protocol)
    if entry is None:
        return None
    terms = {"limit": None, "seed": entry["run_seed"], "epoch": entry["epochs"], "settings": settings_of(protocol, {})}
    return entry if terms.items() <= entry.items() else None


def _averaged(found: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of several random inits: the first one's, with the mean accuracy, and all in "inits"."""
    accuracies = [one["accuracy"] for one in found]
    inits = {"std": statistics.stdev(accuracies), "accuracies": accuracies}
    converged = {"converged": all(one["converged"] for one in found)} if "converged" in found[0] else {}
    return {**found[0], **converged, "accuracy": statistics.fmean(accuracies), "inits": inits}


def _baselines_of(source: Run, name: str, about: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What gives another run's baselines, as details that are beside `found`.

    Raises:
        ValueError: it has no such result, or one on other terms; the message says which.
    """
    entry = read_results(source.folder).get(name)
    if entry is None:
        raise ValueError(f"baselines_from: {source.folder} has no result of {name}")
    wanted = json.loads(json.dumps({key: value for key, value in about.items() if key not in OWN}))
    if other := [f"{key} {entry.get(key)}, not {value}" for key, value in wanted.items() if entry.get(key) != value]:
        raise ValueError(f"baselines_from: the baselines of {source.folder} are others: {'; '.join(other)}")

    def details(found: dict[str, Any]) -> dict[str, Any]:
        same = {key: entry[key] for key in found if key in entry}
        return {
            key: {**same, **entry["baseline_details"][key], entry["metric"]: value}
            for key, value in entry["baselines"].items()
        }

    return details


def _by_class(task: Task, predictions: Tensor) -> dict[str, Any]:
    """Each class's accuracy (None without test examples) and the confusion matrix, (true, predicted), if small."""
    classes = task.test.classes
    if len(classes) > MOST_CLASSES:
        return {}
    labels = task.test.labels[task.indices(task.test)]
    size = len(classes)
    counts = torch.bincount(labels * size + predictions, minlength=size * size).view(size, size)
    found = zip(classes, counts.diagonal().tolist(), counts.sum(dim=1).tolist())
    by_class = {"class_accuracy": {name: round(right / all_, 6) if all_ else None for name, right, all_ in found}}
    return by_class | ({"confusion": counts.tolist()} if size <= MOST_CONFUSED else {})
