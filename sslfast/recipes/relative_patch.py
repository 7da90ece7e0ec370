"""Recipes of relative patch location."""

from __future__ import annotations

from sslfast.methods.relative_patch import RelativePatchConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, IMAGENET, PHOTOS, Recipe

OURS = {"preset": "mae", "learning_rate": 0.05, "weight_decay": 5e-4, "lr_scaling": "none"}
RECIPES = {
    "relative-patch": Recipe(
        RelativePatchConfig(**{**PHOTOS, **OURS, "epochs": 20, "batch_size": 64}),
        "crops of photographs that scikit-learn and scikit-image ship: a minute on two CPU cores (ours)",
    ),
    "relative-patch-cifar10": Recipe(
        RelativePatchConfig(**{**CIFAR10, **OURS, "learning_rate": 0.1}),
        "the paper's gap, jitter and colour projection with patches of 16 px; optimization as for SimCLR (ours)",
    ),
    "relative-patch-cifar10-cpu": Recipe(
        RelativePatchConfig(**{**CIFAR10_CPU, **OURS, "batch_size": 128, "epochs": 10, "warmup_epochs": 0.2}),
        "the same with a network and a length for about twelve minutes of one CPU core with bfloat16 (ours)",
    ),
    "relative-patch-imagenet": Recipe(
        RelativePatchConfig(
            **IMAGENET,
            **{**OURS, "learning_rate": 0.1, "weight_decay": 1e-4},
            epochs=90,
            batch_size=512,
            warmup_epochs=5,
            tile_size=64,
            gap=32,
            jitter=4,
            color_defence="drop",
            hidden_features=4096,
        ),
        "Doersch et al. 2015's patches at two thirds of their 96 px; optimization as in Goyal et al. 2019 (ours)",
    ),
}
