"""Colorization's recipes."""

from __future__ import annotations

from sslfast.methods.colorization import ColorizationConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, IMAGENET, PHOTOS, Recipe

OURS = {"preset": "mae", "optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05, "lr_scaling": "none"}

RECIPES = {
    "colorization": Recipe(
        ColorizationConfig(**PHOTOS | OURS | {"epochs": 20, "batch_size": 64}, decoder_width=64),
        "crops of photographs that scikit-learn and scikit-image ship: three CPU minutes (ours)",
    ),
    "colorization-cifar10": Recipe(
        ColorizationConfig(**CIFAR10 | OURS | {"batch_size": 256, "warmup_epochs": 5}),
        "the paper's loss on a ResNet-18 for 32 px; optimizer and length are ours, there is no published recipe",
    ),
    "colorization-cifar10-cpu": Recipe(
        ColorizationConfig(**CIFAR10_CPU | OURS | {"batch_size": 128}, epochs=3, warmup_epochs=0.25, decoder_width=64),
        "the same with a network and a length for 13 minutes of one CPU core, 8 with bfloat16 (ours)",
    ),
    "colorization-imagenet": Recipe(
        ColorizationConfig(
            **IMAGENET,
            preset="mae",
            epochs=16,
            batch_size=40,
            optimizer="adamw",
            learning_rate=3e-5,
            lr_scaling="none",
            betas=(0.9, 0.99),
            weight_decay=1e-3,
            warmup_epochs=0,
            decoder_width=256,
        ),
        "Zhang et al. 2016, train/solver.prototxt: Adam 3e-5, betas 0.9, 0.99, decay 1e-3, 500k steps; ResNet-50 here",
    ),
}
