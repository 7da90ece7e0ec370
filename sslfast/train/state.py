"""The state of a training, to its checkpoint and back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from sslfast.checkpoint import CHECKPOINT, add_checkpoint, load_last, newest_whole
from sslfast.config import differences
from sslfast.data import FolderImages
from sslfast.train.rng import rng_state

if TYPE_CHECKING:
    from sslfast.train.loop import Training


def save_state(training: Training) -> list[dict[str, str]]:
    """Write all of it to the run's checkpoint; returns the files that each process has found unreadable."""
    fabric, config = training.fabric, training.config
    own = (rng_state(training.generator), training.skipped)
    ranks = [own]
    if fabric.world_size > 1:
        ranks = [None] * fabric.world_size
        torch.distributed.all_gather_object(ranks, own)
    rng, skipped = zip(*ranks)
    if fabric.is_global_zero:
        training.log.flush()
        state = {
            "method": training.method.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "precision": fabric.strategy.precision.state_dict(),  # the loss scale of 16-mixed
            "step": training.step,
            "epoch": training.epoch,
            "position": training.position,
            "losses": training.losses,
            "alarmed": training.alarmed,
            "knn_accuracy": training.knn,
            "examples": len(training.train_set),
            "skipped": {path: reason for found in skipped for path, reason in found.items()},
            "rng": list(rng),
            "config": config.to_dict(),
        }
        if training.lock:
            training.lock.check()
        add_checkpoint(training.run, state, before=training.saved, keep=config.keep_checkpoints)
    training.saved = training.step
    return list(skipped)


def restore_state(training: Training, *, fall_back: bool = False) -> tuple[Path, int]:
    """Take up the run's last checkpoint, and return its path and the epochs that it was to be one of.

    Args:
        fall_back: if it is damaged or gone, the newest that is not.

    Raises:
        ValueError: it is damaged, or of another configuration; the message lists what differs.
    """
    run, config = training.run, training.config
    path, state = newest_whole(run) if fall_back else (run / CHECKPOINT, load_last(run))
    # A field that the checkpoint is older than had what is its default now.
    old = {**type(config)().to_dict(), **state["config"], "processes": len(state["rng"])}
    new = {**config.to_dict(), "processes": training.fabric.world_size}
    longer = {"epochs": max(old["epochs"], new["epochs"])}  # a run may be made longer
    if different := differences(old | longer, new):
        raise ValueError(f"{run} cannot be resumed with another configuration: {'; '.join(different)}")
    if state["examples"] != len(training.train_set):
        raise ValueError(
            f"{run} cannot be resumed with other {training.modality.unit}: it had {state['examples']}, now there are "
            f"{len(training.train_set)} that can be read"
        )
    if state["skipped"] and not config.skip_corrupt:
        raise ValueError(f"{run} skips {len(state['skipped'])} unreadable images: resume it with skip_corrupt")
    training.skipped = state["skipped"]
    for examples in (training.train_set, training.test_set):
        if isinstance(examples, FolderImages):
            examples.corrupt.update(training.skipped)  # not tried again: a file that was mended would change the bits
    training.method.load_state_dict(state["method"])
    training.optimizer.load_state_dict(state["optimizer"])
    training.fabric.strategy.precision.load_state_dict(state["precision"])
    training.step, training.epoch, training.position = state["step"], state["epoch"], state["position"]
    training.losses, training.alarmed, training.knn = state["losses"], state["alarmed"], state["knn_accuracy"]
    training.rng = state["rng"][training.fabric.global_rank]
    training.saved = training.step if path == run / CHECKPOINT else None
    return path, old["epochs"]
