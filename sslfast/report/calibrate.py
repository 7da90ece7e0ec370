"""How strong should the augmentation be? A short training a strength, and what each has learned."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslfast._extras import require
from sslfast._files import printable, replacing
from sslfast.augment import ViewSampler
from sslfast.config import ImageConfig
from sslfast.evaluate import Run, alignment, extract_features, knn_accuracy, linear_probe, uniformity
from sslfast.evaluate.task import choose_device
from sslfast.report.figures import BLUE, GRAY, TEN
from sslfast.report.names import BASELINES
from sslfast.train import ensure_trained

STRENGTHS = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)
ERRORS = 2  # standard errors of the best accuracy within which another one is as good


@dataclass(frozen=True)
class Point:
    """What a network is worth on the held-out images. Accuracies in [0, 1]; `strength` is None for random init.

    alignment and uniformity are those of backbone features, alignment between two views of the published strength,
    whatever strength the network was trained with.
    """

    strength: float | None
    linear: float
    knn: float
    alignment: float
    uniformity: float


@dataclass(frozen=True)
class Calibration:
    """A sweep: its points in rising order of strength, random init, how many images the accuracies are of."""

    points: tuple[Point, ...]
    random_init: Point
    held_out: int

    @property
    def best(self) -> Point:
        """The point with the best linear probe, the weaker of two that are equal."""
        return max(self.points, key=lambda point: point.linear)

    @property
    def zones(self) -> list[str]:
        """For every point "too weak", "right" or "too strong", as far as its linear probe carries it.

        Right is what lies between the weakest and the strongest point that the best one does not beat by more than two
        standard errors of its accuracy, √(p (1 − p) / images). That is the error of the held-out images; how much
        another seed of the training would change is not in it.
        """
        p = self.best.linear
        least = p - ERRORS * (p * (1 - p) / self.held_out) ** 0.5
        good = [k for k, point in enumerate(self.points) if point.linear >= least]
        names = ("too weak", "right", "too strong")
        return [names[(k >= good[0]) + (k > good[-1])] for k in range(len(self.points))]


def calibrate(
    config: ImageConfig,
    output: str | Path,
    *,
    strengths: Sequence[float] = STRENGTHS,
    download: bool = False,
    command: str | None = None,
) -> Calibration:
    """Train by `config` once for every strength and judge what came out, beside random init.

    The runs are the folders output/strength-S; those that are finished are not trained again. Linear probe and kNN have
    the defaults of `evaluate`, but no test image is looked at, since the figures are there to choose by: they learn
    from four fifths of the training images and are judged on the fifth that is held out from them. The networks
    themselves, which see no labels, are trained on all training images.

    Args:
        config: of the method; its own strength and knn_every play no part.
        output: the folder of the runs; calibrate.csv and calibrate.png are written there too.
        strengths: at least one, each >= 0 and there once.
        download: fetch the images if they are not there.
        command: how the sweep was started, for the runs' environment.json.

    Raises:
        ValueError: the method does not learn from images; a strength is out of range or there twice; several devices
            are asked for; a run of other settings is in the way.
    """
    if not isinstance(config, ImageConfig):
        raise ValueError(f"config must be of a method that learns from images, got one of {config.method}")
    if not strengths or min(strengths) < 0 or len(set(strengths)) < len(strengths):
        raise ValueError(f"strengths must be different numbers >= 0, at least one, got {tuple(strengths)}")
    if config.devices * config.nodes > 1:
        raise ValueError(f"devices and nodes must be 1 for a sweep, got {config.devices} and {config.nodes}")
    output = Path(output)
    points = []
    for strength in sorted(map(float, strengths)):
        run = output / f"strength-{strength:g}"
        ensure_trained(replace(config, strength=strength, knn_every=0), run, download=download, command=command)
        points.append(judge(Run(run), strength=strength))
    held_out = len(hold_out(len(Run(run).modality.load("train")), config.seed)[1])
    sweep = Calibration(tuple(points), judge(Run(run), Run(run).initial_backbone()), held_out)
    write(sweep, output / "calibrate.csv")
    title = (
        f"{config.method} with {config.backbone} on {printable(config.data.rpartition('/')[2])}, preset {config.preset}"
    )
    draw(sweep, output / "calibrate.png", title=title)
    return sweep


def judge(run: Run, backbone: nn.Module | None = None, *, strength: float | None = None) -> Point:
    """What a backbone, the run's last one if None, is worth on the images of the run's data that are held out."""
    config, device = run.settings, choose_device(None)
    images = run.modality.load("train")
    rest, held = hold_out(len(images), config.seed)
    backbone = (backbone or run.backbone()).to(memory_format=torch.channels_last)
    options: dict[str, Any] = {"device": device, "workers": config.workers}
    x, y = extract_features(backbone, images, inputs=run.modality.inputs, **options)
    features = x[rest], y[rest], x[held], y[held]
    generator = torch.Generator(device).manual_seed(config.seed)
    views = (_views(run, sampler, generator) for sampler in ViewSampler.pair(config.preset, config.image_size))
    z1, z2 = (extract_features(backbone, images, inputs=view, indices=held, **options)[0] for view in views)
    return Point(
        strength,
        linear=linear_probe(*features)["accuracy"],
        knn=knn_accuracy(*features),
        alignment=alignment(z1, z2),
        uniformity=uniformity(x[held]),
    )


def hold_out(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Training images to learn from, and a fifth of them to judge on: indices, ascending."""
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    held = max(1, images // 5)
    return order[held:].sort().values, order[:held].sort().values


def _views(run: Run, sampler: ViewSampler, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Images to the backbone's input by way of a random view of each."""

    def inputs(images: Tensor) -> Tensor:
        return run.modality.inputs(sampler.view(images, generator=generator).clamp(0, 1))

    return inputs


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
