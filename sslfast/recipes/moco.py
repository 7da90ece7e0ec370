"""MoCo's recipes."""

from __future__ import annotations

from typing import Any

from sslfast.methods.moco import MoCoConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

# The authors' values for CIFAR-10: a shorter queue, and a key encoder that follows faster.
SHORT: dict[str, Any] = {"temperature": 0.1, "queue_size": 4096, "key_momentum": 0.99, "weight_decay": 5e-4}
IMAGENET_MOCO: dict[str, Any] = {
    **IMAGENET,
    "preset": "moco-v2",
    "epochs": 200,
    "learning_rate": 0.03,
    "weight_decay": 1e-4,
    "warmup_epochs": 0,
    "bn_splits": 8,
}

RECIPES = {
    "moco": Recipe(
        MoCoConfig(**DIGITS, **{**SHORT, "queue_size": 1024}, learning_rate=0.1, bn_splits=8),
        "handwritten digits that scikit-learn ships: a CPU minute (ours)",
    ),
    "moco-photos": Recipe(
        MoCoConfig(**PHOTOS, **{**SHORT, "queue_size": 1024}, preset="moco-v2", learning_rate=0.12, bn_splits=8),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "moco-cifar10": Recipe(
        MoCoConfig(**CIFAR10, **SHORT, learning_rate=0.03, bn_splits=8, projection_layers=1),
        "the authors' Colab, kNN 82.6% after 200 epochs: SGD 0.06 for 512, decay 5e-4, temperature 0.1, queue 4096",
    ),
    "moco-cifar10-cpu": Recipe(
        MoCoConfig(
            **CIFAR10_CPU, **SHORT, epochs=4, batch_size=128, warmup_epochs=0.25, bn_splits=4, learning_rate=0.12
        ),
        "a network and a length for 23 minutes of one CPU core, 11 with bfloat16 (ours)",
    ),
    "moco-imagenet": Recipe(
        MoCoConfig(**IMAGENET_MOCO),
        "Chen et al. 2020 (v2): SGD 0.03 for 256 on 8 GPUs, temperature 0.2, MLP head, stronger augmentation, cosine",
    ),
    "moco-v1-imagenet": Recipe(
        MoCoConfig(**{**IMAGENET_MOCO, "preset": "moco-v1"}, temperature=0.07, projection_layers=1),
        "He et al. 2019 (v1): SGD 0.03 for 256 on 8 GPUs, temperature 0.07, linear head; cosine in place of steps",
    ),
}
