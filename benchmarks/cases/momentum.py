"""Averages of parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.cases.case import Case, title


def ema(device: str, model: str, source: torch.dtype, **more) -> Case:
    """The parameters of a model, averaged in float32: targets read and written, sources read."""
    parameters = {"ResNet-50": 25_557_032, "ViT-L/16": 303_301_632, "two layers": 4_160}[model]

    def make() -> dict[str, Tensor]:
        shapes = parameter_shapes(model)
        inputs = {f"target{k}": torch.randn(shape) for k, shape in enumerate(shapes)}
        return inputs | {f"source{k}": torch.randn(shape).to(source) for k, shape in enumerate(shapes)}

    return Case("ema_update_", title(model, source), device, 0, (8 + source.itemsize) * parameters, make, **more)


def parameter_shapes(model: str) -> list[torch.Size]:
    if model == "two layers":
        return [torch.Size(shape) for shape in ((64, 32), (32,), (32, 64), (32,))]
    with torch.device("meta"):
        if model == "ResNet-50":
            from torchvision.models import resnet50

            network = resnet50()
        else:
            from timm import create_model

            network = create_model("vit_large_patch16_224", num_classes=0)
    return [parameter.shape for parameter in network.parameters()]
