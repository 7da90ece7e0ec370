"""Batches of images or passages, on the device."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sslfast.augment import Images, stacked
from sslfast.data.examples import ExampleSet
from sslfast.data.images import FolderImages, TensorImages
from sslfast.data.text import Passages, TokenSet

Batch = tuple[Tensor, "Images | Passages", Tensor]


def batches(
    images: ExampleSet,
    batch_size: int,
    *,
    device: torch.device | str = "cpu",
    order: Tensor | None = None,
    drop_last: bool = False,
    start: int = 0,
    workers: int = 0,
) -> Iterator[Batch]:
    """Go through a set of images or passages, or a part of it, once.

        order = torch.randperm(len(images), generator=generator)
        for index, pixels, labels in batches(images, 256, device="cuda", order=order): ...

    A set in memory is copied to the device once and indexed there; one in files is decoded by worker processes, into
    pinned memory where the device is a GPU, ahead of their use; they wait for the next call. torch's default generator
    is left alone.

    Args:
        order: (n,) integers, the images to visit; all of them in their order if None.
        drop_last: leave out a last batch that is not full.
        start: leave out that many batches at the beginning, without reading them.
        workers: processes that decode files; 0 decodes in this one. A set in memory needs none.

    Yields:
        index (B,) int64, pixels (B, C, H, W), `PaddedImages` if they differ in size, or B `Passages`, labels (B,)
        int64, all on the device. Where an image was skipped (see `load_folder`), they are those of the one in its
        place, and `images.corrupt` names it.

    Raises:
        ValueError: batch_size < 1, start < 0, workers < 0, an order that is no vector of indices; later: an image that
            cannot be read, by its file name.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("start", start, 0), ("workers", workers, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    order = torch.arange(len(images)) if order is None else order
    if order.dim() != 1 or order.is_floating_point() or order.is_complex() or order.dtype == torch.bool:
        raise ValueError(f"order must be a vector of indices, got {tuple(order.shape)} of {order.dtype}")
    if len(order) and not (order.min() >= 0 and order.max() < len(images)):
        raise ValueError(f"order must hold indices below {len(images)}, got {order.min()} to {order.max()}")
    parts = [part for part in order.long().split(batch_size) if len(part) == batch_size or not drop_last]
    parts = [part for part in parts[start:] if len(part)]
    device = torch.device(device)
    if isinstance(images, TensorImages | TokenSet):
        return _indexed(images, parts, device)
    return _decoded(images, parts, device, workers)


def _indexed(images: TensorImages | TokenSet, parts: list[Tensor], device: torch.device) -> Iterator[Batch]:
    pixels, labels = images.on(device), images.labels.to(device)
    if not parts:
        return
    order = torch.cat(parts).to(device)  # once: a copy for every batch would make the host wait
    for index in order.split(len(parts[0])):
        yield index, pixels[index], labels[index]


def _decoded(images: FolderImages, parts: list[Tensor], device: torch.device, workers: int) -> Iterator[Batch]:
    loader, images.loader = images.loader or _Loader(images, workers, device.type == "cuda"), None
    if not loader.fits(workers, device.type == "cuda"):
        loader = _Loader(images, workers, device.type == "cuda")
    for batch in loader.go_through(parts):
        if isinstance(batch, ValueError):
            raise batch
        *tensors, corrupt = batch
        images.corrupt.update(corrupt)
        index, pixels, labels = (tensor.to(device, non_blocking=True) for tensor in tensors)
        yield index, pixels, labels
    images.loader = loader  # free for the next epoch; whoever goes through the set meanwhile has another


class _Loader:
    """Worker processes that outlive an epoch."""

    def __init__(self, images: FolderImages, workers: int, pinned: bool) -> None:
        self.workers, self.pinned = workers, pinned
        self.images = images
        self.parts: list[Tensor] = []
        self.loader = DataLoader(
            _Files(images),
            batch_size=None,  # an index is a whole batch
            sampler=self,
            num_workers=workers,
            pin_memory=pinned,
            persistent_workers=workers > 0,
            generator=torch.Generator(),
        )

    def fits(self, workers: int, pinned: bool) -> bool:
        return (self.workers, self.pinned) == (workers, pinned)

    def go_through(self, parts: list[Tensor]) -> Iterator[Any]:
        self.parts = parts
        return iter(self.loader)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[list[int], dict[str, str]]]:
        """What the workers are sent: a batch, and which files are known by now to be unreadable."""
        for part in self.parts:
            yield part.tolist(), dict(self.images.corrupt)


class _Files(Dataset):
    """What a worker does: a batch of files to tensors, or to the error, which would else be buried in its traceback."""

    def __init__(self, images: FolderImages) -> None:
        self.images = images

    def __getitem__(self, batch: tuple[Sequence[int], dict[str, str]]) -> tuple | ValueError:
        indices, known = batch
        self.images.corrupt.update(known)
        try:
            found, pixels, corrupt = zip(*map(self.images.read, indices))
        except ValueError as error:
            return error
        index = torch.tensor(found)
        return index, stacked(pixels), self.images.labels[index], dict(ChainMap(*corrupt))
