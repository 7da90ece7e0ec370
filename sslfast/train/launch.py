"""Devices, precision and processes, through lightning-fabric."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from sslfast._extras import require
from sslfast.config import PretrainConfig

# fabric's name of a precision where it is another one; the weights of bf16-true are converted by the loop.
ARITHMETIC = {"32": "32-true", "bf16-true": "bf16-mixed"}


def launch(config: PretrainConfig) -> Any:
    """The `lightning_fabric.Fabric` of a run, with its processes connected.

    Under torchrun the number of devices is what torchrun started; without it, `config.devices` processes are started.

    Raises:
        ValueError: there is no such accelerator here, or it cannot compute in this precision.
    """
    fabric = require("lightning_fabric", extra="train")
    torchrun = require("lightning_fabric.plugins.environments", extra="train").TorchElasticEnvironment
    devices = torchrun().world_size() // config.nodes if torchrun.detect() else config.devices
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator is cuda, but torch finds no CUDA device")
    if config.precision == "16-mixed" and (config.accelerator == "cpu" or not torch.cuda.is_available()):
        raise ValueError("precision 16-mixed needs a CUDA device; bf16-mixed works on a CPU too")
    try:
        engine = fabric.Fabric(
            accelerator=config.accelerator,
            devices=devices,
            num_nodes=config.nodes,
            strategy="ddp" if devices * config.nodes > 1 else "auto",
            precision=ARITHMETIC.get(config.precision, config.precision),
        )
    except (RuntimeError, ValueError) as error:  # lightning's words for a device that is not there
        raise ValueError(f"accelerator {config.accelerator} with {devices} devices: {error}") from error
    engine.launch()
    return engine


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the global one is meant)
    torch.manual_seed(seed)


def view_generator(seed: int, rank: int, device: torch.device) -> torch.Generator:
    """The generator of a rank's augmentations, on its device; ranks draw independently."""
    mixed = int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator(device).manual_seed(mixed)


def epoch_order(images: int, *, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch visits the images, (images,) int64: a permutation that depends on (seed, epoch)."""
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(images))
