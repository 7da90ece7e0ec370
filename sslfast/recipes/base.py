"""What a recipe is, and what all recipes for a data set have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sslfast.config import PretrainConfig


@dataclass(frozen=True)
class Recipe:
    """A configuration, and one line that says what it is good for or from where it is taken."""

    config: PretrainConfig
    about: str


# What makes a step fast on a GPU. The bits of a resumed run are then not promised.
FAST: dict[str, Any] = {"precision": "bf16-mixed", "compile": True, "deterministic": False, "log_every": 50}
DIGITS: dict[str, Any] = {
    "data": "digits",
    "image_size": 8,
    "preset": "mnist-like",
    "backbone": "resnet20",
    "epochs": 100,
    "warmup_epochs": 3,
}
PHOTOS: dict[str, Any] = {
    "data": "photos",
    "image_size": 32,
    "backbone": "resnet20",
    "epochs": 10,
    "warmup_epochs": 1,
}
CIFAR10: dict[str, Any] = {
    "data": "cifar10",
    "image_size": 32,
    "preset": "simclr-cifar",
    "backbone": "resnet18",
    "epochs": 200,
    "batch_size": 512,
    "warmup_epochs": 0,
    "knn_every": 20,
    **FAST,
}
# A network for minutes of one CPU core; the recipes say how many. In float32: many CPUs have no bfloat16 arithmetic.
CIFAR10_CPU: dict[str, Any] = {
    "data": "cifar10",
    "image_size": 32,
    "preset": "simclr-cifar",
    "backbone": "resnet20",
    "knn_every": 0,
}
IMAGENET: dict[str, Any] = {
    "data": "folder:imagenet",
    "image_size": 224,
    "backbone": "resnet50",
    "workers": 12,
    "knn_every": 0,
    **FAST,
    "checkpoint_every": 1000,
}
