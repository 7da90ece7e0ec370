"""Recipes of relative patch location."""

from __future__ import annotations

from sslfast.methods.relative_patch import RelativePatchConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

# A patch of a small image shows something if it is cut from nearly the whole image, with narrow gaps.
SMALL = {"tile_size": 12, "gap": 2, "jitter": 1, "preset": "mae", "strength": 0.25}
# Of 32 px, two of 2x2 at the image's own scale; such images have no colour fringes to defend against.
HALVES = {**SMALL, "grid": 2, "tile_size": 15, "color_defence": "none"}
SHORT = {"optimizer": "adamw", "learning_rate": 2e-3, "lr_scaling": "none", "weight_decay": 0.05}
ENLARGED = {"image_size": 32, "preset": "mnist-like", "strength": 1.0, "batch_size": 64, "warmup_epochs": 1}
RECIPES = {
    "relative-patch": Recipe(
        RelativePatchConfig(**{**DIGITS, **SMALL, **SHORT, **ENLARGED, "epochs": 20}),
        "handwritten digits that scikit-learn ships, enlarged: a CPU minute (ours)",
    ),
    "relative-patch-photos": Recipe(
        RelativePatchConfig(**{**PHOTOS, **SMALL, **SHORT, "epochs": 30, "batch_size": 64}),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "relative-patch-cifar10": Recipe(
        RelativePatchConfig(**{**CIFAR10, **HALVES, "learning_rate": 0.1, "weight_decay": 1e-4}),
        "two of 2x2 patches of 15 px; learning rate and decay as for jigsaw (ours)",
    ),
    "relative-patch-cifar10-cpu": Recipe(
        RelativePatchConfig(**{**CIFAR10_CPU, **HALVES, **SHORT, "batch_size": 128, "epochs": 10, "warmup_epochs": 1}),
        "a small network, 2x2 patches, and 18 minutes of one CPU core, 11 with bfloat16 (ours)",
    ),
    "relative-patch-imagenet": Recipe(
        RelativePatchConfig(
            **IMAGENET,
            preset="mae",
            learning_rate=0.1,
            weight_decay=1e-4,
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
