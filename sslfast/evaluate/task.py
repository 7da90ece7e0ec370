"""What a protocol judges networks on: the images, and how they are brought to the network."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from sslfast.data import ExampleSet
from sslfast.evaluate.features import extract_features, fingerprint

Features = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """Labelled examples to train a classifier on and others to test it on.

    Args:
        train, test: the two splits.
        inputs: a batch of examples to what networks take, see `Modality.inputs`.
        augmented: the same with a generator that augments them at random, see `Modality.augmented`; None for `inputs`.
        device: where networks compute.
        batch_size: examples a forward pass.
        seed: of everything that a protocol draws, the subset of `limit` too.
        limit: at most this many examples of each split, drawn at random; None for all.
        workers: processes that decode images which are not in memory.

    Raises:
        ValueError: batch_size or limit is below 1, or seed not in [0, 2^63).
    """

    train: ExampleSet
    test: ExampleSet
    inputs: Callable[[Any], Tensor]
    augmented: Callable[[Any, torch.Generator], Tensor] | None = None
    device: torch.device | str = "cpu"
    batch_size: int = 256
    seed: int = 0
    limit: int | None = None
    workers: int = 0
    _found: MutableMapping[nn.Module, tuple[str, Features]] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must be at least 0 and below 2^63, got {self.seed}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")

    def indices(self, examples: ExampleSet) -> Tensor:
        """The examples of a split that are used, (M,) int64 ascending."""
        if self.limit is None or self.limit >= len(examples):
            return torch.arange(len(examples))
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randperm(len(examples), generator=generator)[: self.limit].sort().values

    def features(self, network: nn.Module) -> Features:
        """Features of the frozen network and labels: train_x (N_train, F), train_y, test_x (N_test, F), test_y,
        all on `device`.

        They are computed once for a network, as long as it stays the same.

        Raises:
            ValueError: a feature is not finite.
        """
        weights = fingerprint(network)
        known, features = self._found.get(network, ("", None))
        if features is not None and known == weights:
            return features
        options = {"inputs": self.inputs, "device": self.device}
        options |= {"batch_size": self.batch_size, "workers": self.workers}
        train_x, train_y = extract_features(network, self.train, indices=self.indices(self.train), **options)
        test_x, test_y = extract_features(network, self.test, indices=self.indices(self.test), **options)
        check_features(train_x, train_y, test_x, test_y)
        self._found[network] = weights, (train_x, train_y, test_x, test_y)
        return train_x, train_y, test_x, test_y


def check_features(train_x: Tensor, train_y: Tensor, test_x: Tensor, test_y: Tensor) -> None:
    """Refuse features and labels that no classifier can be judged on.

    Raises:
        ValueError: shapes do not fit each other, a split is empty, or a feature is not finite; names the argument.
    """
    for split, x, y in (("train", train_x, train_y), ("test", test_x, test_y)):
        if x.dim() != 2 or 0 in x.shape:
            raise ValueError(f"{split}_x must be (N, F) and not empty, got {tuple(x.shape)}")
        if y.shape != (len(x),):
            raise ValueError(f"{split}_y must have one label for each of the {len(x)} rows, got {tuple(y.shape)}")
        if not x.isfinite().all():
            raise ValueError(f"{split}_x has NaN or infinite features: the network is broken")
    if train_x.shape[1] != test_x.shape[1]:
        raise ValueError(f"test_x must have {train_x.shape[1]} features as train_x has, got {test_x.shape[1]}")


def choose_device(device: torch.device | str | None) -> torch.device:
    """The device asked for; for None, CUDA if there is a device, else the CPU.

    Raises:
        ValueError: there is no such device here.
    """
    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return chosen
