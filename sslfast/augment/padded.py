"""Images of different sizes in one tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PaddedImages:
    """A batch of images, each in the top left corner of its place.

    Args:
        pixels: (B, C, H, W); what is beyond an image's own size is never looked at.
        sizes: (B, 2) int32, height and width of each.
    """

    pixels: Tensor
    sizes: Tensor

    @classmethod
    def of(cls, images: Sequence[Tensor]) -> PaddedImages:
        """Images (C, h, w) of one number of channels and one dtype."""
        sizes = [tuple(image.shape[1:]) for image in images]
        pixels = images[0].new_zeros(len(images), images[0].shape[0], *map(max, zip(*sizes)))
        for place, image in zip(pixels, images):
            place[:, : image.shape[1], : image.shape[2]] = image
        return cls(pixels, torch.tensor(sizes, dtype=torch.int32, device=pixels.device))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: Tensor) -> PaddedImages:
        return PaddedImages(self.pixels[index], self.sizes[index])

    @property
    def shape(self) -> torch.Size:
        """(B, C, H, W), the largest height and width."""
        return self.pixels.shape

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> PaddedImages:
        moved = (tensor.to(device, non_blocking=non_blocking) for tensor in (self.pixels, self.sizes))
        return PaddedImages(*moved)

    def pin_memory(self) -> PaddedImages:
        return PaddedImages(self.pixels.pin_memory(), self.sizes.pin_memory())


Images = Tensor | PaddedImages


def stacked(images: Sequence[Tensor]) -> Images:
    """Images (C, h, w) as one tensor (B, C, H, W) if all have one size, else padded."""
    if all(image.shape == images[0].shape for image in images):
        return torch.stack(list(images))
    return PaddedImages.of(images)


def apart(images: Images) -> tuple[Tensor, Tensor | None]:
    """The pixels (B, C, H, W), and the sizes (B, 2) if they differ: what `ops.augment` takes."""
    return (images.pixels, images.sizes) if isinstance(images, PaddedImages) else (images, None)
