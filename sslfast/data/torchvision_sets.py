"""Datasets that torchvision reads, and downloads when asked to."""

from __future__ import annotations

from pathlib import Path

import torch

from sslfast._extras import require
from sslfast.data.examples import NO_LABELS
from sslfast.data.images import TensorImages

FILES = {  # name -> (torchvision's class, what its folder under the root is called)
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "stl10": ("STL10", "stl10_binary"),
    "stl10-unlabeled": ("STL10", "stl10_binary"),
}


def load_torchvision(name: str, split: str, *, root: Path, download: bool = False) -> TensorImages:
    """CIFAR-10 and CIFAR-100 (3, 32, 32), or a part of STL-10 (3, 96, 96), from their files under `root`.

    Raises:
        ValueError: the test split of images without labels is asked for.
        FileNotFoundError: they are not there, or damaged, or could not be downloaded; says where they belong.
    """
    datasets = require("torchvision.datasets", extra="train")
    class_name, folder = FILES[name]
    cls = getattr(datasets, class_name)
    if name == "stl10-unlabeled" and split == "test":
        raise ValueError(f"{name} has no labels and no test split: judge the network on stl10 (evaluate --data stl10)")
    part = "unlabeled" if name == "stl10-unlabeled" else split
    chosen = {"split": part} if class_name == "STL10" else {"train": split == "train"}
    try:
        dataset = cls(root, download=download, **chosen)
    except (RuntimeError, OSError) as error:
        reason = f"could not be downloaded ({error})" if download else f"is not complete in {root}"
        raise FileNotFoundError(
            f"{name} {reason}: with network, ask for it with download=True (--download); "
            f"or unpack {cls.url} so that {root / folder} exists"
        ) from error
    if name == "stl10":
        return TensorImages(torch.from_numpy(dataset.data), torch.from_numpy(dataset.labels).long(), dataset.classes)
    if name == "stl10-unlabeled":
        images = TensorImages(torch.from_numpy(dataset.data), torch.zeros(len(dataset.data), dtype=torch.int64), [])
        images.notes = (NO_LABELS,)
        return images
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return TensorImages(images, torch.tensor(dataset.targets), dataset.classes)
