"""A method, a network, a dataset and a preset of somebody's own, as another package has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from sslfast.augment import Preset
from sslfast.methods import SimCLR


@dataclass(frozen=True, kw_only=True)
class OwnConfig(SimCLR.Config):
    method: ClassVar[str] = "own"


class Own(SimCLR):
    Config = OwnConfig


class Net(nn.Module):
    """A network that knows nothing of sslfast, not even how many features it has."""

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).relu().mean(dim=(2, 3))


class Pictures(torch.utils.data.Dataset):
    """PIL images of a colour each, with or without a label."""

    def __init__(self, count: int = 40, labelled: bool = True) -> None:
        self.count, self.labelled = count, labelled

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        image = Image.new("RGB", (12, 10), (index % 2 * 200, 5 * index, 90))
        return (image, index % 2) if self.labelled else image


def pictures(split: str) -> Pictures:
    return Pictures(40 if split == "train" else 10)


GENTLE = Preset(crop_scale=(0.6, 1.0), brightness=0.1)
