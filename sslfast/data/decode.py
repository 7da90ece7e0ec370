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


class Unreadable(ValueError):
    """An image file that no decoder can read; `path`, and the `reason` in one line."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"unreadable image {self.path}: {self.reason}; skip_corrupt (--skip-corrupt) goes on without such files"


def read(path: Path) -> Tensor:
    """An image file as (3, H, W) uint8, whatever its mode. Raises Unreadable if it cannot be read."""
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
        raise Unreadable(path, " ".join(str(error).split())) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def read_square(path: Path, resize: int) -> Tensor:
    """The same with the shorter side resized (antialiased) to `resize` and the middle cut out: (3, resize, resize)."""
    functional = require("torchvision.transforms.v2.functional", extra="train")
    image = _read_reduced(path, resize)
    image = functional.resize(read(path) if image is None else image, [resize], antialias=True)
    return functional.center_crop(image, [resize, resize]).contiguous()


def _read_reduced(path: Path, least: int) -> Tensor | None:
    """A JPEG decoded at 1/2, 1/4 or 1/8 of its size, its shorter side still `least` or more; None for any other file.

    It leaves out most of the work: coefficients that a smaller picture does not need are never transformed.
    """
    pillow = require("PIL.Image", extra="train")
    try:
        with pillow.open(path) as image:
            if image.format != "JPEG" or min(image.size) < 2 * least:
                return None
            image.draft(None, (least, least))
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Exception:  # decoders raise what they like; `read` finds out what is wrong
        return None


def read_all(
    paths: Sequence[Path],
    shape: tuple[int, int, int],
    reader: Callable[[Path], Tensor],
    corrupt: dict[str, str] | None = None,
) -> Tensor | None:
    """All images in one tensor (N, C, H, W), read by as many threads as there are cores; None if a shape differs.

    Files that cannot be read are noted in `corrupt` with the reason, and their images are zero; Unreadable without it.
    """
    images = torch.zeros((len(paths), *shape), dtype=torch.uint8)
    chunk = 64

    def fill(first: int) -> bool:
        for i in range(first, min(first + chunk, len(paths))):
            try:
                image = reader(paths[i])
            except Unreadable as error:
                if corrupt is None:
                    raise
                corrupt[str(paths[i])] = error.reason
                continue
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
