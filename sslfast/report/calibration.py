"""What a sweep over strengths of the augmentation has found, as a table, a file and a picture."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sslfast._extras import require
from sslfast._files import printable, replacing
from sslfast.config import ImageConfig
from sslfast.report.figures import BLUE, GRAY, TEN
from sslfast.report.names import BASELINES
from sslfast.train.calibrate import Calibration


def save(sweep: Calibration, config: ImageConfig, folder: Path) -> tuple[Path, Path]:
    """Write calibrate.csv and calibrate.png into `folder`, and return their paths; `config` is what was trained by."""
    data = printable(config.data.rpartition("/")[2])
    title = f"{config.method} with {config.backbone} on {data}, preset {config.preset}"
    write(sweep, folder / "calibrate.csv")
    draw(sweep, folder / "calibrate.png", title=title)
    return folder / "calibrate.csv", folder / "calibrate.png"


def write(sweep: Calibration, path: Path) -> None:
    """A row a strength; the last one, without a strength, is random init."""
    with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*asdict(sweep.random_init), "zone"])
        writer.writeheader()
        for point, zone in zip((*sweep.points, sweep.random_init), (*sweep.zones, BASELINES["random_init"])):
            writer.writerow({**asdict(point), "zone": zone})


def table(sweep: Calibration) -> str:
    """The same as aligned text, accuracies in percent."""
    lines = [f"on {sweep.held_out} held-out training images"]
    lines += [f"{'strength':>11}  {'linear':>7}  {'kNN':>7}  {'alignment':>9}  {'uniformity':>10}"]
    for point, zone in zip((*sweep.points, sweep.random_init), (*sweep.zones, "")):
        name = BASELINES["random_init"] if point.strength is None else f"{point.strength:g}"
        best = ", the best" if point is sweep.best else ""
        figures = f"{point.linear:7.2%}  {point.knn:7.2%}  {point.alignment:9.4f}  {point.uniformity:10.3f}"
        lines.append(f"{name:>11}  {figures}  {zone}{best}".rstrip())
    return "\n".join(lines)


def draw(sweep: Calibration, path: Path, *, title: str) -> None:
    """Accuracy, alignment and uniformity against strength; .png, .jpg, .pdf or .svg."""
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "text.parse_math": False}
    with require("matplotlib", extra="train").rc_context(style):
        figure = require("matplotlib.figure", extra="train").Figure(figsize=(11, 3.6), dpi=120, layout="constrained")
        figure.suptitle(title, fontsize=10)
        accuracy, *others = figure.subplots(1, 3)
        for name, label, colour in (("linear", "linear probe", BLUE), ("knn", "kNN", TEN[6])):
            _line(accuracy, sweep, name, colour, label, percent=True)
        _zones(accuracy, sweep)
        accuracy.axvline(sweep.best.strength, color=BLUE, linewidth=1, linestyle=":")
        accuracy.set(ylabel="accuracy on held-out training images, %")
        accuracy.legend(frameon=False, fontsize=8)
        for axes, name, better in zip(others, ("alignment", "uniformity"), ("views closer", "more evenly spread")):
            _line(axes, sweep, name, BLUE, name)
            axes.set(ylabel=f"{name} (lower: {better})")
        for axes in (accuracy, *others):
            axes.set(xlabel="strength of the augmentation in training")
            axes.grid(alpha=0.3)
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:])


def _line(axes: Any, sweep: Calibration, name: str, colour: str, label: str, *, percent: bool = False) -> None:
    factor = 100 if percent else 1
    strengths = [point.strength for point in sweep.points]
    axes.plot(strengths, [factor * getattr(point, name) for point in sweep.points], "o-", color=colour, label=label)
    level = factor * getattr(sweep.random_init, name)
    axes.axhline(level, color=colour, linestyle="--", linewidth=1, alpha=0.7)
    axes.annotate(BASELINES["random_init"], (1, level), xycoords=("axes fraction", "data"), ha="right",
                  va="bottom", fontsize=7.5, color=colour)  # fmt: skip


def _zones(axes: Any, sweep: Calibration) -> None:
    """The zones as shades, with borders halfway between the points."""
    strengths, zones = [point.strength for point in sweep.points], sweep.zones
    for zone in dict.fromkeys(zones):
        inside = [k for k, name in enumerate(zones) if name == zone]
        first, last = inside[0], inside[-1]
        left = (strengths[first] + strengths[max(first - 1, 0)]) / 2
        right = (strengths[last] + strengths[min(last + 1, len(zones) - 1)]) / 2
        axes.axvspan(left, right, color=BLUE if zone == "right" else GRAY, alpha=0.12, linewidth=0)
        where = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "bottom", "fontsize": 8}
        axes.annotate(zone, ((left + right) / 2, 1), **where)
