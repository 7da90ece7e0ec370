"""How strong should the augmentation be? A short training a strength, and what each has learned."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sslfast.augment import ViewSampler
from sslfast.config import ImageConfig
from sslfast.data import located
from sslfast.data.registry import tells_apart
from sslfast.evaluate import Run, alignment, extract_features, knn_accuracy, linear_probe, uniformity
from sslfast.evaluate.task import choose_device
from sslfast.train.pretrain import ensure_trained

LOGGER = logging.getLogger("sslfast.calibrate")  # apart from what each training says, which RunLog shows
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
        output: the folder of the runs.
        strengths: at least one, each >= 0 and there once.
        download: fetch the images if they are not there.
        command: how the sweep was started, for the runs' environment.json.

    Raises:
        ValueError: the method does not learn from images; a strength is out of range or there twice; several devices
            are asked for; the images have no labels; a run of other settings is in the way.
    """
    if not isinstance(config, ImageConfig):
        raise ValueError(f"config must be of a method that learns from images, got one of {config.method}")
    if not strengths or min(strengths) < 0 or len(set(strengths)) < len(strengths):
        raise ValueError(f"strengths must be different numbers >= 0, at least one, got {tuple(strengths)}")
    if config.devices * config.nodes > 1:
        raise ValueError(f"devices and nodes must be 1 for a sweep, got {config.devices} and {config.nodes}")
    data = located(config.data)
    if not tells_apart(data, source_size=config.source_side, skip_corrupt=config.skip_corrupt):
        raise ValueError(f"data must have labels to judge by, of two classes or more, which {data} has not")
    output = Path(output)
    points: list[Point] = []
    for strength in sorted(map(float, strengths)):
        done, run = len(points), output / f"strength-{strength:g}"
        LOGGER.info("strength %g: %d of %d, %d left", strength, done + 1, len(strengths), len(strengths) - done - 1)
        ensure_trained(replace(config, strength=strength, knn_every=0), run, download=download, command=command)
        points.append(judge(Run(run), strength=strength))
    LOGGER.info("random init")
    held_out = len(hold_out(len(Run(run).modality.load("train")), config.seed)[1])
    return Calibration(tuple(points), judge(Run(run), Run(run).initial_backbone()), held_out)


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
