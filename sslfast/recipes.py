"""Named recipes: a method with the hyperparameters that suit a data set, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass

from sslfast.config import PretrainConfig
from sslfast.methods.simclr import SimCLRConfig

__all__ = ["RECIPES", "PretrainConfig", "Recipe", "recipe_for"]


@dataclass(frozen=True)
class Recipe:
    """A configuration, and one line that says what it is good for or from where it is taken."""

    config: PretrainConfig
    about: str


# The name of a method alone is its recipe for the embedded data that suits it.
RECIPES: dict[str, Recipe] = {
    "simclr": Recipe(
        SimCLRConfig(
            data="digits",
            image_size=8,
            preset="mnist-like",
            backbone="resnet20",
            epochs=100,
            batch_size=256,
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=5e-4,
            warmup_epochs=3,
            temperature=0.2,
            projection_hidden=256,
        ),
        "handwritten digits that scikit-learn ships: a minute on two CPU cores (ours)",
    ),
    "simclr-photos": Recipe(
        SimCLRConfig(
            data="photos",
            image_size=32,
            preset="simclr",
            backbone="resnet20",
            epochs=10,
            batch_size=256,
            optimizer="sgd",
            learning_rate=0.12,
            weight_decay=5e-4,
            warmup_epochs=1,
            temperature=0.2,
        ),
        "crops of photographs that scikit-learn and scikit-image ship (ours)",
    ),
    "simclr-cifar10": Recipe(
        SimCLRConfig(
            data="cifar10",
            image_size=32,
            preset="simclr-cifar",
            backbone="resnet18",
            epochs=200,
            batch_size=512,
            optimizer="sgd",
            learning_rate=0.12,
            weight_decay=5e-4,
            warmup_epochs=0,
            temperature=0.5,
        ),
        "lightly's CIFAR-10 benchmark, kNN 83-85% after 200 epochs: SGD 0.06 x batch/128, decay 5e-4, temperature 0.5",
    ),
    "simclr-cifar10-cpu": Recipe(
        SimCLRConfig(
            data="cifar10",
            image_size=32,
            preset="simclr-cifar",
            backbone="resnet20",
            epochs=7,
            batch_size=256,
            optimizer="sgd",
            learning_rate=0.12,
            weight_decay=5e-4,
            warmup_epochs=0.5,
            temperature=0.5,
            precision="bf16-mixed",
            knn_every=0,
        ),
        "the same with a network and a length for half an hour of one CPU core with bfloat16 (ours)",
    ),
    "simclr-imagenet": Recipe(
        SimCLRConfig(
            data="folder:imagenet",
            image_size=224,
            preset="simclr",
            backbone="resnet50",
            epochs=100,
            batch_size=512,
            optimizer="lars",
            learning_rate=0.075,
            lr_scaling="sqrt",
            weight_decay=1e-6,
            warmup_epochs=10,
            temperature=0.1,
            projection_hidden=2048,
            precision="bf16-mixed",
            workers=12,
            log_every=50,
            knn_every=0,
            checkpoint_every=1000,
        ),
        "Chen et al. 2020, appendix B.1: LARS 0.075 x sqrt(batch), decay 1e-6, temperature 0.1, 10 warm-up epochs",
    ),
}

# Data sets without a recipe of their own take the one of a set like them.
LIKE = {"cifar100": "cifar10", "stl10": "cifar10", "folder": "imagenet"}


def recipe_for(name: str, data: str | None = None) -> tuple[str, Recipe]:
    """The recipe called `name`, or the one that suits `data` if `name` is a method; its own name comes with it.

    Raises:
        ValueError: there is no such method or recipe; the message lists them.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown method or recipe {name!r}; there are {', '.join(RECIPES)}")
    kind = (data or "").partition(":")[0]
    for candidate in (f"{name}-{kind}", f"{name}-{LIKE.get(kind)}"):
        if candidate in RECIPES:
            return candidate, RECIPES[candidate]
    return name, RECIPES[name]
