"""SimCLR's recipes."""

from __future__ import annotations

from sslfast.methods.simclr import SimCLRConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

RECIPES = {
    "simclr": Recipe(
        SimCLRConfig(**DIGITS, learning_rate=0.1, weight_decay=5e-4, temperature=0.2, projection_hidden=256),
        "handwritten digits that scikit-learn ships: a minute on two CPU cores (ours)",
    ),
    "simclr-photos": Recipe(
        SimCLRConfig(**PHOTOS, preset="simclr", learning_rate=0.12, weight_decay=5e-4, temperature=0.2),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "simclr-cifar10": Recipe(
        SimCLRConfig(**CIFAR10, learning_rate=0.12, weight_decay=5e-4, temperature=0.5),
        "lightly's CIFAR-10 benchmark, kNN 83-85% after 200 epochs: SGD 0.06 x batch/128, decay 5e-4, temperature 0.5",
    ),
    "simclr-cifar10-cpu": Recipe(
        SimCLRConfig(
            **CIFAR10_CPU, epochs=3, warmup_epochs=0.25, learning_rate=0.12, weight_decay=5e-4, temperature=0.5
        ),
        "the same with a network and a length for 26 minutes of one CPU core, 11 with bfloat16 (ours)",
    ),
    "simclr-imagenet": Recipe(
        SimCLRConfig(
            **IMAGENET,
            preset="simclr",
            epochs=100,
            batch_size=512,
            optimizer="lars",
            learning_rate=0.075,
            lr_scaling="sqrt",
            weight_decay=1e-6,
            warmup_epochs=10,
            temperature=0.1,
            projection_hidden=2048,
        ),
        "Chen et al. 2020, appendix B.1: LARS 0.075 x sqrt(batch), decay 1e-6, temperature 0.1, 10 warm-up epochs",
    ),
}
