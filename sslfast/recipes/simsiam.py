"""SimSiam's recipes."""

from __future__ import annotations

from sslfast.methods.simsiam import SimSiamConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

# Heads for a network of 64 features.
SMALL = {"projection_layers": 2, "projection_features": 256}

RECIPES = {
    "simsiam": Recipe(
        SimSiamConfig(**DIGITS, **SMALL, learning_rate=0.1, weight_decay=5e-4),
        "handwritten digits that scikit-learn ships: a CPU minute (ours)",
    ),
    "simsiam-photos": Recipe(
        SimSiamConfig(**PHOTOS, **SMALL, preset="simsiam", learning_rate=0.1, weight_decay=5e-4),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "simsiam-cifar10": Recipe(
        SimSiamConfig(**CIFAR10 | {"epochs": 800}, learning_rate=0.03, weight_decay=5e-4, projection_layers=2),
        "Chen & He 2020, appendix D: SGD 0.03 x batch/256, batch 512, decay 5e-4, 2-layer projector, 800 epochs",
    ),
    "simsiam-cifar10-cpu": Recipe(
        SimSiamConfig(
            **CIFAR10_CPU, **SMALL, epochs=3, batch_size=64, warmup_epochs=0.05, learning_rate=0.4, weight_decay=5e-4
        ),
        "a network and a length for 21 minutes of one CPU core, 12 with bfloat16 (ours)",
    ),
    "simsiam-imagenet": Recipe(
        SimSiamConfig(
            **IMAGENET,
            preset="simsiam",
            epochs=100,
            batch_size=512,
            learning_rate=0.05,
            weight_decay=1e-4,
            warmup_epochs=0,
        ),
        "Chen & He 2020, section 3: SGD 0.05 x batch/256, batch 512, decay 1e-4, constant rate for the predictor",
    ),
}
