"""A small network that the tests of sslfast.EMA train by hand."""

from __future__ import annotations

import torch
from torch import nn


def network(device="cpu", dtype=torch.float32, seed=0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(96, 5)).to(device, dtype)


@torch.no_grad()
def train(model: nn.Module, seed: int) -> None:
    """Stands for a step of an optimizer: every tensor of the model changes."""
    generator = torch.Generator().manual_seed(seed)
    for x in {**dict(model.named_parameters()), **dict(model.named_buffers())}.values():
        noise = torch.randn(x.shape, generator=generator).to(x.device)
        x.add_(1 if not x.is_floating_point() else noise.to(x.dtype))


def state(module: nn.Module) -> dict:
    return {name: x.detach().clone() for name, x in module.state_dict().items()}
