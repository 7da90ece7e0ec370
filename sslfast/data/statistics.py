"""Mean and standard deviation of a folder's images."""

from __future__ import annotations

import torch

from sslfast.augment import apart
from sslfast.data.batches import batches
from sslfast.data.decode import WHITE
from sslfast.data.folder import evenly
from sslfast.data.images import ImageSet

LOOKED_AT = 256  # images
STEP = 1 / 65535  # the least standard deviation, of a channel in which nothing ever is


def statistics(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, std) of the pixels, white being 1, a number a channel, of 256 images spread evenly over the set."""
    chosen = torch.tensor(evenly(len(images), LOOKED_AT))
    pixels, sums, squares = 0, 0, 0
    for _, found, _ in batches(images, 1, order=chosen):
        image, sizes = apart(found)
        height, width = image.shape[-2:] if sizes is None else sizes[0].tolist()
        x = image[0, :, :height, :width].double() / WHITE[image.dtype]
        pixels, sums, squares = pixels + height * width, sums + x.sum(dim=(1, 2)), squares + x.square().sum(dim=(1, 2))
    mean = sums / pixels
    std = (squares / pixels - mean.square()).clamp_min(STEP**2).sqrt()
    return tuple(round(value, 6) for value in mean.tolist()), tuple(round(value, 6) for value in std.tolist())
