"""Trainings killed with SIGKILL, again and again, that must end with the bits of one that was not.

    PYTHONPATH=tests python tests/train/kills.py --kills 100

A run of a second is killed before one of the times that it asks the operating system to make, open, rename, link or
remove a file of its own, or at a random moment; begun again with resume="auto", killed again, and at last left alone.
Then one on tar shards is killed in chosen steps: within a shard and between two, within an epoch and between two.

Every process is forked from one that has trained nothing, so that a kill costs a second and not the imports.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from shard_files import write_shards
from toys import Toy, ToyConfig, assert_same, toy_config

from sslfast._extras import require
from sslfast.checkpoint import CHECKPOINT, load_checkpoint
from sslfast.data import folder as folders
from sslfast.data import load_images, shards
from sslfast.methods import METHODS
from sslfast.train import pretrain

CONFIG = toy_config(epochs=2, batch_size=256, checkpoint_every=3, log_every=2, knn_every=2)
EVENTS = {"open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.truncate"}  # of sys.addaudithook
SHARDS, EACH = 4, 8  # and images in each; a batch is half a shard
Way = Callable[[Path], None]  # lets the process that calls it be killed while it trains a run


def train(run: Path, way: Way | None = None, config: ToyConfig = CONFIG) -> bool:
    """Whether a process trained `run` to its end; `way` is called in it first."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            return False
        assert os.waitstatus_to_exitcode(status) == 0, f"a process that trained {run} failed; see {run}.stderr"
        return True
    code = 1
    try:
        silent = os.open(f"{run}.stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(silent, 2)
        torch.set_num_threads(1)
        if way is not None:
            way(run)
        pretrain(config, run, resume="auto")
        code = 0
    finally:
        os._exit(code)


def _before_file_events(run: Path, call: Callable[[int], None]) -> None:
    count = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal count
        if event in EVENTS and str(run) in str(arguments[0]) and not str(arguments[0]).endswith(".stderr"):
            count += 1
            call(count)

    sys.addaudithook(hook)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_event(number: int) -> Way:
    """Before its file event of this number."""
    return lambda run: _before_file_events(run, lambda count: _die() if count == number else None)


def after(seconds: float) -> Way:
    """So long after its first file event."""

    def arm(count: int) -> None:
        if count == 1:
            signal.signal(signal.SIGALRM, lambda *_: _die())
            signal.setitimer(signal.ITIMER_REAL, seconds)

    return lambda run: _before_file_events(run, arm)


def in_step(number: int) -> Way:
    """In the middle of this step, counted from 0."""

    def way(run: Path) -> None:
        on_step = Toy.on_step

        def dying(method: Toy, step: int, total: int) -> None:
            on_step(method, step, total)
            if step == number:
                _die()

        Toy.on_step = dying

    return way


def check(run: Path, whole: Path) -> None:
    """Refuse a run that is not what the uninterrupted one is, or that has left something behind."""
    assert_same(*(load_checkpoint(folder / CHECKPOINT) for folder in (whole, run)))
    weights = [(folder / "exported" / "backbone.safetensors").read_bytes() for folder in (whole, run)]
    assert weights[0] == weights[1]
    steps = [(folder / "metrics.jsonl").read_text().count("\n") for folder in (whole, run)]
    assert steps[0] == steps[1]
    left = {str(path.relative_to(run)) for path in run.rglob("*") if path.suffix == ".tmp" or "lock" in path.name}
    assert not left, left


def kill_and_resume(run: Path, whole: Path, ways: list[Way], config: ToyConfig = CONFIG) -> int:
    """Train `run` to its end, killed in one way after the other; returns how many processes that were.

    Raises:
        AssertionError: it has not the bits of `whole`.
    """
    killed = 0
    for way in ways:
        if train(run, way, config):
            break
        killed += 1
    else:
        assert train(run, config=config), "a process that nobody killed was killed"
    check(run, whole)
    shutil.rmtree(run)
    return killed


def kill_on_shards(folder: Path) -> int:
    """The same of a run that goes through shards one by one, for two epochs; returns how many processes that were."""
    for name, count in (("train", SHARDS), ("val", 1)):
        write_shards(folder / "shards" / name, count, EACH, side=8)
    data, steps = f"wds:{folder / 'shards'}", 2 * SHARDS
    config = toy_config(data=data, epochs=2, batch_size=EACH // 2, checkpoint_every=1, workers=1)
    folders.IN_MEMORY, shards.BUFFER = 0, 1  # nothing is kept in memory, and nothing overtakes
    moments = (3, 6, steps, steps + 5)  # within a shard, where one begins, where an epoch begins, within a shard again
    assert train(folder / "whole", config=config)
    ways = [in_step(moment) for moment in moments]
    killed = kill_and_resume(folder / "run", folder / "whole", ways, config)
    assert killed == len(moments), f"only {killed} of {len(moments)} processes on shards were killed"
    return killed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="processes to kill at least")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    METHODS["toy"] = Toy
    for module in ("lightning_fabric", "rich.progress", "torch.utils.tensorboard.summary", "safetensors.torch"):
        require(module, extra="train")
    load_images("digits", "train")  # scikit-learn is imported once

    draw = random.Random(chosen.seed)
    kills = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        run, whole, counted = (Path(folder) / name for name in ("run", "whole", "counted"))
        start = time.perf_counter()
        assert train(whole, lambda run: _before_file_events(run, lambda count: counted.write_text(str(count)) and None))
        seconds, events = time.perf_counter() - start, int(counted.read_text())
        moments = draw.sample(range(1, events + 1), events)
        while kills < chosen.kills:
            first = at_event(moments.pop()) if moments else after(draw.uniform(0, seconds))
            second = at_event(draw.randint(1, events)) if draw.random() < 0.5 else after(draw.uniform(0, seconds))
            kills += kill_and_resume(run, whole, [first, second])
            runs += 1
    with tempfile.TemporaryDirectory() as folder:
        on_shards = kill_on_shards(Path(folder))
    print(
        f"{kills} processes killed, {runs} runs ended with the bits of an uninterrupted one; {events} file events a "
        f"run; and {on_shards} processes of one run on shards"
    )


if __name__ == "__main__":
    main()
