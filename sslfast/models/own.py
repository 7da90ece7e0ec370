"""Backbones that are not sslfast's: modules given in Python, and what an import path or an entry point leads to."""

from __future__ import annotations

import copy
import hashlib
import inspect
import os
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from sslfast._outside import keep, outside, path_of
from sslfast.models.input_size import check_input_size


def backbone_name(backbone: Any) -> str:
    """The name by which `own_backbone` finds it again: its import path, or one for this process.

    The latter is the same in every process that is given a module of the same class and the same shapes.

    Raises:
        TypeError: it is neither a name, a path, a module nor a function that makes one. ValueError: its layers have no
            shape yet.
    """
    if isinstance(backbone, str):
        return backbone
    if isinstance(backbone, os.PathLike):  # of a run
        return os.path.abspath(backbone)
    if isinstance(backbone, nn.Module):
        if any(is_lazy(tensor) for tensor in (*backbone.parameters(), *backbone.buffers())):
            raise ValueError("backbone has lazy layers without a shape: call it on a batch of images first")
        shapes = ";".join(f"{name}{tuple(tensor.shape)}" for name, tensor in backbone.state_dict().items())
        return keep(copy.deepcopy(backbone), hashlib.sha256(shapes.encode()).hexdigest())
    if callable(backbone) and (path := path_of(backbone)):
        return path
    raise TypeError(
        f"backbone must be a name, a module, or a function or class that another process can import, got {backbone!r}"
    )


def own_backbone(name: str, *, in_channels: int, image_size: int) -> nn.Module:
    """The network that a name outside of sslfast and timm stands for.

    A module is copied as it was given. A function or class is called, with `in_channels` and `image_size` if it has
    such parameters, under the seed of the run. Its `num_features` becomes that of its output.

    Raises:
        TypeError: it is no module, or makes none. ValueError: it does not turn such images into (B, F).
    """
    found = outside("backbones", name)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise TypeError(f"backbone {name!r} must be a module or make one, got {type(found).__name__}")
        given = {"in_channels": in_channels, "image_size": image_size}
        taken = inspect.signature(found).parameters
        found = found(**{key: value for key, value in given.items() if key in taken})
        if not isinstance(found, nn.Module):
            raise TypeError(f"backbone {name!r} must make a module, got {type(found).__name__}")
    model = copy.deepcopy(found)
    output = check_input_size(model, name, in_channels, image_size)
    if not isinstance(output, torch.Tensor) or output.dim() != 2:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ValueError(f"backbone {name!r} must return (B, F) features, got {shape} of one image")
    if getattr(model, "num_features", None) != output.shape[1]:  # timm's may be that of the layer before a head
        model.num_features = output.shape[1]
    return model
