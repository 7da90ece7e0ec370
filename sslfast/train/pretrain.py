"""Pretraining from the first check of the run folder to the exported backbone."""

from __future__ import annotations

from pathlib import Path

from sslfast.config import PretrainConfig, differences
from sslfast.evaluate import Run
from sslfast.evaluate.features import fingerprint
from sslfast.methods import METHODS
from sslfast.train.folder import CHECKPOINT, check_folder, clear_folder, write_config, write_environment
from sslfast.train.launch import launch
from sslfast.train.loop import Summary, Training
from sslfast.train.state import initialise, restore_state


def pretrain(
    config: PretrainConfig,
    run: str | Path,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    overwrite: bool = False,
    download: bool = False,
    command: str | None = None,
) -> Summary | None:
    """Train `METHODS[config.method]` and leave everything in the folder `run`.

    Args:
        config: the method's `Config`.
        run: the run folder; it must be empty or not there, unless `resume` or `overwrite`.
        resume: continue from run/checkpoints/last.ckpt, with the same bits as if it had never stopped.
        init_from: start with the weights of a checkpoint, or those of an exported backbone (.safetensors).
        overwrite: remove the earlier run that is in `run`.
        download: fetch the images if they are not there.
        command: how the run was started, or resumed, for its environment.json.

    Returns:
        What came out; None on other ranks than 0.

    Raises:
        ValueError, FileExistsError, FileNotFoundError: what was asked for does not fit or is not there; said in words.
        FloatingPointError: the loss became infinite or NaN; names the step and its learning rate.
        Interrupted: SIGINT or SIGTERM; the checkpoint is written.
    """
    run = Path(run)
    if config.method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {config.method!r}")
    if resume and (init_from or overwrite):
        raise ValueError("resume continues a run as it is: it goes with neither init_from nor overwrite")
    check_folder(run, resume=resume, overwrite=overwrite)  # every process, before one of them can write
    fabric = launch(config)
    training = Training(fabric, config, run, resume=resume, download=download)
    begun: dict[str, str] | None = None
    if resume:
        restore_state(training)
    elif init_from:
        initialise(training, Path(init_from))
        # By the SHA-256 that results.json of the run it came from has.
        begun = {"path": str(init_from), "weights_sha256": fingerprint(training.method.backbone)}
    if fabric.is_global_zero:
        if overwrite:
            clear_folder(run)
        write_config(run, config.to_dict())
        training.modality.save(run)
        devices = {"device": fabric.device, "processes": fabric.world_size}
        write_environment(run, **devices, command=command, init_from=begun, resume=resume)
    fabric.barrier()
    return training.fit()


def ensure_trained(
    config: PretrainConfig, run: str | Path, *, download: bool = False, command: str | None = None
) -> None:
    """Train by `config` into `run` what is left to train: nothing of a finished run, an unfinished one is resumed.

    Raises:
        ValueError: a run of other settings is there; names them. And what `pretrain` raises.
    """
    run = Path(run)
    begun = (run / CHECKPOINT).is_file()
    if begun and Run(run).finished:
        if changed := differences(Run(run).config, config.to_dict()):
            raise ValueError(f"{run} was trained with other settings: {', '.join(changed)}; choose another folder")
        return
    broken = not begun and (run / "config.json").is_file()  # stopped before it had a checkpoint
    pretrain(config, run, resume=begun, overwrite=broken, download=download, command=command)
