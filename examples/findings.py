"""What the papers found, tried again at small scale: does it hold here?

    python examples/findings.py                                   # everything, on crops of photographs, on a CPU
    python examples/findings.py --only strength head --seeds 0 1 2 3 4
    python examples/findings.py --data folder:PATH --epochs 20

Every experiment trains the same recipe with one thing changed, by `sslfast.train` and judged by `sslfast.evaluate`, for
several seeds. Whether a finding is reproduced is decided by the rules in `verdict` and `collapse_verdict`, which were
written before the runs. Finished runs are kept: the script goes on where it was stopped.

In --output: runs/, findings.csv (a row a run), findings.md (a row a finding), findings.png (a panel a finding).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import statistics
import sys
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sslfast.config import ImageConfig
from sslfast.evaluate import Run, evaluate, read_results, standard_result
from sslfast.methods import METHODS
from sslfast.recipes import recipe_for
from sslfast.train import ensure_trained

POINT = 0.01  # of accuracy: what a difference must exceed to count at all
ERRORS = 2  # standard errors it must exceed too
RULES = f"""\
Measured is the linear probe's accuracy on the test images in %, mean ± standard deviation over the seeds. A finding is
reproduced if the difference, paired by seed, is above {100 * POINT:g} point and above {ERRORS} of its standard errors
(of one seed the point alone decides); "the opposite" if so the other way round. One about collapse is reproduced if
the collapse alarm rang in every run without the part and in none with it."""


@dataclass(frozen=True)
class Finding:
    """What is claimed, and the settings that show it: fields of the method's configuration, by a name for each.

    `better` should beat `worse`; without them the claim is that the first setting does not collapse and the others do.
    `common` is what the settings share beside the recipe.
    """

    claim: str
    source: str
    method: str
    settings: dict[str, dict[str, Any]]
    better: str = ""
    worse: str = ""
    common: dict[str, Any] = field(default_factory=lambda: {"image_size": 16, "batch_size": 128})


SIMCLR, SIMSIAM = "Chen et al. 2020, arXiv:2002.05709", "Chen & He 2020, arXiv:2011.10566"
BYOL, MAE = "Grill et al. 2020, arXiv:2006.07733", "He et al. 2021, arXiv:2111.06377"

# A higher learning rate than the recipes', so that what collapses has done so within a few epochs.
COLLAPSE = {"image_size": 16, "batch_size": 64, "learning_rate": 0.4}


def without(switch: str, method: str, source: str, epochs: float = 1.0) -> Finding:
    """The claim that a part keeps a method from collapsing."""
    part = switch.replace("_", "-")
    settings = {"as published": {}, f"no {part}": {switch: False}}
    common = {**COLLAPSE, "epochs": epochs}
    return Finding(
        f"the {part} keeps {METHODS[method].__name__} from collapsing", source, method, settings, common=common
    )


# "epochs" is relative to --epochs, everything else is a field as it is.
FINDINGS: dict[str, Finding] = {
    "strength": Finding(
        "strong augmentation helps SimCLR",
        f"{SIMCLR}, section 3",
        "simclr",
        {"strength 0": {"strength": 0.0}, "strength 0.5": {"strength": 0.5}, "strength 1": {}},
        better="strength 1",
        worse="strength 0",
    ),
    "batch": Finding(
        "bigger batches help SimCLR, at the same number of epochs",
        f"{SIMCLR}, section 5.2",
        "simclr",
        {"batch 32": {"batch_size": 32}, "batch 128": {}, "batch 512": {"batch_size": 512}},
        better="batch 512",
        worse="batch 32",
    ),
    "batch-steps": Finding(
        "bigger batches help SimCLR, at the same number of steps",
        f"{SIMCLR}, section 5.2, with the steps instead of the epochs kept",
        "simclr",
        {"batch 32": {"batch_size": 32, "epochs": 0.25}, "batch 128": {}},
        better="batch 128",
        worse="batch 32",
    ),
    "length": Finding(
        "longer training helps SimCLR",
        f"{SIMCLR}, section 5.2",
        "simclr",
        {"a quarter": {"epochs": 0.25}, "whole": {}, "twice": {"epochs": 2.0}},
        better="twice",
        worse="a quarter",
    ),
    "head": Finding(
        "a non-linear projection head helps SimCLR's features before it",
        f"{SIMCLR}, section 4.2",
        "simclr",
        {"linear head": {"projection_layers": 1}, "non-linear head": {}},
        better="non-linear head",
        worse="linear head",
    ),
    "simsiam-stop-gradient": without("stop_gradient", "simsiam", f"{SIMSIAM}, section 4.1", 2.5),
    "simsiam-predictor": without("predictor", "simsiam", f"{SIMSIAM}, section 4.2", 2.5),
    "byol-target": without("stop_gradient", "byol", f"{BYOL}, section 5"),
    "byol-predictor": without("predictor", "byol", f"{BYOL}, section 5"),
    "mask": Finding(
        "masking 75 % of the patches beats 25 % for MAE",
        f"{MAE}, section 4.1",
        "mae",
        {"25 %": {"mask_ratio": 0.25}, "75 %": {"mask_ratio": 0.75}},
        better="75 %",
        worse="25 %",
        common={"epochs": 1.25},
    ),
}


@dataclass(frozen=True)
class Measured:
    """One run: the linear probe on the backbone's features of the test images, in [0, 1], and the state at the end."""

    finding: str
    setting: str
    seed: int
    accuracy: float
    random: float
    loss: float
    std: float
    effective_rank: float
    alarm: bool
    run: str


def verdict(better: list[float], worse: list[float]) -> tuple[str, float, float | None]:
    """Whether one setting beats another by the accuracies of runs with the same seeds, in that order.

    "yes" if the mean difference is above one point and above two standard errors of itself; "the opposite" if that
    holds the other way round; "no" otherwise. With one seed there is no standard error, and one point decides.

    Returns:
        the word, the mean difference, its standard error (None with one seed).
    """
    apart = [a - b for a, b in zip(better, worse, strict=True)]
    mean = statistics.fmean(apart)
    error = statistics.stdev(apart) / len(apart) ** 0.5 if len(apart) > 1 else None
    clear = abs(mean) > POINT and abs(mean) > ERRORS * (error or 0)
    return ("no" if not clear else "yes" if mean > 0 else "the opposite"), mean, error


def collapse_verdict(alarms: dict[str, list[bool]]) -> str:
    """ "yes" if the alarm rang in every run of all settings but the first, and in none of the first; else "no"."""
    first, *others = alarms.values()
    return "yes" if not any(first) and all(map(all, others)) else "no"


def configuration(finding: Finding, setting: str, seed: int, *, data: str, epochs: int) -> ImageConfig:
    """The recipe for digits or for photographs, with what the finding changes."""
    digits = data == "digits"
    recipe = recipe_for(finding.method, "digits" if digits else "photos")[1].config
    changes = {**finding.common, **finding.settings[setting]}
    if digits:
        changes.pop("image_size", None)  # they are small enough
    length = max(1, round(epochs * changes.pop("epochs", 1)))
    fixed = {"data": data, "seed": seed, "epochs": length, "warmup_epochs": length / 10, "knn_every": 0, "workers": 0}
    return replace(recipe, **fixed, **changes)


def measure(finding: str, setting: str, config: ImageConfig, folder: Path) -> Measured:
    """Train and judge, unless that is done. Findings share runs, and runs their baselines, where they are the same."""
    digest = hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()[:10]
    path = folder / f"{config.method}-{digest}"
    ensure_trained(config, path)
    others = [other for other in sorted(folder.iterdir()) if read_results(other) and other != path]
    result = standard_result(path, "linear") or evaluate(path, "linear", workers=0, baselines_from=others)
    last = Run(path).metrics[-1]
    return Measured(
        finding, setting, config.seed, result["accuracy"], result["baselines"]["random_init"],
        last["loss"], last["std"], last["effective_rank"],
        "the embeddings have collapsed" in (path / "train.log").read_text(), path.name,
    )  # fmt: skip


def by_setting(found: list[Measured], finding: str, column: str) -> dict[str, list[Any]]:
    """The values of a column, for every setting those of its seeds."""
    values: dict[str, list[Any]] = {}
    for measured in found:
        if measured.finding == finding:
            values.setdefault(measured.setting, []).append(getattr(measured, column))
    return values


def summary(found: list[Measured], name: str) -> tuple[str, str, str]:
    """What was measured, the difference that decides, and whether the finding is reproduced."""
    finding = FINDINGS[name]
    accuracy = {k: [100 * x for x in values] for k, values in by_setting(found, name, "accuracy").items()}
    measured = [f"{k}: {spread(values)}" for k, values in accuracy.items()]
    if finding.better:
        own = by_setting(found, name, "accuracy")
        word, mean, error = verdict(own[finding.better], own[finding.worse])
        return "; ".join(measured), f"{100 * mean:+.1f}" + (f" ± {100 * error:.1f}" if error is not None else ""), word
    alarms, stds = by_setting(found, name, "alarm"), by_setting(found, name, "std")
    told = [f"{k}: alarm in {sum(alarms[k])} of {len(alarms[k])}, std {statistics.fmean(stds[k]):.2f}" for k in alarms]
    states = [f"{state}, probe {spread(accuracy[k])}" for k, state in zip(alarms, told)]
    return "; ".join(states), "", collapse_verdict(alarms)


def spread(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def write(folder: Path, found: list[Measured], about: str) -> None:
    """findings.csv, findings.md and findings.png."""
    with open(folder / "findings.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(asdict(found[0])))
        writer.writeheader()
        writer.writerows(map(asdict, found))
    names = list(dict.fromkeys(measured.finding for measured in found))
    lines = ["# Findings at small scale", "", about, "", RULES, ""]
    lines += ["| finding | measured | difference | reproduced |", "|---|---|---|---|"]
    for name in names:
        lines.append(f"| {FINDINGS[name].claim} ({FINDINGS[name].source}) | {' | '.join(summary(found, name))} |")
    (folder / "findings.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(folder / "findings.png", found, names)


def draw(path: Path, found: list[Measured], names: list[str]) -> None:
    """A panel a finding: a dot a run, a line the mean; accuracy, or how spread out the embeddings are."""
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 3 * rows), dpi=120, layout="constrained")
    for axes, name in zip(figure.subplots(rows, columns, squeeze=False).flat, names):
        finding = FINDINGS[name]
        accuracy = bool(finding.better)
        values = by_setting(found, name, "accuracy" if accuracy else "std")
        for k, own in enumerate(values.values()):
            shown = [100 * value for value in own] if accuracy else own
            axes.hlines(statistics.fmean(shown), k - 0.3, k + 0.3, color="#4a86c5", linewidth=3)
            axes.plot([k] * len(own), shown, "o", color="#24507f", markersize=4)
        random_init = 100 * statistics.fmean(measured.random for measured in found if measured.finding == name)
        level = random_init if accuracy else METHODS[finding.method].collapse_std
        axes.axhline(level, color="#8c95a1", linestyle="--", linewidth=1)
        axes.annotate("random init" if accuracy else "alarm", (1, level), xycoords=("axes fraction", "data"),
                      ha="right", va="bottom", fontsize=7, color="#5c6571")  # fmt: skip
        axes.set_xlim(-0.5, len(values) - 0.5)
        if not accuracy:
            axes.set_ylim(0, 1.05)
        axes.set_xticks(range(len(values)), list(values), fontsize=7.5)
        axes.set_ylabel("linear probe, %" if accuracy else "std of the embeddings", fontsize=8)
        axes.set_title(f"{name}: reproduced? {summary(found, name)[2]}", fontsize=8.5)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in figure.axes[len(names) :]:
        axes.set_visible(False)
    figure.savefig(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(FINDINGS), default=list(FINDINGS), metavar="NAME",
                        help=f"of {', '.join(FINDINGS)} (all)")  # fmt: skip
    parser.add_argument("--data", default="photos", help="photos, digits or folder:PATH (%(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="of an ordinary run (%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(0 1 2)")
    parser.add_argument("--output", type=Path, default=Path("runs", "findings"), help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one epoch, two seeds: shows that it runs, nothing else")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.epochs, arguments.seeds = 1, [0, 1]
    data = arguments.data.partition(":")[0]
    about = f"Data {data}, ordinary runs of {arguments.epochs} epochs, seeds {', '.join(map(str, arguments.seeds))}."
    found: list[Measured] = []
    for name in arguments.only:
        for setting in FINDINGS[name].settings:
            for seed in arguments.seeds:
                finding = FINDINGS[name]
                config = configuration(finding, setting, seed, data=arguments.data, epochs=arguments.epochs)
                found.append(measure(name, setting, config, arguments.output / "runs"))
        write(arguments.output, found, about)
        print(f"{FINDINGS[name].claim}: {', '.join(filter(None, summary(found, name)))}", flush=True)
    print(f"written to {arguments.output}: findings.md, findings.csv, findings.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
