"""The run folder: whether a run may write there, and what it records about itself."""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import Any

import torch

from sslfast._files import write_text
from sslfast._info import commit, installed

CHECKPOINT = Path("checkpoints", "last.ckpt")
EXPORTED = "exported"
# Everything a run leaves behind, evaluation and report included; --overwrite removes these and nothing else.
CONTENTS = ("config.json", "environment.json", "train.log", "metrics.jsonl", "tensorboard", "checkpoints", EXPORTED,
            "results.json", ".results.lock", "report.html", "tokenizer.json")  # fmt: skip


def check_folder(run: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that this run must not write to.

    Raises:
        FileExistsError: it is not empty, and neither `resume` nor `overwrite` was asked for; or `overwrite` was, and
            it is no run folder.
        FileNotFoundError: `resume`, and there is no checkpoint to resume from.
        NotADirectoryError: it is a file.
    """
    if run.exists() and not run.is_dir():
        raise NotADirectoryError(f"{run} is not a folder")
    occupied = run.exists() and any(run.iterdir())
    if resume:
        if not (run / CHECKPOINT).is_file():
            raise FileNotFoundError(f"{run} has no checkpoint to resume from: {run / CHECKPOINT} is not there")
    elif occupied and not overwrite:
        raise FileExistsError(f"{run} is not empty: continue it with --resume or replace it with --overwrite")
    elif occupied and not (run / "config.json").is_file():
        raise FileExistsError(f"{run} is not empty and has no config.json, so it is no run: not overwritten")


def clear_folder(run: Path) -> None:
    """Remove what an earlier run left in `run`, and nothing else."""
    for name in CONTENTS:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def write_config(run: Path, config: dict[str, Any]) -> None:
    """Write config.json, and `run` itself if it is not there."""
    run.mkdir(parents=True, exist_ok=True)
    write_text(run / "config.json", json.dumps(config, indent=2) + "\n")


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
        first = json.loads(path.read_text())
        environment = {**first, "resumed": [*first.get("resumed", []), environment]}
    write_text(path, json.dumps(environment, indent=2) + "\n")
