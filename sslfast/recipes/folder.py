"""Recipes for a folder of one's own images: by how many there are, how large they are, and the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from sslfast.config import ImageConfig
from sslfast.data.registry import glance
from sslfast.recipes.base import Recipe

SMALL, LARGE = 40, 200  # shorter sides in pixels: up to one they are icons, from the other on photographs
MANY = 100_000  # images for which a published ImageNet recipe is made
PASSES = {"cpu": 60_000, "cuda": 6_000_000}  # images to be gone through in all: about five minutes of two cores
MOST_EPOCHS = {"cpu": 100, "cuda": 400}
LARGEST_BATCH = {"cpu": 256, "cuda": 512}
STEPS = 8  # an epoch at least, unless the batch would be less than
LEAST_BATCH = 32  # or half the images
TILED = ("jigsaw", "relative-patch")  # their tiles fit pictures of the recipe's own size


@dataclass(frozen=True)
class Facts:
    """What decides: training images, the median of their shorter sides in pixels, "cpu" or "cuda"."""

    images: int
    side: int
    device: str


def look_at(data: str, *, cpu: bool) -> Facts:
    """The facts of a folder. `cpu`: whether it was asked for."""
    images, side = glance(data)
    return Facts(images, side, "cuda" if torch.cuda.is_available() and not cpu else "cpu")


def sized(method: str, data: str, facts: Facts, recipes: dict[str, Recipe]) -> Recipe:
    """The recipe for a method and a folder.

    On a GPU a published one for many photographs, else what CIFAR-10 is trained with; on a CPU a small network on views
    of 32 px. The batch leaves 8 steps an epoch, of few images 2, and the epochs are as many as go through so many in
    all.
    """
    device = facts.device
    published = device == "cuda" and facts.images >= MANY and facts.side >= LARGE
    kind = "imagenet" if published else "cifar10" if device == "cuda" else "photos"
    base = recipes.get(f"{method}-{kind}", recipes[method]).config
    if published:
        return _told(replace(base, data=data), facts)
    small = max(8, facts.side // 4 * 4)
    size = min(small, 32) if device == "cpu" or facts.side <= SMALL else 64 if facts.side < LARGE else 128
    fitting = max(facts.images // STEPS, min(facts.images // 2, LEAST_BATCH), 2)
    batch = min(LARGEST_BATCH[device], 2 ** (fitting.bit_length() - 1))
    epochs = min(MOST_EPOCHS[device], max(1, round(PASSES[device] / facts.images)))
    changed: dict[str, Any] = {"data": data, "batch_size": batch, "epochs": epochs, "warmup_epochs": epochs / 10}
    changed["knn_every"] = max(1, epochs // 5)
    if method not in TILED:
        changed["image_size"] = size
    if "bn_splits" in vars(base):
        changed["bn_splits"] = min(base.bn_splits, max(1, batch // 8))
    return _told(replace(base, **changed), facts)


def _told(config: ImageConfig, facts: Facts) -> Recipe:
    about = (
        f"for {facts.images} images of {facts.side} px on {facts.device}: {config.backbone} on views of "
        f"{config.image_size} px, batch {config.batch_size}, {config.epochs} epochs, {config.optimizer} with learning "
        f"rate {config.learning_rate:g}; every one of these is an option"
    )
    return Recipe(config, about)
