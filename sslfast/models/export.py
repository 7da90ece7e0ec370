"""Backbones as files that need no sslfast to be read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslfast._files import write_text
from sslfast.models.backbone import build_backbone
from sslfast.models.weights import load_weights, save_weights

WEIGHTS, CONFIG = "backbone.safetensors", "config.json"


def export_backbone(backbone: nn.Module, folder: str | Path, *, config: Mapping[str, Any]) -> Path:
    """Write FOLDER/backbone.safetensors and FOLDER/config.json, and return FOLDER.

    One of timm's backbones loads in plain PyTorch:

    ```python
    backbone = timm.create_model("resnet18", num_classes=0, in_chans=3)
    backbone.conv1, backbone.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()  # up to 64 px
    backbone.load_state_dict(safetensors.torch.load_file("RUN/exported/backbone.safetensors"))
    ```

    The second line is for ResNets trained on images up to 64 px only. `vit_tiny_patch4` trained on 32 px is

    ```python
    options = {"img_size": 32, "patch_size": 4, "num_classes": 0, "global_pool": "avg", "fc_norm": False}
    backbone = timm.create_model("vit_tiny_patch16_224", **options)
    ```

    and `load_backbone(folder)` does all of it, for every backbone. What timm builds without such changes, vision
    transformers and ResNets for larger images among it, is also a folder of timm's:

    ```python
    backbone = timm.create_model("local-dir:RUN/exported", pretrained=True)
    ```

    Args:
        backbone: the network, on any device; parameters and buffers are written as they are.
        folder: made if it is not there.
        config: what the reader needs, JSON values: at least `backbone`, `in_channels` and `image_size`; `mean` and
            `std` of the images it was trained on belong there too.

    Raises:
        ValueError: `config` lacks a key.
    """
    missing = [key for key in ("backbone", "in_channels", "image_size") if key not in config]
    if missing:
        raise ValueError(f"config of an exported backbone lacks {', '.join(missing)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = {**config, **_timm_fields(backbone, config)}
    save_weights(backbone, folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")  # last: it says that the weights are there
    return folder


def _timm_fields(backbone: nn.Module, config: Mapping[str, Any]) -> dict[str, Any]:
    """What timm looks for in config.json to build the network and to prepare images for it."""
    size = config["image_size"]
    own = getattr(backbone, "pretrained_cfg", None) or {}
    transform = {"input_size": [config["in_channels"], size, size]}
    transform |= {"fixed_input_size": bool(own.get("fixed_input_size", False))}
    transform |= {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "num_classes": 0}
    transform |= {key: config[key] for key in ("mean", "std") if key in config}
    if not hasattr(backbone, "timm_arguments"):
        return {"pretrained_cfg": transform}
    name, options = backbone.timm_arguments
    architecture = name.partition(".")[0]  # without the tag of published weights
    options = {key: value for key, value in options.items() if key != "pretrained"}
    return {"architecture": architecture, "num_classes": 0, "pretrained_cfg": transform, "model_args": options}


def load_backbone(folder: str | Path, *, device: torch.device | str = "cpu") -> nn.Module:
    """The exported backbone, in eval mode: (B, C, H, W) normalised floats -> (B, `.num_features`).

    Args:
        folder: RUN/exported, or wherever `export_backbone` wrote.
        device: where its tensors go.

    Raises:
        FileNotFoundError: one of the two files is not there.
        ValueError: the files do not belong together or are damaged.
    """
    folder = Path(folder)
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is not there; sslfast pretrain writes it to RUN/exported")
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        backbone = build_backbone(
            config["backbone"], in_channels=config["in_channels"], image_size=config["image_size"]
        )
        backbone.load_state_dict(load_weights(folder / WEIGHTS))
        backbone.pretrained_cfg = config.get("pretrained_cfg")  # as timm's networks say how they are fed
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder} does not hold an exported backbone: {error!r}") from error
    return backbone.to(device).eval()
