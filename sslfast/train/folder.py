"""The run folder: whether a run may write there, and what it records about itself."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from sslfast._version import __version__

CHECKPOINT = Path("checkpoints", "last.ckpt")
EXPORTED = "exported"
# Everything a run leaves behind, evaluation and report included; --overwrite removes these and nothing else.
CONTENTS = ("config.json", "environment.json", "train.log", "metrics.jsonl", "tensorboard", "checkpoints", EXPORTED,
            "results.json", ".results.lock", "report.html", "tokenizer.json")  # fmt: skip
PACKAGES = ("torch", "torchvision", "timm", "lightning-fabric", "numpy", "scikit-learn")


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
    (run / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_environment(run: Path, *, device: torch.device, processes: int, command: str | None) -> None:
    """Write environment.json: versions, device, command and commit."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    environment = {
        "sslfast": __version__,
        "commit": _commit(),
        "command": command,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {package: metadata.version(package) for package in PACKAGES},
        "device": {"type": device.type, "name": name, "processes": processes, "threads": torch.get_num_threads()},
    }
    (run / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")


def _commit() -> str | None:
    """The commit of the source tree sslfast runs from, if it is one and git is there."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
