"""One process trains in a run folder, and what it leaves when it dies is no trap."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from toys import assert_same, interrupt_at, toy_config, training

from sslfast.checkpoint import CHECKPOINT, load_checkpoint
from sslfast.train import pretrain
from sslfast.train.folder import write_config
from sslfast.train.lock import LOCK, RunLock

pytestmark = pytest.mark.usefixtures("toy")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"resume": "auto"}, {"overwrite": True}], ids=str)
@pytest.mark.parametrize("begun", [True, False])
def test_a_run_that_is_being_trained_is_refused(begun: bool, options: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    if begun:
        pretrain(toy_config(), run)
    with RunLock(run):
        before = contents(run)
        with pytest.raises(FileExistsError, match=rf"run is being trained by another process \({os.getpid()} on "):
            pretrain(toy_config(), run, **options)
        assert contents(run) == before
    assert run.exists() == begun  # nothing was written, so nothing is left
    assert not (run / LOCK).exists()


def test_a_dead_process_lets_go_though_its_children_live(tmp_path: Path) -> None:
    ready, write = os.pipe()
    child = os.fork()
    if child == 0:
        RunLock(tmp_path).__enter__()
        if os.fork() == 0:
            time.sleep(60)
        os.write(write, b"locked")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 6)
    with pytest.raises(FileExistsError, match="being trained"), RunLock(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with RunLock(tmp_path) as lock:
        lock.check()


def test_a_configuration_that_does_not_fit_leaves_no_folder(tmp_path: Path) -> None:
    for changes in ({"batch_size": 4096}, {"data": "nothing"}, {"backbone": "inception_v3", "image_size": 32}):
        with pytest.raises(ValueError, match=r"batch of 4096|data must be|cannot take image_size 32"):
            pretrain(toy_config(**changes), tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_is_removed_during_the_training_is_not_written_to(replaced: bool, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with RunLock(run) as lock:
        going = training(toy_config(epochs=2), run)
        going.lock = lock
        on_step = going.method.on_step

        def removing(step: int, total: int) -> None:
            on_step(step, total)
            if step == 30:
                shutil.rmtree(run)
                if replaced:
                    RunLock(run).__enter__()

        going.method.on_step = removing
        with pytest.raises(FileNotFoundError, match="run was removed or replaced while it was being trained"):
            going.fit()
        assert not (run / CHECKPOINT).exists()


def test_auto_begins_or_continues(tmp_path: Path) -> None:
    config, whole, run = toy_config(epochs=3, checkpoint_every=4), tmp_path / "whole", tmp_path / "run"
    pretrain(config, whole)
    assert pretrain(config, run, resume="auto").steps == 66  # begins
    assert pretrain(config, run, resume="auto").steps == 66  # a finished run stays as it is
    shutil.rmtree(run)
    run.mkdir()
    write_config(run, config.to_dict())  # killed before its first checkpoint
    with pytest.raises(FileNotFoundError, match="without a checkpoint to resume from: --resume auto or --overwrite"):
        pretrain(config, run, resume=True)
    with pytest.raises(FileExistsError, match="without a checkpoint to resume from: --resume auto or --overwrite"):
        pretrain(config, run)
    (run / "config.json").rename(run / "config.json.tmp")  # killed even earlier
    pretrain(toy_config(), run, resume="auto")
    shutil.rmtree(run)
    run.mkdir()
    write_config(run, config.to_dict())
    interrupt_at(training(config, run), 30)
    assert pretrain(config, run, resume="auto", init_from="ignored.ckpt").steps == 66  # it has begun already
    assert_same(*(load_checkpoint(folder / CHECKPOINT) for folder in (whole, run)))
    with pytest.raises(ValueError, match="another configuration: seed"):
        pretrain(toy_config(epochs=3, seed=1), run, resume="auto")
    with pytest.raises(ValueError, match="resume"):
        pretrain(config, run, resume="auto", overwrite=True)


def test_auto_takes_the_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    config, whole, run = toy_config(epochs=3), tmp_path / "whole", tmp_path / "run"
    pretrain(config, whole)
    pretrain(config, run)
    path = run / CHECKPOINT
    content = path.read_bytes()
    path.write_bytes(content[:500] + bytes(200) + content[700:])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged .*step-00000044\.ckpt before it is whole"):
        pretrain(config, run, resume=True)
    pretrain(config, run, resume="auto")
    assert "last.ckpt is damaged or gone: continuing from checkpoints/step-00000044.ckpt" in (
        run / "train.log"
    ).read_text(encoding="utf-8")
    assert_same(*(load_checkpoint(folder / CHECKPOINT) for folder in (whole, run)))
    kept = sorted(file.name for file in (run / "checkpoints").iterdir())
    assert kept == ["last.ckpt", "step-00000044.ckpt"]


def test_a_folder_that_is_in_the_way_says_what_it_holds(tmp_path: Path) -> None:
    config, run = toy_config(), tmp_path / "run"
    pretrain(config, run)
    with pytest.raises(FileExistsError, match=r"has a finished run of these settings: continue it with --resume"):
        pretrain(config, run)
    with pytest.raises(FileExistsError, match=r"a run of other settings \(seed: 0 -> 1\), which --overwrite would"):
        pretrain(toy_config(seed=1), run)
    shutil.rmtree(run / "checkpoints")
    for options in ({}, {"resume": "auto"}):
        with pytest.raises(FileExistsError, match="has a finished run without its checkpoints"):
            pretrain(config, run, **options)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    for options in ({}, {"resume": True}, {"resume": "auto"}, {"overwrite": True}):
        with pytest.raises(FileExistsError, match="it is no run"):
            pretrain(config, tmp_path / "home", **options)
