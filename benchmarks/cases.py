"""What is measured: the inputs of every op, and the operations and bytes no implementation can do without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One op at one size; forward and backward together, if it has one."""

    op: str
    name: str
    flops: float  # of matrix products, at least
    bytes: float  # of inputs read and outputs written once
    make: Callable[[], dict[str, Tensor]]  # leaves on the CPU; those that are floating point get gradients


def nt_xent(views: int, dim: int) -> Case:
    """M = 2N views of D features. By symmetry M²D to see each pair once, again for the gradient, and 2 M²D for it."""

    def make() -> dict[str, Tensor]:
        base = torch.randn(views // 2, dim)
        return {name: base + torch.randn(views // 2, dim) for name in ("z1", "z2")}

    return Case("nt_xent", f"M={views} D={dim}", 4 * views**2 * dim, 4 * 2 * views * dim, make)


def ema(source: torch.dtype) -> Case:
    """The 161 parameters of a ResNet-50, averaged in float32: targets read and written, sources read."""
    parameters = 25_557_032

    def make() -> dict[str, Tensor]:
        from torchvision.models import resnet50

        shapes = [parameter.shape for parameter in resnet50().parameters()]
        inputs = {f"target{k}": torch.randn(shape) for k, shape in enumerate(shapes)}
        return inputs | {f"source{k}": torch.randn(shape).to(source) for k, shape in enumerate(shapes)}

    return Case("ema", f"ResNet-50 {source}".replace("torch.", ""), 0, (8 + source.itemsize) * parameters, make)


CASES = [nt_xent(m, d) for m, d in ((256, 128), (512, 128), (2048, 128), (8192, 128), (8192, 512))]
CASES += [ema(source) for source in (torch.float32, torch.bfloat16)]
