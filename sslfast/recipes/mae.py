"""MAE's recipes."""

from __future__ import annotations

from typing import Any

from sslfast.methods.mae import MAEConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, PHOTOS, Recipe

MICRO: dict[str, Any] = {
    "backbone": "vit_micro_patch4", "decoder_width": 96, "decoder_depth": 1, "decoder_heads": 3,
}  # fmt: skip


def config(*parts: dict[str, Any], **fields: Any) -> MAEConfig:
    """Fields of several dictionaries; the later ones count."""
    merged: dict[str, Any] = {}
    for part in (*parts, {"preset": "mae"}, fields):
        merged |= part
    return MAEConfig(**merged)


RECIPES = {
    "mae": Recipe(
        config(DIGITS, MICRO, preset="mnist-like", backbone="vit_micro_patch2", batch_size=128, learning_rate=2e-3),
        "handwritten digits that scikit-learn ships: a minute on two CPU cores (ours)",
    ),
    "mae-photos": Recipe(
        config(PHOTOS, MICRO, batch_size=64, learning_rate=4e-3),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "mae-cifar10": Recipe(
        config(
            CIFAR10,
            backbone="vit_tiny_patch4",
            epochs=2000,
            batch_size=4096,
            warmup_epochs=200,
            decoder_width=192,
            decoder_depth=4,
            decoder_heads=3,
        ),
        "",
    ),
    "mae-cifar10-cpu": Recipe(
        config(CIFAR10_CPU, MICRO, epochs=8, batch_size=128, learning_rate=2e-3, warmup_epochs=0.5), ""
    ),
}
