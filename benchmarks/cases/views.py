"""Augmentation: views of images."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.cases.case import Case


def augment(device: str, batch: int, source: int, size: int, **more) -> Case:
    """SimCLR's views, one an image, their drawing included: uint8 sources read, float32 views written.

    Smooth pictures, so that the jumps of the hue and the clamps leave float32 beside float64. `view` is but a size.
    """

    def make() -> dict[str, Tensor]:
        small = torch.rand(batch, 3, max(2, source // 16), max(2, source // 16))
        smooth = torch.nn.functional.interpolate(small, (source, source), mode="bicubic").clamp(0, 1)
        return {"images": (255 * smooth).to(torch.uint8), "view": torch.zeros(size, size, dtype=torch.uint8)}

    moved = batch * 3 * (source**2 + 4 * size**2)
    return Case("augment", f"B={batch} {source} to {size} px SimCLR", device, 0, moved, make, **more)
