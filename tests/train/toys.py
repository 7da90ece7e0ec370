"""Methods and configurations that train in a second."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from sslfast.checkpoint import load_checkpoint
from sslfast.config import ImageConfig, PretrainConfig
from sslfast.methods import Method, SimCLR
from sslfast.train import Interrupted, pretrain
from sslfast.train.launch import launch
from sslfast.train.loop import Training

# 1437 digits: 22 steps an epoch.
TINY = SimCLR.Config(
    data="digits", image_size=8, preset="mnist-like", epochs=2, batch_size=64, warmup_epochs=0.5, learning_rate=0.2,
    log_every=5, knn_every=0, accelerator="cpu", workers=0,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ToyConfig(ImageConfig):
    method: ClassVar[str] = "toy"
    scale: float = 1.0


class Toy(Method):
    """A mean over images of something that no image shares with another: batches can be split at will."""

    Config = ToyConfig
    constant_lr = ("head",)

    def __init__(self, backbone: nn.Module, config: ToyConfig) -> None:
        super().__init__()
        torch.manual_seed(config.seed)
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh())
        self.backbone.num_features = 16
        self.head = nn.Linear(16, 64)
        self.scale = config.scale
        self.steps: list[tuple[int, int]] = []

    def views(self, images: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor]:
        return (images[:, :1].float() / 255,)  # of shards, which are in colour, one channel

    def forward(self, batch: tuple[Tensor]) -> dict[str, Any]:
        target = batch[0].flatten(1)
        features = self.backbone(batch[0])
        loss = (self.head(features) - target).square().mean()
        return {"loss": loss * self.scale, "embeddings": features.detach(), "error": loss.detach()}

    def on_step(self, step: int, total: int) -> None:
        self.steps.append((step, total))


class Collapsing(Toy):
    """The same, but all its embeddings are one point."""

    def forward(self, batch: tuple[Tensor]) -> dict[str, Any]:
        output = super().forward(batch)
        return {**output, "embeddings": torch.ones_like(output["embeddings"])}


def toy_config(**changes: Any) -> ToyConfig:
    return ToyConfig(
        **{
            "data": "digits", "image_size": 8, "epochs": 1, "batch_size": 64, "warmup_epochs": 0, "lr_scaling": "none",
            "learning_rate": 0.5, "log_every": 5, "knn_every": 0, "accelerator": "cpu", "workers": 0, **changes,
        }
    )  # fmt: skip


def training(config: PretrainConfig, run: Any) -> Training:
    return Training(launch(config), config, run)


def flags(config: PretrainConfig) -> list[str]:
    """Every field of a configuration as it is given on the command line."""
    words = []
    for name, value in config.to_dict().items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif name != "method":
            words += [f"--{flag}", *map(str, value if isinstance(value, list) else [value])]
    return words


def interrupt_at(run: Training, step: int, number: int = signal.SIGINT) -> None:
    """Train until a signal comes during `step`, counted from 0."""
    on_step = run.method.on_step

    def interrupting(now: int, total: int) -> None:
        on_step(now, total)
        if now == step:
            signal.raise_signal(number)

    run.method.on_step = interrupting
    with pytest.raises(Interrupted, match=f"stopped after step {step + 1} of"):
        run.fit()


def assert_resumes_exactly(config: PretrainConfig, folder: Path, step: int) -> None:
    """A run that is interrupted in `step` and resumed ends with the bits of one that is not."""
    whole, broken = folder / "whole", folder / "broken"
    pretrain(config, whole)
    broken.mkdir()
    interrupted = training(config, broken)
    interrupted.modality.save(broken)  # as `pretrain` does
    interrupt_at(interrupted, step)
    pretrain(config, broken, resume=True)
    assert_same(*(load_checkpoint(run / "checkpoints" / "last.ckpt") for run in (whole, broken)))


def assert_same(a: object, b: object, path: str = "") -> None:
    """Checkpoints that are equal bit for bit."""
    assert type(a) is type(b), path
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for k, (x, y) in enumerate(zip(a, b)):
            assert_same(x, y, f"{path}/{k}")
    else:
        assert a == b, path
