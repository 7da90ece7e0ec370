"""What a report is made of: the run, its images, and its backbone's features of a sample of them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslfast.augment import apart
from sslfast.data import ImageSet, batches
from sslfast.data.decode import Unreadable
from sslfast.evaluate.features import extract_features
from sslfast.evaluate.results import read_results
from sslfast.evaluate.run import Run
from sslfast.evaluate.task import choose_device

MOST_TRAIN, MOST_TEST = 5000, 1500  # images whose features are computed


class Unavailable(Exception):
    """A section cannot be shown; the message says why."""


class Material:
    """Everything is loaded when a section first asks for it.

    Raises:
        FileNotFoundError: `run` is no run folder. ValueError: one of its files is damaged.
    """

    def __init__(
        self,
        run: Path,
        *,
        data_root: Path | None = None,
        download: bool = False,
        device: torch.device | str | None = None,
    ) -> None:
        self.run = Run(run)
        self.results = read_results(run)
        self.settings = self.run.settings  # a method or a field that there is not shows at once
        self.config: dict[str, Any] = self.run.config
        self.data_root, self.download = data_root, download
        self.device = choose_device(device)

    @cached_property
    def train(self) -> ImageSet:
        return self._images("train")

    @cached_property
    def test(self) -> ImageSet:
        return self._images("test")

    @cached_property
    def train_sample(self) -> Tensor:
        """Training images, (M,) indices ascending, M at most MOST_TRAIN."""
        return self._sample(self.train, MOST_TRAIN)

    @cached_property
    def test_sample(self) -> Tensor:
        """Test images, (M,) indices ascending, M at most MOST_TEST."""
        return self._sample(self.test, MOST_TEST)

    @cached_property
    def train_features(self) -> Tensor:
        """(M, F) features of `train_sample`."""
        return self._features(self.train, self.train_sample)

    @cached_property
    def test_features(self) -> Tensor:
        """(M, F) features of `test_sample`."""
        return self._features(self.test, self.test_sample)

    def generator(self) -> torch.Generator:
        """A generator seeded by the run's seed."""
        return torch.Generator().manual_seed(self.config["seed"])

    def spread(self, images: ImageSet, indices: Tensor, count: int) -> Tensor:
        """`count` of `indices`, drawn at random but going round the classes, so that all are seen."""
        shuffled = indices[torch.randperm(len(indices), generator=self.generator())]
        labels = images.labels[shuffled]
        turn = torch.zeros_like(labels)  # the how-manieth of its class an image is
        for label in labels.unique():
            turn[labels == label] = torch.arange(int((labels == label).sum()))
        order = (turn * (int(labels.max()) + 1) + labels).argsort(stable=True)
        return shuffled[order][:count]

    def pictures(self, images: ImageSet, indices: Tensor) -> list[Tensor]:
        """The images themselves, (1, C, H, W) each, as `ops.augment` takes them."""
        try:
            found = [apart(pixels) for _, pixels, _ in batches(images, 1, device="cpu", order=indices)]
        except (OSError, ValueError) as error:
            raise Unavailable(str(error)) from error
        return [x if sizes is None else x[..., : int(sizes[0, 0]), : int(sizes[0, 1])] for x, sizes in found]

    @cached_property
    def _backbone(self) -> torch.nn.Module:
        try:
            return self.run.backbone().to(memory_format=torch.channels_last)
        except FileNotFoundError as error:
            raise Unavailable(str(error)) from error

    def _images(self, split: str) -> ImageSet:
        try:
            return self.run.modality.load(split, root=self.data_root, download=self.download)
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            what = f"the {self.run.modality.unit} of {self.config['data']}"
            raise Unavailable(f"{what} could not be loaded: {error}") from error

    def _features(self, images: ImageSet, indices: Tensor) -> Tensor:
        options = {"inputs": self.run.modality.inputs, "device": self.device, "workers": self.config.get("workers", 0)}
        try:
            features, _ = extract_features(self._backbone, images, indices=indices, **options)
        except (OSError, Unreadable) as error:
            raise Unavailable(str(error)) from error
        if not features.isfinite().all():
            raise Unavailable("the backbone's features are not finite")
        return features.cpu()

    def _sample(self, images: ImageSet, most: int) -> Tensor:
        return torch.randperm(len(images), generator=self.generator())[:most].sort().values
