"""Pretraining from the first check of the run folder to the exported backbone."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from sslfast._memory import saying_what_fits
from sslfast.checkpoint import CHECKPOINT
from sslfast.config import ImageConfig, PretrainConfig, differences
from sslfast.data import located, normalization
from sslfast.data.registry import ROOT, is_own, own_normalization
from sslfast.data.torchvision_sets import FILES as DOWNLOADED
from sslfast.evaluate import Run
from sslfast.evaluate.features import fingerprint
from sslfast.methods import method_named
from sslfast.methods.registry import path_of_own
from sslfast.schedule import warmup_cosine
from sslfast.train.folder import (
    EXPORTED,
    Resume,
    beginning,
    clear_folder,
    clear_temporary,
    write_config,
    write_environment,
)
from sslfast.train.launch import launch
from sslfast.train.lock import RunLock
from sslfast.train.loggers import check_logger
from sslfast.train.loop import Summary, Training
from sslfast.train.start import initialise, start_of
from sslfast.train.state import restore_state

Result = TypeVar("Result")


def pretrain(
    config: PretrainConfig,
    run: str | Path,
    *,
    resume: Resume = False,
    init_from: str | Path | None = None,
    overwrite: bool = False,
    download: bool = False,
    command: str | None = None,
) -> Summary | None:
    """Train the method of `config` and leave everything in the folder `run`.

    Args:
        config: the method's `Config`.
        run: the run folder; it must be empty or not there, unless `resume` or `overwrite`.
        resume: continue from run/checkpoints/last.ckpt, with the same bits as if it had never stopped; with more epochs
            than it had, along the schedules of that many. "auto": begin if nothing is there to continue, and take the
            checkpoint before if the last one is damaged.
        init_from: begin with the weights of a run, of what it exported, of a checkpoint, or of a .safetensors file. A
            `config.backbone` that is such a folder, or `timm:NAME@pretrained`, does the same (`start.start_of`).
        overwrite: remove the earlier run that is in `run`.
        download: fetch the images if they are not there.
        command: how the run was started, or resumed, for its environment.json.

    Returns:
        What came out; None on other ranks than 0.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: what was asked for does not fit or is not there, or another
            process is training in `run`; said in words.
        ImportError: the package of `config.logger` is not installed.
        OSError: a file cannot be written; the last checkpoint stays as it was.
        MemoryError: it ran out of memory; names a batch size.
        FloatingPointError: the loss became infinite or NaN; names the step and its learning rate.
        Interrupted: SIGINT or SIGTERM; the checkpoint is written.
    """
    run = Path(run)
    method = method_named(config.method)
    if (resume and overwrite) or (resume is True and init_from):
        raise ValueError("resume continues a run as it is: it goes with neither init_from nor overwrite")
    check_logger(config.logger)  # in every process, before anything is written
    config, init_from = start_of(config, init_from)
    config = _settled(config)
    fabric = launch(config)
    with ExitStack() as stack:
        lock = on_main(fabric, lambda: stack.enter_context(RunLock(run)), send=False)
        begin = on_main(fabric, lambda: beginning(run, config, resume=resume, overwrite=overwrite))
        training = Training(fabric, config, run, resume=begin == "resume", download=download, lock=lock)
        begun: dict[str, str] | None = None
        note: str | None = None
        if begin == "resume":
            path, epochs = restore_state(training, fall_back=resume == "auto")
            note = "; ".join(filter(None, [_fell_back(run, path), _made_longer(training, epochs)]))
        elif init_from:
            note = initialise(training, init_from)
            # By the SHA-256 that results.json of the run it came from has.
            begun = {"path": init_from, "weights_sha256": fingerprint(training.method.backbone)}
        if fabric.is_global_zero:
            clear_temporary(run)
            if begin == "new":
                clear_folder(run)
            elif training.epoch < config.epochs:
                clear_folder(run, [EXPORTED])  # of a run that was finished when it was shorter
            path = path_of_own(method)
            write_config(run, config.to_dict() | ({"method_class": path} if path else {}))
            training.modality.save(run)
            devices = {"device": fabric.device, "processes": fabric.world_size}
            write_environment(run, **devices, command=command, init_from=begun, resume=begin == "resume")
        fabric.barrier()
        with saying_what_fits(_smaller(config)):
            return training.fit(warning=note or None)


def on_main(fabric: Any, decide: Callable[[], Result], *, send: bool = True) -> Result | None:
    """What `decide()` returned, or raised, in the process of rank 0, in every process; without `send` not the former.

    Raises:
        OSError, ValueError: `decide` did.
    """
    result, error = None, None
    if fabric.is_global_zero:
        try:
            result = decide()
        except (OSError, ValueError) as raised:
            error = raised
    sent, error = fabric.broadcast((result if send else None, error))
    if error is not None:
        raise error
    return sent if send else result


def _located(config: PretrainConfig) -> PretrainConfig:
    """The same with absolute paths, so that a later command finds the data from any directory."""
    paths = {"data": located(config.data)}
    if isinstance(config, ImageConfig) and (config.data_root or config.data in DOWNLOADED):
        paths["data_root"] = os.path.abspath(config.data_root or ROOT)
    return replace(config, **paths)


def _settled(config: PretrainConfig) -> PretrainConfig:
    """The configuration with what it leaves to the data: where they are, and a folder's mean and standard deviation."""
    config = _located(config)
    if not isinstance(config, ImageConfig) or config.mean or not is_own(config.data):
        return config
    options = {"source_size": config.source_side, "skip_corrupt": config.skip_corrupt}
    mean, std = own_normalization(config.data, **options)
    usual = (mean, std) == normalization(config.data)  # which the configuration need not say
    return config if usual else replace(config, mean=mean, std=std)


def _smaller(config: PretrainConfig) -> str:
    """What needs half of the memory."""
    batch = config.batch_size // 2
    if batch < 2:
        return f"a batch of {config.batch_size} is too much for {config.backbone} here; take a smaller network"
    return (
        f"batch_size {config.batch_size} is too much for {config.backbone} here; "
        f"try --batch-size {batch} --accumulate {2 * config.accumulate}"
    )


def _fell_back(run: Path, found: Path) -> str | None:
    if found == run / CHECKPOINT:
        return None
    return f"{CHECKPOINT} is damaged or gone: continuing from {found.relative_to(run)}"


def _made_longer(training: Training, epochs: int) -> str | None:
    """What a run that had other `epochs` does differently from now on."""
    step, longer = training.step, training.config.epochs
    if longer == epochs:
        return None
    total = epochs * training.steps_per_epoch
    warmup = min(total, round(training.config.warmup_epochs * training.steps_per_epoch))
    before = warmup_cosine(step, peak=training.peak, total=total, warmup=warmup) if step < total else 0.0
    after = f"{training.learning_rate(step):.3g}" if step < training.total else "0"
    return (
        f"epochs {epochs} -> {longer}: after step {step} the learning rate is {after} instead of {before:.3g}, "
        f"on the cosine of {longer} epochs, and so are other schedules of the method"
    )


def ensure_trained(
    config: PretrainConfig, run: str | Path, *, download: bool = False, command: str | None = None
) -> None:
    """Train by `config` into `run` what is left to train: nothing of a finished run, an unfinished one is resumed.

    Raises:
        ValueError: a run of other settings is there; names them. And what `pretrain` raises.
    """
    given, run = config, Path(run)
    config = _settled(start_of(given, None)[0])
    if (run / CHECKPOINT).is_file() and Run(run).finished:
        if changed := differences(Run(run).settings.to_dict(), config.to_dict()):
            raise ValueError(f"{run} was trained with other settings: {', '.join(changed)}; choose another folder")
        return
    pretrain(given, run, resume="auto", download=download, command=command)
