"""One split of a dataset: images of one shape and their labels, in memory or in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from sslfast.data.decode import Unreadable, read_square
from sslfast.data.examples import ExampleSet

TRIES = 64  # images in a row; if none of them can be read, it is not they that are broken


class ImageSet(ExampleSet, ABC):
    """N images of one shape with a label each."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""


class TensorImages(ImageSet):
    """A set that is small enough to stay in memory: `images` (N, C, H, W) uint8, without the `corrupt` ones."""

    def __init__(
        self, images: Tensor, labels: Tensor, classes: Sequence[str], corrupt: dict[str, str] | None = None
    ) -> None:
        super().__init__(labels, classes)
        if images.dtype != torch.uint8 or images.dim() != 4 or len(images) != len(labels):
            raise ValueError(
                f"images must be ({len(labels)}, C, H, W) uint8, got {tuple(images.shape)} of {images.dtype}"
            )
        self.images = images
        self.corrupt = corrupt or {}
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
    """A set that is read from its files batch by batch, all brought to (3, resize, resize) by `decode.read_square`.

    With `skip_corrupt`, the next readable image of its class takes the place of one that cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Tensor,
        classes: Sequence[str],
        resize: int,
        *,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(labels, classes)
        if len(paths) != len(labels):
            raise ValueError(f"paths must be as many as the {len(labels)} labels, got {len(paths)}")
        self.paths = paths
        self.resize = resize
        self.skip_corrupt = skip_corrupt

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.resize, self.resize

    def read(self, index: int) -> tuple[int, Tensor, dict[str, str]]:
        """One image: whose it is, `index` itself or what took its place; (3, resize, resize) uint8; what was skipped.

        It depends on the files alone, so that every epoch, process and resumed run gets the same.

        Raises:
            ValueError: it cannot be read, and with `skip_corrupt` neither can up to 63 that follow it in its class.
        """
        corrupt: dict[str, str] = {}
        for place in self._candidates(index):
            path = self.paths[place]
            if str(path) in self.corrupt:
                continue
            try:
                return place, read_square(path, self.resize), corrupt
            except Unreadable as error:
                if not self.skip_corrupt:
                    raise
                corrupt[str(path)] = error.reason
        raise ValueError(
            f"unreadable image {self.paths[index]}, and none of its class after it can be read, up to {path}"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """The image, then those after it in its class, and after the last the first."""
        yield index
        mates = (self.labels == self.labels[index]).nonzero().flatten()
        yield from torch.cat([mates[mates > index], mates[mates < index]])[: TRIES - 1].tolist()
