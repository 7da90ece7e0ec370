"""Named recipes: a method with the hyperparameters that suit a data set, and where they come from; one file a method.

The name of a method alone is its recipe for the embedded data that suits it.
"""

from __future__ import annotations

from sslfast._outside import is_outside
from sslfast._words import nearest
from sslfast.data.registry import is_own
from sslfast.methods import METHODS, method_named
from sslfast.recipes import (
    byol,
    colorization,
    folder,
    inpainting,
    jigsaw,
    mae,
    moco,
    relative_patch,
    rotation,
    simclr,
    simsiam,
    text,
)
from sslfast.recipes.base import Recipe

RECIPES: dict[str, Recipe] = {
    **simclr.RECIPES,
    **moco.RECIPES,
    **byol.RECIPES,
    **simsiam.RECIPES,
    **mae.RECIPES,
    **rotation.RECIPES,
    **jigsaw.RECIPES,
    **relative_patch.RECIPES,
    **colorization.RECIPES,
    **inpainting.RECIPES,
    **text.RECIPES,
}

__all__ = ["RECIPES", "Recipe", "recipe_for"]

OWN = "a method of your own, by the defaults of its Config"

# Data sets without a recipe of their own take the one of a set like them.
LIKE = {"cifar100": "cifar10", "stl10": "cifar10", "stl10-unlabeled": "cifar10"}


def recipe_for(name: str, data: str | None = None, *, cpu: bool = False) -> tuple[str, Recipe]:
    """The recipe called `name`, or the one that suits `data` if `name` is a method; its own name comes with it.

    Args:
        cpu: that of one's own images is to be for the CPU, even if there is a GPU.

    Raises:
        ValueError: there is no such method or recipe; the message lists them. There is no such folder.
        ImportError: a method of somebody's own is not there.
    """
    if name not in RECIPES:
        return _of_own(name)
    kind = (data or "").partition(":")[0]
    method = RECIPES[name].config
    if data and is_own(data) and name == method.method and method.modality == "images":
        return f"{name}-folder", folder.sized(name, data, folder.look_at(data, cpu=cpu), RECIPES)
    for candidate in (f"{name}-{kind}", f"{name}-{LIKE.get(kind)}"):
        if candidate in RECIPES:
            return candidate, RECIPES[candidate]
    return name, RECIPES[name]


def _of_own(name: str) -> tuple[str, Recipe]:
    """The recipe for a method that is not sslfast's."""
    if name not in METHODS and not is_outside("methods", name):
        hint = nearest(name, [*RECIPES, *METHODS])
        raise ValueError(f"unknown method or recipe {name!r}{hint}; there are {', '.join([*RECIPES, *_own_names()])}")
    config = method_named(name).Config()
    return config.method, Recipe(config, OWN)


def _own_names() -> list[str]:
    return [name for name in METHODS if name not in RECIPES]
