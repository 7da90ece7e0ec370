"""Devices, precision and processes, through lightning-fabric."""

from __future__ import annotations

import os
import random
import sys
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sslfast._extras import require
from sslfast.config import PretrainConfig
from sslfast.data import ExampleSet

# fabric's name of a precision where it is another one; the weights of bf16-true are converted by the loop.
ARITHMETIC = {"32": "32-true", "bf16-true": "bf16-mixed"}


def launch(config: PretrainConfig) -> Any:
    """The `lightning_fabric.Fabric` of a run, with its processes connected.

    Under torchrun the number of devices is what torchrun started; without it, `config.devices` processes are started.

    Raises:
        ValueError: there is no such accelerator here, or it cannot compute in this precision; several devices are asked
            for in a notebook.
    """
    fabric = require("lightning_fabric", extra="train")
    torchrun = require("lightning_fabric.plugins.environments", extra="train").TorchElasticEnvironment
    devices = torchrun().world_size() // config.nodes if torchrun.detect() else config.devices
    if config.accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("accelerator is cuda, but torch finds no CUDA device")
    if config.precision == "16-mixed" and (config.accelerator == "cpu" or not torch.cuda.is_available()):
        raise ValueError("precision 16-mixed needs a CUDA device; bf16-mixed works on a CPU too")
    if devices * config.nodes > 1 and not torchrun.detect() and hasattr(sys, "ps1"):
        raise ValueError(
            f"devices is {devices}, but an interactive session cannot start the other processes: save the code as a "
            f"script, or run torchrun --nproc-per-node {devices} -m sslfast pretrain"
        )
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
    if torchrun.detect():
        _connect_anew(engine.device)
    engine.launch()
    return engine


def has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16. One that does not takes ten times as long in it as in float32."""
    return not torch.backends.mkldnn.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def _connect_anew(device: torch.device) -> None:
    """Connect the processes that torchrun has started again after one of them died; not those of its first start.

    torch (2.12) shares one store among the attempts: a rank may find there the address that a dead one has left, and
    wait for it. The keys of this attempt are kept apart. What is connected already, fabric leaves as it is.
    """
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if attempt == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"attempt-{attempt}", store),
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
    )


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (the global one is meant)
    torch.manual_seed(seed)


def view_generator(seed: int, rank: int, device: torch.device) -> torch.Generator:
    """The generator of a rank's augmentations, on its device; ranks draw independently."""
    mixed = int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0]) >> 1
    return torch.Generator(device).manual_seed(mixed)


def epoch_order(examples: ExampleSet, *, seed: int, epoch: int) -> torch.Tensor:
    """The order in which an epoch visits the examples, (N,) int64: a permutation that depends on (seed, epoch)."""
    return examples.order(np.random.default_rng([seed, epoch]))
