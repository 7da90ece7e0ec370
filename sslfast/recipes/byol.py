"""BYOL's recipes."""

from __future__ import annotations

from sslfast.methods.byol import BYOLConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

# BYOL's loss is the paper's, four times what others train with: for SGD it takes a quarter of their learning rate with
# four times their weight decay to make the same steps. LARS does not care.

# Heads for a network of 64 features.
SMALL = {"projection_hidden": 512, "projection_features": 128}

RECIPES = {
    "byol": Recipe(
        BYOLConfig(**DIGITS, **SMALL, learning_rate=0.05, weight_decay=1e-3, base_momentum=0.97),
        "handwritten digits that scikit-learn ships: two CPU minutes (ours)",
    ),
    "byol-photos": Recipe(
        BYOLConfig(**PHOTOS, **SMALL, preset="simclr", learning_rate=0.05, weight_decay=1e-3, base_momentum=0.97),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "byol-cifar10": Recipe(
        BYOLConfig(
            **CIFAR10,
            learning_rate=0.03,
            weight_decay=2e-3,
            base_momentum=0.99,
            projection_hidden=1024,
            projection_features=256,
        ),
        "lightly's CIFAR-10 benchmark, kNN 86.8% after 200 epochs: SGD 0.06 x batch/128, decay 5e-4 for a quarter of "
        "our loss, heads 1024-256, SimCLR's views for CIFAR; the momentum rises from its 0.99",
    ),
    "byol-cifar10-cpu": Recipe(
        BYOLConfig(
            **CIFAR10_CPU,
            **SMALL,
            epochs=2,
            batch_size=64,
            warmup_epochs=0.05,
            learning_rate=0.1,
            weight_decay=1e-3,
            base_momentum=0.97,
        ),
        "a network and a length for 21 minutes of one CPU core, 11 with bfloat16 (ours)",
    ),
    "byol-imagenet": Recipe(
        BYOLConfig(
            **IMAGENET,
            preset="byol",
            epochs=300,
            batch_size=512,
            optimizer="lars",
            learning_rate=0.3,
            weight_decay=1e-6,
            warmup_epochs=10,
            base_momentum=0.99,
        ),
        "Grill et al. 2020, appendix G.1 (300 epochs): LARS 0.3 x batch/256, decay 1e-6, momentum from 0.99",
    ),
}
