"""Jigsaw's recipes."""

from __future__ import annotations

from sslfast.methods.jigsaw import JigsawConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

# A tile of a small image shows something if it is cut from nearly the whole image, with narrow gaps.
SMALL = {"tile_size": 12, "gap": 2, "jitter": 1, "preset": "mae", "strength": 0.25}
# Of 32 px, 2x2 tiles at the image's own scale: enlarged ones teach what does not carry over to whole images.
HALVES = {**SMALL, "grid": 2, "tile_size": 15, "permutations": 24, "grayscale": 0.0, "tile_normalization": "data"}
SHORT = {"optimizer": "adamw", "learning_rate": 2e-3, "lr_scaling": "none", "weight_decay": 0.05, "permutations": 24}
ENLARGED = {"image_size": 32, "preset": "mnist-like", "strength": 1.0, "batch_size": 64, "warmup_epochs": 1}
RECIPES = {
    "jigsaw": Recipe(
        JigsawConfig(**{**DIGITS, **SMALL, **SHORT, **ENLARGED, "permutations": 100, "epochs": 10}),
        "handwritten digits that scikit-learn ships, enlarged: a CPU minute (ours)",
    ),
    "jigsaw-photos": Recipe(
        JigsawConfig(**{**PHOTOS, **SMALL, **SHORT, "epochs": 10, "batch_size": 64}),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "jigsaw-cifar10": Recipe(
        JigsawConfig(**{**CIFAR10, **HALVES, "learning_rate": 0.1, "weight_decay": 1e-4}),
        "Goyal et al. 2019's learning rate and decay, with 2x2 tiles and their 24 permutations (ours)",
    ),
    "jigsaw-cifar10-cpu": Recipe(
        JigsawConfig(**{**CIFAR10_CPU, **SHORT, **HALVES, "batch_size": 128, "epochs": 5, "warmup_epochs": 0.5}),
        "a small network, 2x2 tiles, and 17 minutes of one CPU core, 11 with bfloat16 (ours)",
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
