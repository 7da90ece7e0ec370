"""sslfast.EMA of models under DistributedDataParallel and fully_shard, in two real processes (gloo)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslfast import EMA

STEPS = 4


def network() -> nn.Module:
    """Sizes that two processes cannot halve; the last bias leaves one of them with nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.GELU(), nn.Linear(7, 3), nn.Linear(3, 1))


def batch(step: int, rank: int) -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(10 * step + rank))


def close(actual: nn.Module, expected: nn.Module) -> None:
    """Both on the same averages; what is sharded is gathered."""
    others = expected.state_dict()
    for name, x in actual.state_dict().items():
        full = x.full_tensor() if hasattr(x, "full_tensor") else x
        torch.testing.assert_close(full, others[name], rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def train(model: nn.Module, ema: EMA, step: int, rank: int) -> Tensor:
    """One step of an optimizer and of the average; what the average then says of a batch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(batch(step, rank)).square().mean().backward()
    optimizer.step()
    model.zero_grad()
    ema.update(step)
    with torch.no_grad():
        return ema(batch(99, 0))


def check_replicated(rank: int) -> None:
    model = nn.parallel.DistributedDataParallel(network())
    ema = EMA(model, 0.9, "cosine", total_steps=STEPS, buffers="average").eval()
    average = {name: x.double() for name, x in model.module.state_dict().items()}
    assert ema.state_dict().keys() == {"step", *(f"module.{name}" for name in average)}
    for step in range(STEPS):
        train(model, ema, step, rank)
        m = ema.momentum_at(step)
        states = model.module.state_dict()
        average = {name: m * x + (1 - m) * states[name].double() for name, x in average.items()}
    for name, x in ema.module.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(x.double(), average[name], rtol=1e-6, atol=1e-7)
    first = ema.module[0].weight.detach().clone()
    torch.distributed.broadcast(first, src=0)
    assert torch.equal(first, ema.module[0].weight)


def check_sharded(rank: int) -> None:
    """Against the same training unsharded; both processes see the same batches."""
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    mesh = torch.distributed.init_device_mesh("cpu", (2,))

    def pair(shard: bool) -> tuple[nn.Module, EMA]:
        model = network()
        ema = EMA(model, 0.9, "cosine", total_steps=STEPS)
        for root in (model, ema.module) if shard else ():
            fully_shard(root[0], mesh=mesh)
            fully_shard(root, mesh=mesh)
        return model, ema

    (model, ema), (plain, expected) = pair(shard=True), pair(shard=False)
    for step in range(STEPS):
        if step == 2:  # resumed
            saved = model.state_dict(), ema.state_dict()
            model, ema = pair(shard=True)
            model.load_state_dict(saved[0])
            ema.load_state_dict(saved[1])
        outputs = [train(x, average, step, 0) for x, average in ((model, ema), (plain, expected))]
        torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)  # the forward sees the new shards
    model.reshard()
    ema.module.reshard()
    assert isinstance(ema.module[3].weight, DTensor)
    assert ema.module[3].weight.to_local().shape == model[3].weight.to_local().shape == (2 - rank, 7)
    assert ema.module[4].bias.to_local().numel() == 1 - rank
    close(model, plain)
    close(ema.module, expected.module)
    assert not any(p.requires_grad for p in ema.parameters())
    with pytest.raises(ValueError, match="EMA: model must not be sharded yet"):
        EMA(model)


@pytest.mark.slow
def test_two_processes():
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*torchrun, str(Path(__file__).resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    torch.distributed.init_process_group("gloo")
    check_replicated(torch.distributed.get_rank())
    check_sharded(torch.distributed.get_rank())
    torch.distributed.destroy_process_group()
