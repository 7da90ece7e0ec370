"""MAE's recipes."""

from __future__ import annotations

from typing import Any

from sslfast.methods.mae import MAEConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

MICRO: dict[str, Any] = {
    "backbone": "vit_micro_patch4",
    "preset": "mae",
    "batch_size": 64,
    "learning_rate": 4e-3,
    "decoder_width": 96,
    "decoder_depth": 1,
    "decoder_heads": 3,
}
TINY: dict[str, Any] = {
    "backbone": "vit_tiny_patch4",
    "preset": "mae",
    "epochs": 2000,
    "batch_size": 4096,
    "warmup_epochs": 200,
    "decoder_width": 192,
    "decoder_depth": 4,
    "decoder_heads": 3,
}
PAPER: dict[str, Any] = {"preset": "mae", "epochs": 800, "batch_size": 512}

RECIPES = {
    "mae": Recipe(
        MAEConfig(**{**PHOTOS, **MICRO, "epochs": 20}),
        "crops of photographs that scikit-learn and scikit-image ship: two CPU minutes (ours)",
    ),
    "mae-digits": Recipe(
        MAEConfig(
            **{**DIGITS, **MICRO, "backbone": "vit_micro_patch2", "preset": "mnist-like"},
            mask_ratio=0.5,
            norm_pix=False,
        ),
        "handwritten digits that scikit-learn ships; patches of 2 px, whose own variance is mostly ink or none (ours)",
    ),
    "mae-cifar10": Recipe(
        MAEConfig(**{**CIFAR10, **TINY}, norm_pix=False),
        "IcarusWizard/MAE with patches of 4 px, not 2: batch 4096, 2000 epochs of which 200 warm-up, plain pixels",
    ),
    "mae-cifar10-cpu": Recipe(
        MAEConfig(**CIFAR10_CPU | MICRO, epochs=5, warmup_epochs=0.4),
        "a narrow network and a length for about twelve minutes of one CPU core (ours)",
    ),
    "mae-imagenet": Recipe(
        MAEConfig(**{**IMAGENET, **PAPER, "backbone": "vit_base_patch16"}),
        "He et al. 2021, table 8: AdamW 1.5e-4 x batch/256, betas 0.9 and 0.95, decay 0.05; for a batch of 4096 in all",
    ),
    "mae-large-imagenet": Recipe(
        MAEConfig(**{**IMAGENET, **PAPER, "backbone": "vit_large_patch16", "batch_size": 256, "accumulate": 2}),
        "the same with ViT-L/16: linear probe 73.5%, fine-tuned 84.9% after these 800 epochs (table 1)",
    ),
}
