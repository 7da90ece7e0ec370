"""Named recipes: a method with the hyperparameters that suit a data set, and where they come from; one file a method.

The name of a method alone is its recipe for the embedded data that suits it.
"""

from __future__ import annotations

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

# Data sets without a recipe of their own take the one of a set like them.
LIKE = {"cifar100": "cifar10", "stl10": "cifar10", "stl10-unlabeled": "cifar10"}


def recipe_for(name: str, data: str | None = None, *, cpu: bool = False) -> tuple[str, Recipe]:
    """The recipe called `name`, or the one that suits `data` if `name` is a method; its own name comes with it.

    Args:
        cpu: a folder's is to be for the CPU, even if there is a GPU.

    Raises:
        ValueError: there is no such method or recipe; the message lists them. There is no such folder.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown method or recipe {name!r}; there are {', '.join(RECIPES)}")
    kind = (data or "").partition(":")[0]
    method = RECIPES[name].config
    if kind == "folder" and name == method.method and method.modality == "images":
        return f"{name}-folder", folder.sized(name, data, folder.look_at(data, cpu=cpu), RECIPES)
    for candidate in (f"{name}-{kind}", f"{name}-{LIKE.get(kind)}"):
        if candidate in RECIPES:
            return candidate, RECIPES[candidate]
    return name, RECIPES[name]
