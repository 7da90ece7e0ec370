"""One split of a dataset: images and their labels, in memory or in files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslfast._files import printable
from sslfast.augment import Images, apart
from sslfast.data.decode import WHITE, Unreadable, converted, read
from sslfast.data.examples import ExampleSet

TRIES = 64  # images in a row; if none of them can be read, it is not they that are broken


class ImageSet(ExampleSet, ABC):
    """N images with a label each; they have one number of channels."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image, or of the place that each has if they differ in size."""


class TensorImages(ImageSet):
    """A set that is small enough to stay in memory, without the `corrupt` ones.

    Args:
        images: (N, C, H, W) uint8, uint16 or float32 in [0, 1]; `PaddedImages` of different sizes.
    """

    def __init__(
        self, images: Images, labels: Tensor, classes: Sequence[str], corrupt: dict[str, str] | None = None
    ) -> None:
        super().__init__(labels, classes)
        pixels, _ = apart(images)
        if pixels.dtype not in WHITE or pixels.dim() != 4 or len(pixels) != len(labels):
            wanted = f"({len(labels)}, C, H, W) uint8, uint16 or float32"
            raise ValueError(f"images must be {wanted}, got {tuple(pixels.shape)} of {pixels.dtype}")
        self.images = images
        self.corrupt = corrupt or {}
        self.paths: Sequence[Path] | None = None  # of the files that they were read from
        self._copies: dict[torch.device, Images] = {}

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def name(self, index: int) -> str:
        return super().name(index) if self.paths is None else printable(self.paths[index])

    def on(self, device: torch.device | str) -> Images:
        """The images on a device, copied there once."""
        device = torch.device(device)
        if device == self.images.device:
            return self.images
        if device not in self._copies:
            self._copies[device] = self.images.to(device)
        return self._copies[device]


class FolderImages(ImageSet):
    """A set that is read from its files batch by batch, by `decode.read`.

    Attributes:
        threads: that may read at once; None for as many as there are cores.

    With `skip_corrupt`, the next readable image of its class takes the place of one that cannot be read.

    Args:
        paths: of the N files; see `paths.Paths`.
        source_size: to which longer sides are shrunk.
        channels, dtype: of every image.
    """

    threads: int | None = None

    def __init__(
        self,
        paths: Sequence[Path],
        labels: Tensor,
        classes: Sequence[str],
        source_size: int,
        *,
        channels: int = 3,
        dtype: torch.dtype = torch.uint8,
        skip_corrupt: bool = False,
    ) -> None:
        super().__init__(labels, classes)
        if len(paths) != len(labels):
            raise ValueError(f"paths must be as many as the {len(labels)} labels, got {len(paths)}")
        self.paths = paths
        self.source_size = source_size
        self.channels, self.dtype = channels, dtype
        self.skip_corrupt = skip_corrupt
        self.loader: Any = None  # of `batches`, whose worker processes wait for the next epoch

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "loader": None}

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.channels, self.source_size, self.source_size

    def name(self, index: int) -> str:
        return printable(self.paths[index])

    def load(self, place: int) -> Tensor:
        """One file as the set has it, (C, H, W). Raises Unreadable."""
        path = self.paths[place]
        image = read(path, self.source_size)
        try:
            return converted(image, self.channels, self.dtype)
        except ValueError as error:
            raise Unreadable(path, str(error)) from error

    def read(self, index: int) -> tuple[int, Tensor, dict[str, str]]:
        """One image: whose it is, `index` itself or what took its place; (C, H, W); what was skipped.

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
                return place, self.load(place), corrupt
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
