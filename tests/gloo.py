"""Runs a function in several real processes that talk by gloo."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing


def run_ranks(function: Callable[..., Any], size: int, folder: Path, **kwargs: Any) -> list[Any]:
    """What `function(**kwargs)` returned in each of `size` processes of one process group."""
    multiprocessing.start_processes(_rank, (function, size, str(folder), kwargs), nprocs=size, start_method="spawn")
    return [torch.load(folder / f"result{rank}", weights_only=False) for rank in range(size)]


def _rank(rank: int, function: Callable[..., Any], size: int, folder: str, kwargs: dict) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    result = function(**kwargs)
    torch.save(result, f"{folder}/result{rank}")
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without Python's own end: a thread of gloo that lets go of its last tensor then would abort the process.
    os._exit(0)


def what_is_raised(function: Callable[[], object]) -> str:
    """Its type and message, in a form that goes from process to process; "nothing" if nothing is."""
    try:
        function()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"
