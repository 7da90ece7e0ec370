"""A report's pictures: image tensors as PNG that stands inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import torch
from torch import Tensor

from sslfast._extras import require

LARGEST = 96  # px; what is larger is made smaller, so that the page stays light


@dataclass(frozen=True)
class Tile:
    """One picture as a data: URL, and `text` that says what it is.

    `mark` is its frame: "hit" (green), "miss" (red), "query" (none, but as wide), or empty. `small` pictures are
    enlarged with hard pixels.
    """

    source: str
    text: str
    mark: str = ""
    small: bool = False


def shown(image: Tensor) -> Tensor:
    """What a screen can show of (C, H, W) of any type: (1 or 3, H, W) in [0, 1].

    Of more than three channels these are the first three. What has more than 8 bits is stretched from its least to its
    largest value: of such pictures the range is seldom used.
    """
    x = image[:3] if len(image) >= 3 else image[:1]
    if image.dtype == torch.uint8:
        return x / 255
    x = x.float()
    if image.dtype == torch.uint16:
        low, high = x.amin(), x.amax()
        x = (x - low) / (high - low).clamp_min(1)
    return x.clamp(0, 1)


def tile(image: Tensor, text: str, mark: str = "") -> Tile:
    """A tile of (C, H, W), see `shown`."""
    pixels = (shown(image) * 255).round().byte().cpu().permute(1, 2, 0).numpy()
    picture = require("PIL.Image", extra="train").fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Tile(source, text, mark, small=max(picture.size) < LARGEST)
