"""Image files to uint8 tensors."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sslfast._extras import require


def read(path: Path) -> Tensor:
    """An image file as (3, H, W) uint8, whatever its mode. Raises ValueError naming the file if it cannot be read."""
    io = require("torchvision.io", extra="train")
    try:
        image = io.decode_image(io.read_file(str(path)), mode=io.ImageReadMode.RGB)
        if image.dtype == torch.uint8 and image.dim() == 3:
            return image
    except RuntimeError:
        pass  # Pillow knows more formats, and says what is wrong with a broken file
    return _read_with_pillow(path)


def _read_with_pillow(path: Path) -> Tensor:
    pillow = require("PIL.Image", extra="train")
    try:
        with pillow.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except Exception as error:  # decoders raise what they like
        raise ValueError(f"unreadable image {path}: {error}") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_square(path: Path, resize: int) -> Tensor:
    """The same with the shorter side resized (antialiased) to `resize` and the middle cut out: (3, resize, resize)."""
    functional = require("torchvision.transforms.v2.functional", extra="train")
    image = functional.resize(read(path), [resize], antialias=True)
    return functional.center_crop(image, [resize, resize]).contiguous()


def read_all(paths: Sequence[Path], shape: tuple[int, int, int], reader: Callable[[Path], Tensor]) -> Tensor | None:
    """All images in one tensor (N, C, H, W), read by as many threads as there are cores; None if a shape differs."""
    images = torch.empty((len(paths), *shape), dtype=torch.uint8)
    chunk = 64

    def fill(first: int) -> bool:
        for i in range(first, min(first + chunk, len(paths))):
            image = reader(paths[i])
            if image.shape != shape:
                return False
            images[i] = image
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            uniform = all(pool.map(fill, range(0, len(paths), chunk)))
        finally:
            pool.shutdown(cancel_futures=True)  # of what is left after a failure
    return images if uniform else None
