from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch
from torch import nn

from sslfast.models import build_backbone, export_backbone, load_backbone


def trained(name: str, **options: int) -> nn.Module:
    """A backbone whose buffers, too, are no longer those of a new one."""
    backbone = build_backbone(name, **options)
    backbone(torch.rand(4, options["in_channels"], 32, 32))
    return backbone.to(memory_format=torch.channels_last).eval()


def about(name: str, channels: int) -> dict[str, object]:
    return {"backbone": name, "in_channels": channels, "image_size": 32, "mean": [0.5], "std": [0.25]}


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_loaded_backbone_has_the_same_features(name: str, tmp_path: Path) -> None:
    backbone = trained(name, in_channels=1, image_size=32)
    folder = export_backbone(backbone, tmp_path / "exported", config=about(name, 1))
    loaded = load_backbone(folder)
    assert not loaded.training
    x = torch.rand(3, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), backbone(x))
    assert about(name, 1).items() <= json.loads((folder / "config.json").read_text()).items()


def test_it_loads_in_plain_pytorch(tmp_path: Path) -> None:
    original = trained("resnet18", in_channels=3, image_size=32)
    export_backbone(original, tmp_path, config=about("resnet18", 3))

    backbone = timm.create_model("resnet18", num_classes=0, in_chans=3)
    backbone.conv1, backbone.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    backbone.load_state_dict(safetensors.torch.load_file(tmp_path / "backbone.safetensors"))

    x = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(backbone.eval()(x), original(x))


def test_missing_key_missing_file_and_damaged_file_are_named(tmp_path: Path) -> None:
    backbone = build_backbone("resnet20", in_channels=1)
    with pytest.raises(ValueError, match="in_channels, image_size"):
        export_backbone(backbone, tmp_path, config={"backbone": "resnet20"})
    with pytest.raises(FileNotFoundError, match=r"backbone\.safetensors"):
        load_backbone(tmp_path / "nowhere")

    folder = export_backbone(backbone, tmp_path, config=about("resnet20", 3))  # wrong: it has 1 channel
    with pytest.raises(ValueError, match="does not hold an exported backbone"):
        load_backbone(folder)
    (folder / "backbone.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="does not hold an exported backbone"):
        load_backbone(folder)
