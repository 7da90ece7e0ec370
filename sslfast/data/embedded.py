"""Datasets that come with installed packages and need no download."""

from __future__ import annotations

import numpy as np
import torch

from sslfast._extras import require
from sslfast.data.images import TensorImages

TILE, CROP = 96, 64  # pixels
CROPS = {"train": 200, "test": 50}  # of each photograph


def load_digits(split: str, seed: int) -> TensorImages:
    """scikit-learn's 1797 handwritten digits, (1, 8, 8), a fifth of each class for testing.

    Alpaydin and Kaynak 1998, https://doi.org/10.24432/C50P49; the 17 levels of gray are stretched to 0..255.
    """
    digits = require("sklearn.datasets", extra="train").load_digits()
    split_off = require("sklearn.model_selection", extra="train").train_test_split
    rows = np.arange(len(digits.target))
    train, test = split_off(rows, test_size=0.2, stratify=digits.target, random_state=seed)
    chosen = np.sort(train if split == "train" else test)
    images = torch.from_numpy(digits.images[chosen] * (255 / 16)).round().to(torch.uint8)[:, None]
    return TensorImages(images, torch.from_numpy(digits.target[chosen]).long(), [str(n) for n in range(10)])


def load_photos(split: str, seed: int) -> TensorImages:
    """Random crops (3, 64, 64) of twelve photographs in scikit-learn and scikit-image; the label is the photograph.

    Each photograph is cut into tiles of 96 pixels, a quarter of which, spread over it, is for testing. A crop lies
    within one tile, so training and test crops share no pixel.
    """
    images, labels = [], []
    for label, photo in enumerate(photographs().values()):
        draw = np.random.default_rng([seed, label, split == "test"])
        tiles = _tiles(photo.shape[0], photo.shape[1], split)
        for tile in draw.integers(len(tiles), size=CROPS[split]):
            top, left = np.add(tiles[tile], draw.integers(TILE - CROP + 1, size=2))
            images.append(photo[top : top + CROP, left : left + CROP])
            labels.append(label)
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return TensorImages(stacked, torch.tensor(labels), list(photographs()))


def _tiles(height: int, width: int, split: str) -> list[tuple[int, int]]:
    """Top left corners of the tiles of a split; every fourth is for testing, shifted by two from row to row."""
    return [
        (TILE * row, TILE * column)
        for row in range(height // TILE)
        for column in range(width // TILE)
        if ((column + 2 * row) % 4 == 3) == (split == "test")
    ]


def photographs() -> dict[str, np.ndarray]:
    """Name -> (H, W, 3) uint8; those of scikit-image are in its wheel, not among its downloads."""
    skimage = require("skimage.data", extra="train")
    sample = require("sklearn.datasets", extra="train").load_sample_image
    photos = {
        "astronaut": skimage.astronaut(),
        "brick": skimage.brick(),
        "cat": skimage.chelsea(),
        "china": sample("china.jpg"),
        "coffee": skimage.coffee(),
        "coins": skimage.coins(),
        "flower": sample("flower.jpg"),
        "grass": skimage.grass(),
        "gravel": skimage.gravel(),
        "motorcycle": skimage.stereo_motorcycle()[0],
        "rocket": skimage.rocket(),
        "tissue": skimage.immunohistochemistry(),
    }
    return {name: photo if photo.ndim == 3 else np.stack([photo] * 3, axis=2) for name, photo in photos.items()}
