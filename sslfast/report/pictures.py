"""A report's pictures: image tensors as PNG that stands inside the page."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

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


def tile(image: Tensor, text: str, mark: str = "") -> Tile:
    """A tile of (1 or 3, H, W), uint8 or float in [0, 1]."""
    if image.is_floating_point():
        image = (image.clamp(0, 1) * 255).round().byte()
    pixels = image.cpu().permute(1, 2, 0).numpy()
    picture = require("PIL.Image", extra="train").fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    picture.thumbnail((LARGEST, LARGEST))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    source = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return Tile(source, text, mark, small=max(picture.size) < LARGEST)
