"""`sslfast pretrain`, and `sslfast recipes`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

from sslfast._words import aligned, nearest
from sslfast.cli.parse import UsageError, parse
from sslfast.config import PretrainConfig
from sslfast.evaluate import Run
from sslfast.recipes import RECIPES, recipe_for

Config = TypeVar("Config", bound=PretrainConfig)

# What options are called elsewhere, where what is spelled alike here is another one.
ELSEWHERE = {"--lr": "--learning-rate", "--wd": "--weight-decay", "--device": "--accelerator", "--gpus": "--devices"}
RESUME = {"no": False, "yes": True, "auto": "auto"}
USAGE = """usage: sslfast pretrain NAME [OPTIONS]

Train a network without labels, and leave everything in the run folder.

NAME is a method, which takes the recipe for its --data, or a recipe by its own name:
{recipes}

A method of your own is module:Class, or a name that a module registers which --import MODULE brings.

sslfast pretrain NAME --help explains every option of NAME with its default.
sslfast pretrain --resume RUN continues a run as it was begun; --epochs N makes it longer.
"""


@dataclass
class RunOptions:
    """Where the run is, and how it begins."""

    output: Path
    """The run folder."""
    resume: Literal["no", "yes", "auto"] = "no"
    """Continue the run in that folder from its last checkpoint; give the same options as before. Without a value it is
    yes; auto begins a run that is not there, so that one command does for a job that is stopped and started again."""
    init_from: Path | None = None
    """Begin with the weights of this run, of what it exported, or of this checkpoint or file (.safetensors)."""
    overwrite: bool = False
    """Remove an earlier run in that folder first."""
    download: bool = False
    """Fetch the images if they are not there yet."""


@dataclass
class Pretrain(Generic[Config]):
    """Everything on the command line of one training."""

    training: Config
    run: RunOptions


def pretrain(arguments: Sequence[str]) -> int:
    """Run `sslfast pretrain`; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE.format(recipes=table()), end="")
        return 0 if arguments else 2
    chosen = read(arguments)
    from sslfast import train

    run = chosen.run
    command = ["sslfast", "pretrain", *arguments]
    try:
        summary = train.pretrain(
            chosen.training,
            run.output,
            resume=RESUME[run.resume],
            init_from=run.init_from,
            overwrite=run.overwrite,
            download=run.download,
            command=shlex.join(command),
        )
    except train.Interrupted as stopped:
        resume = shlex.join(["sslfast", "pretrain", "--resume", str(run.output)])
        print(f"sslfast: {stopped}; continue with: {resume}", file=sys.stderr)
        return 130
    if summary:
        print(f"run       {summary.run}")
        print(f"backbone  {next((summary.run / 'exported').glob('*.safetensors'))}")
        if summary.knn_accuracy is not None:
            print(f"kNN       {summary.knn_accuracy:.2%} on the test examples")
        if summary.skipped:
            print(f"skipped   {summary.skipped} unreadable image files, named in {summary.run / 'train.log'}")
        then = "evaluate {} --protocol linear" if summary.labelled else "report {}"
        print(f"next      sslfast {then.format(shlex.quote(str(summary.run)))}")
    return 0


def read(arguments: Sequence[str]) -> Pretrain:
    """What `sslfast pretrain` with these arguments, at least one, would do.

    Raises:
        UsageError: they do not fit. ValueError: a field is out of its range.
    """
    if arguments[0].partition("=")[0] == "--resume":
        return resumed(arguments)
    name, options = arguments[0], explicit(arguments[1:])
    if name.startswith("-"):
        raise UsageError(f"pretrain wants the name of a method or recipe before {name}: {', '.join(RECIPES)}")
    data, accelerator = (option(options, flag) for flag in ("--data", "--accelerator"))
    recipe_name, recipe = recipe_for(name, data, cpu=accelerator == "cpu")
    if recipe_name not in RECIPES:
        print(f"recipe {recipe_name} {recipe.about}", file=sys.stderr)
    default = Pretrain(recipe.config, RunOptions(Path("runs", recipe_name)))
    kind = Pretrain[type(recipe.config)]
    about = f"Train by the recipe {recipe_name}: {recipe.about}."
    return parse(kind, options, command=f"pretrain {name}", about=about, default=default)


def resumed(arguments: Sequence[str]) -> Pretrain:
    """What `sslfast pretrain --resume RUN` with these arguments would do: the run's own options are the defaults.

    Raises:
        UsageError: no run is named, or they do not fit. FileNotFoundError: it is no run.
    """
    words = iter(arguments)
    folder = next(words).partition("=")[2] or next(words, "")
    if not folder or folder.startswith("-"):
        raise UsageError("--resume wants the folder of a run, or the name of a method or recipe before it")
    run = Run(Path(folder))
    default = Pretrain(run.settings, RunOptions(run.folder, resume="yes"))
    about = f"Continue {folder} from its last checkpoint."
    command = f"pretrain --resume {folder}"
    return parse(Pretrain[type(run.settings)], list(words), command=command, about=about, default=default)


def explicit(options: Sequence[str]) -> list[str]:
    """The options, where a --resume without a value is --resume yes.

    Raises:
        UsageError: one has this name elsewhere only.
    """
    found = []
    for word, following in zip(options, [*options[1:], None]):
        if ours := ELSEWHERE.get(word.partition("=")[0]):
            raise UsageError(f"Unrecognized option {word}; perhaps {ours}")
        found.append("--resume=yes" if word == "--resume" and following not in RESUME else word)
    return found


def option(options: Sequence[str], flag: str) -> str | None:
    """The value of an option that decides the recipe, and so the defaults of all others."""
    found = None
    for word, following in zip(options, [*options[1:], None]):
        if word == flag:
            found = following
        elif word.startswith(f"{flag}="):
            found = word.removeprefix(f"{flag}=")
    return found


def table(words: Sequence[str] = ()) -> str:
    """The recipes, one a line; only those in whose line each of `words` is. One alone, or named, is in full below.

    Raises:
        UsageError: there is none.
    """
    rows = [("name", "method", "data", "backbone", "epochs", "batch", "optimizer", "about")]
    for name, recipe in RECIPES.items():
        config = recipe.config
        optimizer = f"{config.optimizer} {config.learning_rate:g}"
        numbers = (str(config.epochs), str(config.batch_size))
        rows.append((name, config.method, config.data, config.backbone, *numbers, optimizer, recipe.about))
    head, *every = rows
    rows = [head, *(row for row in every if all(word.lower() in " ".join(row).lower() for word in words))]
    if len(rows) == 1:
        known = " ".join(" ".join(row[:4]) for row in every).split()
        wrong = next((word for word in words if word not in known), words[0])
        raise UsageError(f"no recipe has {' and '.join(words)}{nearest(wrong, known)}")
    named = rows[1][0] if len(rows) == 2 else " ".join(words)
    if named not in RECIPES:
        return aligned(rows)
    settings = [(name, str(value)) for name, value in RECIPES[named].config.to_dict().items()]
    return "\n".join([aligned(rows), f"\n{named} (sslfast pretrain {named} --help explains these):", aligned(settings)])
