"""A rank that dies ends the others with an error that says so, and no wait without end."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from gloo import what_is_raised

from sslfast import ops


def lose_a_rank(rank: int, folder: str, when: str) -> None:
    """Rank 1 vanishes between two steps, or between forward and backward."""
    store = dist.FileStore(f"{folder}/rendezvous", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=60))
    z = torch.randn(4, 3, requires_grad=True)
    loss = ops.nt_xent(z, z, group="world", gather="ring")
    last = loss.backward if when == "backward" else lambda: ops.nt_xent(z, z, group="world")
    torch.save("gone" if rank == 1 else what_is_raised(last), f"{folder}/result{rank}")
    os._exit(0)


@pytest.mark.parametrize("when", ["step", "backward"])
def test_a_dying_rank_ends_the_others_with_an_error(when, tmp_path):
    torch.multiprocessing.start_processes(lose_a_rank, (str(tmp_path), when), nprocs=2, start_method="spawn")
    assert torch.load(tmp_path / "result1") == "gone"
    assert torch.load(tmp_path / "result0").startswith("RuntimeError: a rank of the group is gone")
