"""Every method small: fields for images of 16 px, networks of a layer or two, and a handful of random examples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import textruns
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.config import PretrainConfig
from sslfast.data import TensorImages
from sslfast.methods import METHODS
from sslfast.modality import images
from sslfast.models import export, text, vit

CONFIGS = {
    "simclr": {"learnable_temperature": True},
    "moco": {"batch_size": 6, "queue_size": 16, "symmetric": True},
    "byol": {"projection_hidden": 32, "projection_features": 16},
    "simsiam": {"projection_features": 64},
    "mae": {"backbone": "vit_micro_patch8", "decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "rotation": {},
    "jigsaw": {"tile_size": 8, "gap": 4, "jitter": 2, "hidden_features": 32, "permutations": 24},
    "relative-patch": {"tile_size": 8, "gap": 4, "jitter": 2, "hidden_features": 32},
    "colorization": {"decoder_width": 16},
    "inpainting": {"decoder_width": 8, "mask": "blocks", "adversarial": 0.1},
    "mlm": {},
    "clm": {},
    "sop": {"mlm_weight": 1.0},
    "nsp": {"mlm_weight": 1.0},
}
COUNT = 24  # random images
STEPS = {
    "batch_size": 6, "epochs": 2, "warmup_epochs": 0.5, "learning_rate": 0.05, "lr_scaling": "none", "log_every": 2,
    "knn_every": 0, "accelerator": "cpu",
}  # fmt: skip


class TinyBackbone(nn.Module):
    """Two convolutions: (B, C, H, W) -> (B, 16)."""

    num_features = 16

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 8, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn1(self.conv1(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_features(x).mean(dim=(2, 3))


def shrink(patch: pytest.MonkeyPatch) -> None:
    """Until the end of the test all images are random and all backbones tiny."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (COUNT, 3, 20, 20), dtype=torch.uint8, generator=generator)
    found = TensorImages(pixels, torch.arange(COUNT) % 2, ["even", "odd"])
    patch.setattr(images, "load_images", lambda *_, **__: found)
    build = images.build_backbone

    def tiny(name: str, *, in_channels: int, image_size: int) -> nn.Module:
        if name == "resnet20":
            return TinyBackbone(in_channels)
        return build(name, in_channels=in_channels, image_size=image_size)

    patch.setattr(images, "build_backbone", tiny)
    patch.setattr(export, "build_backbone", tiny)
    patch.setitem(vit.MICRO, "embed_dim", 32)
    patch.setitem(vit.MICRO, "depth", 1)
    patch.setitem(vit.MICRO, "num_heads", 2)
    for sizes, name in ((text.BERT, "bert-tiny"), (text.GPT2, "gpt2-tiny")):
        patch.setitem(sizes, name, (1, 16, 2))


def small_config(method: str, folder: Path, **changes: Any) -> PretrainConfig:
    """A configuration of so few and small steps; a text is written to `folder`."""
    fields = {**STEPS, **CONFIGS[method]}
    if METHODS[method].Config.modality == "text":
        source = folder / "source.txt"
        fields |= {"data": f"text:{source}", "vocabulary": 60, "length": 15}
        if not source.exists():
            textruns.write_text(source, words=60)
    else:
        fields |= {"data": "photos", "image_size": 16, "workers": 0}
    return METHODS[method].Config(**{**fields, **changes})
