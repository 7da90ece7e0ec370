"""One split of a dataset: images of one shape and their labels, in memory or in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor


class ImageSet(ABC):
    """N images of one shape with a label each.

    Attributes:
        labels: (N,) int64 on the CPU, indices into `classes`.
        classes: names of the classes.
    """

    def __init__(self, labels: Tensor, classes: Sequence[str]) -> None:
        if labels.dim() != 1 or labels.dtype != torch.int64 or len(labels) == 0:
            raise ValueError(f"labels must be a non-empty int64 vector, got {tuple(labels.shape)} of {labels.dtype}")
        if labels.min() < 0 or labels.max() >= len(classes):
            raise ValueError(f"labels must be indices into the {len(classes)} classes, got up to {labels.max()}")
        self.labels = labels
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""


class TensorImages(ImageSet):
    """A set that is small enough to stay in memory: `images` (N, C, H, W) uint8."""

    def __init__(self, images: Tensor, labels: Tensor, classes: Sequence[str]) -> None:
        super().__init__(labels, classes)
        if images.dtype != torch.uint8 or images.dim() != 4 or len(images) != len(labels):
            raise ValueError(
                f"images must be ({len(labels)}, C, H, W) uint8, got {tuple(images.shape)} of {images.dtype}"
            )
        self.images = images
        self._copies: dict[torch.device, Tensor] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def on(self, device: torch.device | str) -> Tensor:
        """The images on a device, copied there once."""
        device = torch.device(device)
        if device == self.images.device:
            return self.images
        if device not in self._copies:
            self._copies[device] = self.images.to(device)
        return self._copies[device]


class FolderImages(ImageSet):
    """A set that is read from its files batch by batch, all brought to (3, resize, resize) by `decode.read_square`."""

    def __init__(self, paths: Sequence[Path], labels: Tensor, classes: Sequence[str], resize: int) -> None:
        super().__init__(labels, classes)
        if len(paths) != len(labels):
            raise ValueError(f"paths must be as many as the {len(labels)} labels, got {len(paths)}")
        self.paths = list(paths)
        self.resize = resize

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.resize, self.resize
