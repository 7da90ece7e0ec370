"""Inpainting's recipes."""

from __future__ import annotations

from sslfast.methods.inpainting import InpaintingConfig
from sslfast.recipes.base import CIFAR10, CIFAR10_CPU, DIGITS, IMAGENET, PHOTOS, Recipe

OURS = {"optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05, "lr_scaling": "none"}
# Adam with a first beta of 0.5, in steps of 64 images; 2e-3 is the generator's rate, the discriminator's a tenth of it.
AUTHORS = {"batch_size": 64, "optimizer": "adamw", "learning_rate": 2e-3, "lr_scaling": "none", "betas": (0.5, 0.999)}

RECIPES = {
    "inpainting": Recipe(
        InpaintingConfig(**PHOTOS | OURS | {"epochs": 20, "batch_size": 64}, decoder_width=32),
        "crops of photographs that scikit-learn and scikit-image ship: four CPU minutes (ours)",
    ),
    "inpainting-digits": Recipe(
        InpaintingConfig(**DIGITS | OURS | {"batch_size": 128}, decoder_width=32),
        "handwritten digits that scikit-learn ships (ours)",
    ),
    "inpainting-cifar10": Recipe(
        InpaintingConfig(**CIFAR10 | OURS | {"preset": "mae", "batch_size": 256, "warmup_epochs": 5}, mask="blocks"),
        "the paper's loss on a ResNet-18 for 32 px; optimizer and length are ours, there is no published recipe",
    ),
    "inpainting-cifar10-cpu": Recipe(
        InpaintingConfig(
            **CIFAR10_CPU | OURS | {"preset": "mae", "batch_size": 128},
            epochs=2,
            warmup_epochs=0.25,
            mask="blocks",
            decoder_width=32,
        ),
        "the same with a network and a length for 10 minutes of one CPU core, 5 with bfloat16 (ours)",
    ),
    "inpainting-imagenet": Recipe(
        InpaintingConfig(
            **IMAGENET | AUTHORS | {"image_size": 128},
            preset="mae",
            epochs=20,
            weight_decay=0,
            warmup_epochs=0,
            overlap=4,
            adversarial=0.001,
        ),
        "pathak22/context-encoder: Adam 2e-3 (D's too), beta 0.5, batch 64, 128 px, overlap 4, adversarial 0.001; "
        "length ours",
    ),
}
