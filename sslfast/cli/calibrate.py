"""`sslfast calibrate`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from sslfast.cli.parse import UsageError, parse
from sslfast.cli.pretrain import option
from sslfast.cli.progress import shown
from sslfast.config import ImageConfig
from sslfast.recipes import RECIPES, recipe_for
from sslfast.report import calibration
from sslfast.train import Interrupted
from sslfast.train import calibrate as sweeps

Config = TypeVar("Config", bound=ImageConfig)

USAGE = """usage: sslfast calibrate NAME [--strengths S S …] [OPTIONS]

Train a method that learns from images once for every strength of its augmentation, and show which strength suits it.

NAME is a method or a recipe as for sslfast pretrain, whose options this command has too; sslfast calibrate NAME --help
explains them. --epochs makes the trainings shorter. Strengths are judged on a fifth of the training images, held out
from the probes: the test images are left for sslfast evaluate.
"""


@dataclass
class SweepOptions:
    """What is swept, and where the runs are."""

    output: Path
    """Folder of the runs, calibrate.csv and calibrate.png. Finished runs in it are not trained again."""
    strengths: tuple[float, ...] = sweeps.STRENGTHS
    """Strengths to train with: 0 is no colour jitter and no crop, 1 the published augmentation."""
    download: bool = False
    """Fetch the images if they are not there yet."""


@dataclass
class Calibrate(Generic[Config]):
    """Everything on the command line of one sweep."""

    training: Config
    sweep: SweepOptions


def calibrate(arguments: Sequence[str]) -> int:
    """Run `sslfast calibrate`; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0 if arguments else 2
    name, options = arguments[0], list(arguments[1:])
    if name.startswith("-"):
        raise UsageError(f"calibrate wants the name of a method or recipe before {name}: {', '.join(RECIPES)}")
    if any(word.partition("=")[0] == "--strength" for word in options):
        raise UsageError("calibrate sweeps the strength: give --strengths, not --strength")
    recipe_name, recipe = recipe_for(name, option(options, "--data"), cpu=option(options, "--accelerator") == "cpu")
    if not isinstance(recipe.config, ImageConfig):
        raise UsageError(f"{name} learns from {recipe.config.modality}: only the augmentation of images has a strength")
    default = Calibrate(recipe.config, SweepOptions(Path("runs", f"{recipe_name}-calibrate")))
    about = f"Train by the recipe {recipe_name} at several strengths of the augmentation, and show which suits it, "
    about += "judged on a fifth of the training images that is held out from the probes."
    chosen = parse(Calibrate[type(recipe.config)], options, command=f"calibrate {name}", about=about, default=default)

    sweep, command = chosen.sweep, shlex.join(["sslfast", "calibrate", *arguments])
    how = {"strengths": sweep.strengths, "download": sweep.download, "command": command}
    try:
        with shown(sweeps.LOGGER.name):
            found = sweeps.calibrate(chosen.training, sweep.output, **how)
    except Interrupted as stopped:
        print(f"sslfast: {stopped}; continue with: {command}", file=sys.stderr)
        return 130
    print(calibration.table(found))
    print("written to {} and {}".format(*calibration.save(found, chosen.training, sweep.output)))
    return 0
