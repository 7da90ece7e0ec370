"""Jigsaw's recipes."""

from __future__ import annotations

from sslfast.methods.jigsaw import JigsawConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, IMAGENET, PHOTOS, Recipe

TINY = {"permutations": 24, "lr_scaling": "none", "learning_rate": 0.05, "weight_decay": 5e-4}
RECIPES = {
    "jigsaw": Recipe(
        JigsawConfig(**{**PHOTOS, **TINY, "preset": "mae", "epochs": 10, "batch_size": 64}),
        "crops of photographs that scikit-learn and scikit-image ship: a minute on two CPU cores (ours)",
    ),
    "jigsaw-cifar10": Recipe(
        JigsawConfig(**{**CIFAR10, "preset": "mae", "learning_rate": 0.1, "weight_decay": 1e-4, "permutations": 100}),
        "Goyal et al. 2019's learning rate and decay with tiles of 16 px and 100 permutations (ours)",
    ),
    "jigsaw-cifar10-cpu": Recipe(
        JigsawConfig(**{**CIFAR10_CPU, **TINY, "preset": "mae", "batch_size": 128, "epochs": 4, "warmup_epochs": 0.2}),
        "the same with a network and a length for about twelve minutes of one CPU core with bfloat16 (ours)",
    ),
    "jigsaw-imagenet": Recipe(
        JigsawConfig(
            **IMAGENET,
            preset="mae",
            epochs=90,
            batch_size=256,
            learning_rate=0.1,
            weight_decay=1e-4,
            warmup_epochs=5,
            tile_size=64,
            gap=11,
            jitter=5,
            permutations=1000,
            hidden_features=4096,
        ),
        "Noroozi & Favaro 2016's tiles of 64 px in 75 px cells and 1000 permutations; Goyal et al. 2019's optimization",
    ),
}
