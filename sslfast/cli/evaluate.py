"""`sslfast evaluate` and `sslfast report`."""

from __future__ import annotations

import contextlib
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from sslfast._extras import require
from sslfast._memory import saying_what_fits
from sslfast.cli.parse import UsageError, parse
from sslfast.cli.progress import shown

tyro = require("tyro", extra="train")


@dataclass
class Evaluate:
    """What to judge, and how."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    protocol: tuple[Literal["linear", "knn", "few-shot", "few-shot-finetune", "finetune", "pretext"], ...] = ("linear",)
    """One or several. linear: logistic regression on the frozen features; knn: a weighted vote of the nearest training
    examples; few-shot: logistic regression with n labels a class; finetune: all of the network is trained with labels;
    few-shot-finetune: so with n labels a class; pretext: how well the method does on test examples what it was trained
    for."""
    data: str | None = None
    """Another data set to judge it on; the run's own if not given."""
    data_root: Path | None = None
    """Folder of the downloaded sets; the data sets' own default if not given."""
    download: bool = False
    """Fetch the images if they are not there yet."""
    device: str | None = None
    """Where features are computed: cpu, cuda, cuda:1, …; CUDA if there is a device and none is given."""
    batch_size: int = 256
    """Examples a forward pass."""
    limit: int | None = None
    """At most this many examples of each split, drawn at random; all if not given."""
    seed: int | None = None
    """Seed of that draw and of what a protocol draws; the run's own if not given."""
    workers: int = 4
    """Processes that decode images which do not fit in memory."""
    skip_corrupt: bool = False
    """Go on without image files that cannot be read, and name them in results.json; always if the training did."""
    baselines_from: tuple[Path, ...] = ()
    """Take the baselines from the results.json of the first of these runs that has the same, instead of computing them
    again."""
    k: int | None = None
    """knn: neighbours that vote; 200, or 20 below 10,000 training images, if not given."""
    temperature: float | None = None
    """knn: temperature of the votes; 0.1 if not given."""
    C: float | None = None
    """linear, few-shot: inverse strength of the L2 penalty; if not given 0.1 for few-shot, and for linear the best of
    0.001 to 10 on a held-out fifth of the training examples, for the run and each baseline by itself."""
    max_iter: int | None = None
    """linear, few-shot: L-BFGS iterations at most; 300 if not given."""
    shots: tuple[int, ...] | None = None
    """few-shot, few-shot-finetune: labels a class; those of 1, 5, 10, 20 that every class has if not given."""
    draws: int | None = None
    """few-shot, few-shot-finetune: how many times labels are drawn; 5 if not given."""
    epochs: int | None = None
    """finetune: passes over the training examples; 20 if not given, few-shot-finetune: 50."""
    learning_rate: float | None = None
    """finetune, few-shot-finetune: peak learning rate of AdamW; 0.001 if not given."""
    train_batch_size: int | None = None
    """finetune: examples a step; 128 if not given, few-shot-finetune: 64."""
    weight_decay: float | None = None
    """finetune, few-shot-finetune: weight decay; 0.05 if not given."""
    layer_decay: float | None = None
    """finetune, few-shot-finetune: factor of the learning rate from a layer to the one below it; 0.75 for vision
    transformers and 1 for other networks if not given."""
    warmup_epochs: float | None = None
    """finetune: epochs over which the learning rate rises; 1 if not given, few-shot-finetune: 5."""
    label_smoothing: float | None = None
    """finetune, few-shot-finetune: label smoothing; 0 if not given."""


SHARED = ("run", "protocol", "data", "data_root", "download", "device", "batch_size", "limit", "seed", "workers",
          "skip_corrupt", "baselines_from")  # fmt: skip


@dataclass
class Report:
    """What to show."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    data_root: Path | None = None
    """Folder of the downloaded sets, where the run's own is not right any more."""
    download: bool = False
    """Fetch the examples if they are not there yet."""
    device: str | None = None
    """Where features are computed: cpu, cuda, cuda:1, …; CUDA if there is a device and none is given."""


def evaluate(arguments: Sequence[str]) -> int:
    """Run `sslfast evaluate`; returns the exit code."""
    about = "Judge a run's backbone beside baselines that learned nothing, and write it to RUN/results.json."
    chosen = parse(Evaluate, arguments, command="evaluate", about=about)
    from sslfast.evaluate import PROTOCOLS, Evaluation

    options = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    shared = {name: options.pop(name) for name in SHARED}
    run, protocols = shared.pop("run"), tuple(dict.fromkeys(shared.pop("protocol")))
    if not protocols:
        raise UsageError(f"--protocol wants one or several of {', '.join(PROTOCOLS)}")
    given = {name: value for name, value in options.items() if value is not None}
    known = {name: PROTOCOLS[name].settings for name in protocols}
    if unknown := [name for name in given if not any(name in settings for settings in known.values())]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
        raise UsageError(f"protocol {', '.join(protocols)} has no option {flags}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(shown())
        evaluation = Evaluation(run, **shared)
        stack.enter_context(saying_what_fits(f"try --batch-size {max(1, chosen.batch_size // 2)}"))
        for protocol in protocols:
            _show(evaluation.judge(protocol, **{k: v for k, v in given.items() if k in known[protocol]}))
    print(f"written to {run / 'results.json'}; next: sslfast report {shlex.quote(str(run))}")
    return 0


def _show(result: dict[str, Any]) -> None:
    """A result's headline beside its baselines, and what else it measured."""
    from sslfast.report.names import BASELINES
    from sslfast.report.verdict import spread_of, verdict

    metric = result["metric"]
    form = "{:7.2%}" if metric == "accuracy" else "{:7.4f}"
    name = f"{result['protocol']} on {result['data']}" + ("" if metric == "accuracy" else f", {metric}")
    rows = {name: form.format(result[metric]) + (f" ± {result['std']:.2%}" if "std" in result else "")}
    rows |= {BASELINES.get(key, key): form.format(value) for key, value in result["baselines"].items()}
    rows |= {f"  {n} a class": f"{row['mean']:7.2%} ± {row['std']:.2%}" for n, row in result.get("shots", {}).items()}
    rows |= {f"  {key}": f"{value:7.4f}" for key, value in result.get("metrics", {}).items() if key != metric}
    if (spread := spread_of(result, "random_init")) is not None:
        rows[BASELINES["random_init"]] += f" ± {spread:.2%} over seeds"
    width = max(map(len, rows))
    for row, value in rows.items():
        print(f"{row:{width}}  {value}")
    details = {name: result, **{BASELINES.get(key, key): row for key, row in result["baseline_details"].items()}}
    if stopped := [who for who, detail in details.items() if detail.get("converged") is False]:
        print(f"not converged within --max-iter: {', '.join(stopped)}")
    if said := verdict(result):
        print(said)
    if "unreadable" in result:
        print(f"{len(result['unreadable'])} image files could not be read and were skipped; results.json names them")


def report(arguments: Sequence[str]) -> int:
    """Run `sslfast report`; returns the exit code."""
    about = "Write RUN/report.html: one page with curves, augmented pictures, features and results."
    chosen = parse(Report, arguments, command="report", about=about)
    from sslfast.report import build

    print(build(chosen.run, data_root=chosen.data_root, download=chosen.download, device=chosen.device))
    return 0
