"""`sslfast evaluate` and `sslfast report`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sslfast._extras import require
from sslfast.cli.parse import UsageError, parse

tyro = require("tyro", extra="train")


@dataclass
class Evaluate:
    """What to judge, and how."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""
    protocol: Literal["linear", "knn"] = "linear"
    """linear: logistic regression on the frozen features; knn: a weighted vote of the nearest training images."""
    data: str | None = None
    """Another data set to judge it on; the run's own if not given."""
    data_root: Path | None = None
    """Folder of the downloaded sets; the data sets' own default if not given."""
    download: bool = False
    """Fetch the images if they are not there yet."""
    device: str | None = None
    """Where features are computed: cpu, cuda, cuda:1, …; CUDA if there is a device and none is given."""
    batch_size: int = 256
    """Images a forward pass."""
    limit: int | None = None
    """At most this many images of each split, drawn at random; all if not given."""
    seed: int | None = None
    """Seed of that draw; the run's own if not given."""
    workers: int = 4
    """Processes that decode images which do not fit in memory."""
    skip_corrupt: bool = False
    """Go on without image files that cannot be read, and name them in results.json; always if the training did."""
    k: int | None = None
    """knn: neighbours that vote; 200, or 20 below 10,000 training images, if not given."""
    temperature: float | None = None
    """knn: temperature of the votes; 0.1 if not given."""
    C: float | None = None
    """linear: inverse strength of the L2 penalty; 0.1 if not given."""
    max_iter: int | None = None
    """linear: L-BFGS iterations at most; 300 if not given."""


@dataclass
class Report:
    """What to show."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run folder."""


def evaluate(arguments: Sequence[str]) -> int:
    """Run `sslfast evaluate`; returns the exit code."""
    about = "Judge a run's backbone beside two baselines, and write it to RUN/results.json."
    chosen = parse(Evaluate, arguments, command="evaluate", about=about)
    from sslfast import evaluate as protocols

    options = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    run, protocol = options.pop("run"), options.pop("protocol")
    own = {name: options.pop(name) for name in ("k", "temperature", "C", "max_iter")}
    try:
        result = protocols.evaluate(run, protocol, **options, **{k: v for k, v in own.items() if v is not None})
    except TypeError as error:
        if "has no option" not in str(error):
            raise
        raise UsageError(str(error)) from error
    rows = {f"{protocol} on {result['data']}": result["accuracy"]}
    names = {"pixels": "raw pixels", "random_init": "random network"}
    rows |= {names.get(key, key): value for key, value in result["baselines"].items()}
    width = max(map(len, rows))
    for name, accuracy in rows.items():
        print(f"{name:{width}}  {accuracy:7.2%}")
    if "unreadable" in result:
        print(f"{len(result['unreadable'])} image files could not be read and were skipped; results.json names them")
    print(f"written to {run / 'results.json'}; next: sslfast report {run}")
    return 0


def report(arguments: Sequence[str]) -> int:
    """Run `sslfast report`; returns the exit code."""
    about = "Write RUN/report.html: one page with curves, augmented pictures, features and results."
    chosen = parse(Report, arguments, command="report", about=about)
    from sslfast.report import build

    print(build(chosen.run))
    return 0
