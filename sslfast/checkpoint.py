"""Checkpoints: written whole or not at all, checked when they are read, and the ones before the last kept."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, Literal

import torch

from sslfast._files import replacing

FORMAT = "sslfast-checkpoint-3"
CHECKPOINT = Path("checkpoints", "last.ckpt")  # of a run


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` to `path`, whole or not at all; its folder must be there."""
    with replacing(path) as temporary, open(temporary, "wb") as file:  # torch itself would hide what the disk says
        torch.save({"format": FORMAT, **state}, file)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, to the CPU.

    Raises:
        FileNotFoundError: `path` is not there.
        ValueError: `path` is damaged, or no checkpoint of sslfast.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()  # checksums, which torch.load does not look at
        if broken is not None:
            raise ValueError(f"the checksum of {broken} is wrong")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is damaged or not a checkpoint of sslfast ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise ValueError(f"{path} is not a checkpoint of sslfast (format {FORMAT})")
    return state


def add_checkpoint(run: Path, state: dict[str, Any], *, before: int | None, keep: int | Literal["every"]) -> None:
    """Write `state` as the last checkpoint of a run; what was the last becomes checkpoints/step-N.ckpt.

    Args:
        before: the optimizer step N of the checkpoint that is the last one now; None: it is not worth keeping.
        keep: checkpoints there may be, the last included; "every": all of them.
    """
    last = run / CHECKPOINT
    last.parent.mkdir(exist_ok=True)  # but not the run, which somebody may have removed
    if before is not None and keep != 1:
        kept = last.with_name(f"step-{before:08}.ckpt")
        kept.unlink(missing_ok=True)
        try:
            os.link(last, kept)
        except OSError:  # a file system without links: for a moment there is no last checkpoint, but `kept` is whole
            os.replace(last, kept)
    save_checkpoint(last, state)
    if keep != "every":
        for old in earlier_checkpoints(run)[keep - 1 :]:
            old.unlink()


def earlier_checkpoints(run: Path) -> list[Path]:
    """The checkpoints that were kept when another one became the last, the newest first."""
    return sorted((run / CHECKPOINT.parent).glob("step-*.ckpt"), reverse=True)


def newest_whole(run: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run that is not damaged.

    Raises:
        FileNotFoundError: there is none at all. ValueError: all are damaged.
    """
    found = [path for path in (run / CHECKPOINT, *earlier_checkpoints(run)) if path.is_file()]
    for path in found:
        try:
            return path, load_checkpoint(path)
        except ValueError:
            if path is found[-1]:
                raise
    raise FileNotFoundError(f"there is no checkpoint {run / CHECKPOINT}")


def load_last(run: Path) -> dict[str, Any]:
    """The last checkpoint of a run.

    Raises:
        FileNotFoundError: it is not there. ValueError: it is damaged. Both name an earlier one that is whole.
    """
    try:
        return load_checkpoint(run / CHECKPOINT)
    except (FileNotFoundError, ValueError) as error:
        try:
            path, _ = newest_whole(run)
        except (FileNotFoundError, ValueError):
            raise error from None
        offer = f"{error}; {path.name} before it is whole: --resume auto continues the run from there"
        raise type(error)(offer) from error
