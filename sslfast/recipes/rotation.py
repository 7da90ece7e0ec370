"""Rotation's recipes."""

from __future__ import annotations

from sslfast.methods.rotation import RotationConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

ROTNET = {"preset": "mae", "learning_rate": 0.1, "nesterov": True, "weight_decay": 5e-4, "lr_scaling": "none"}
RECIPES = {
    "rotation": Recipe(
        RotationConfig(**{**DIGITS, **ROTNET, "preset": "mnist-like", "epochs": 30, "batch_size": 64}),
        "handwritten digits that scikit-learn ships: a CPU minute (ours)",
    ),
    "rotation-photos": Recipe(
        RotationConfig(**PHOTOS, **ROTNET, batch_size=64),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "rotation-cifar10": Recipe(
        RotationConfig(**{**CIFAR10, **ROTNET, "batch_size": 128}),
        "RotNet's code for CIFAR-10: Nesterov SGD 0.1, batch 128 (x 4 turns), decay 5e-4; ResNet-18 and a cosine here",
    ),
    "rotation-cifar10-cpu": Recipe(
        RotationConfig(**{**CIFAR10_CPU, **ROTNET, "batch_size": 64, "epochs": 1, "warmup_epochs": 0.1}),
        "the same with a network and a length for 15 minutes of one CPU core, 7 with bfloat16 (ours)",
    ),
    "rotation-imagenet": Recipe(
        RotationConfig(**{**IMAGENET, **ROTNET, "learning_rate": 0.01}, epochs=50, batch_size=192, warmup_epochs=0),
        "RotNet's code for ImageNet: Nesterov SGD 0.01, batch 192 (x 4 turns), decay 5e-4, 50 epochs; ResNet-50 here",
    ),
}
