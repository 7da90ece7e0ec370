"""The run folder: whether a run may write there, and what it records about itself."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from sslfast._files import write_text
from sslfast._info import commit, installed
from sslfast.checkpoint import CHECKPOINT, earlier_checkpoints
from sslfast.config import PretrainConfig, differences
from sslfast.evaluate import Run
from sslfast.train.lock import LOCK

CONFIG = "config.json"
UNDECIDED = (LOCK, f"{CONFIG}.tmp")  # what a process may leave that was killed before it wrote anything

EXPORTED = "exported"
# Everything a run leaves behind, evaluation and report included; --overwrite removes these and nothing else. The
# configuration, which says that the folder is a run's, goes last.
CONTENTS = ("environment.json", "train.log", "metrics.jsonl", "tensorboard", "wandb", "logger.json", "checkpoints",
            EXPORTED, "results.json", ".results.lock", "report.html", "tokenizer.json", CONFIG)  # fmt: skip

Resume = bool | Literal["auto"]
Beginning = Literal["new", "resume"]


def beginning(run: Path, config: PretrainConfig, *, resume: Resume, overwrite: bool) -> Beginning:
    """How a training in the folder begins: from nothing, or from a checkpoint. Nothing is written.

    Raises:
        FileExistsError: there is something that must not be written over; the message says what, and which option
            would do.
        FileNotFoundError: `resume`, and there is no checkpoint to resume from.
    """
    begun, occupied = (run / CONFIG).is_file(), any(path.name not in UNDECIDED for path in run.iterdir())
    saved = (run / CHECKPOINT).is_file() or bool(earlier_checkpoints(run))
    if resume and saved:
        return "resume"
    if occupied and not begun:
        hint = "not overwritten" if overwrite else "choose another folder"
        raise FileExistsError(f"{run} is not empty and has no {CONFIG}, so it is no run: {hint}")
    if overwrite:
        return "new"
    if not occupied:
        if resume is True:
            raise FileNotFoundError(f"{run} has no checkpoint to resume from: {run / CHECKPOINT} is not there")
        return "new"
    if saved:
        raise FileExistsError(f"{run} is not empty: {_what_is_there(run, config)}")
    if (run / EXPORTED).exists():
        raise FileExistsError(f"{run} has a finished run without its checkpoints: replace it with --overwrite")
    if resume == "auto":  # what is there ended before its first checkpoint: nothing is lost
        return "new"
    kind = FileNotFoundError if resume else FileExistsError
    raise kind(f"{run} has a run without a checkpoint to resume from: --resume auto or --overwrite begins it anew")


def _what_is_there(run: Path, config: PretrainConfig) -> str:
    """The run that is there, and which option suits."""
    found = Run(run)
    if changed := differences(found.settings.to_dict(), config.to_dict()):
        return f"it has a run of other settings ({'; '.join(changed)}), which --overwrite would replace"
    state = "a finished run" if found.finished else "an unfinished run"
    return f"it has {state} of these settings: continue it with --resume or replace it with --overwrite"


def clear_temporary(run: Path) -> None:
    """Remove the halves of files that a process left which was killed while it wrote them."""
    for folder in (run, run / CHECKPOINT.parent, run / EXPORTED):
        for path in folder.glob("*.tmp"):
            path.unlink()


def clear_folder(run: Path, contents: Sequence[str] = CONTENTS) -> None:
    """Remove what an earlier run left in `run`, or a part of it, and nothing else."""
    for name in contents:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def write_config(run: Path, config: dict[str, Any]) -> None:
    """Write config.json."""
    write_text(run / CONFIG, json.dumps(config, indent=2) + "\n")


def write_environment(
    run: Path,
    *,
    device: torch.device,
    processes: int,
    command: str | None,
    init_from: dict[str, str] | None = None,
    resume: bool = False,
) -> None:
    """Write environment.json: versions, device, command and commit, and the weights that training began with.

    With `resume` what is there stays, and the same of this process is added to its list "resumed".
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    packages = installed()
    environment = {
        "sslfast": packages.pop("sslfast"),
        "commit": commit(),
        "command": command,
        "python": packages.pop("python"),
        "platform": platform.platform(),
        "packages": packages,
        "device": {"type": device.type, "name": name, "processes": processes, "threads": torch.get_num_threads()},
        **({"init_from": init_from} if init_from else {}),
    }
    path = run / "environment.json"
    if resume and path.is_file():
        first = Run(run).environment
        environment = {**first, "resumed": [*first.get("resumed", []), environment]}
    write_text(path, json.dumps(environment, indent=2) + "\n")
