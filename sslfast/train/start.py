"""The weights that a training begins with, where they are not random ones."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from sslfast._extras import require
from sslfast.checkpoint import CHECKPOINT, load_checkpoint
from sslfast.config import PretrainConfig
from sslfast.evaluate.run import EXPORTED
from sslfast.models.backbone import TIMM

if TYPE_CHECKING:
    from sslfast.train.loop import Training

CLASSIFIERS = ("fc.", "head.", "classifier.")  # which a backbone has none of
STEM = "conv1.weight"


def start_of(config: PretrainConfig, init_from: str | Path | None) -> tuple[PretrainConfig, str | None]:
    """The configuration with the bare name of its backbone, and what it is initialised from.

    `timm:NAME@pretrained` is NAME with timm's published weights, `timm:NAME@FILE` with those in a file of timm's; a run
    or an exported folder is the backbone that is there.

    Raises:
        ValueError: both the backbone and `init_from` say where the weights are from.
    """
    backbone, found = config.backbone, None
    if backbone.startswith(TIMM) and "@" in backbone:
        found, backbone = backbone, backbone.removeprefix(TIMM).partition("@")[0]
    elif os.sep in backbone and (about := _about(Path(os.path.expanduser(backbone)))):
        found, backbone = backbone, about["backbone"]
    if found and init_from:
        raise ValueError(f"init_from is {init_from}, but the backbone {found} has weights too: give one of both")
    return replace(config, backbone=backbone), found or (os.fspath(init_from) if init_from else None)


def initialise(training: Training, source: str | Path) -> str | None:
    """Take the weights, and nothing else, of what `start_of` found: a checkpoint, a .safetensors file of a backbone, a
    run, its exported folder, or timm's; and say what of the network still begins at random.

    Raises:
        FileNotFoundError: it is not there. ValueError: it is damaged, or its weights are of another network.
    """
    source, method, backbone = os.fspath(source), training.method, training.method.backbone
    try:
        if source.startswith(TIMM):
            return _load_published(backbone, source, training)
        path = _file_of(Path(os.path.expanduser(source)))
        if path.suffix == ".safetensors":
            return _load(backbone, training.modality.read_weights(path))
        method.load_state_dict(load_checkpoint(path)["method"])
    except RuntimeError as error:
        raise ValueError(f"the weights of {source} do not fit {training.config.backbone}: {error}") from error
    return None


def _about(folder: Path) -> dict[str, str] | None:
    """The configuration of a run or of what it exported."""
    try:
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return about if isinstance(about, dict) and isinstance(about.get("backbone"), str) else None


def _file_of(path: Path) -> Path:
    """The weights in a run's folder or in what it exported; a file itself."""
    if path.is_file():
        return path
    for folder in (path / EXPORTED, path):
        if found := sorted(folder.glob("*.safetensors")):
            return found[0]
    if (path / CHECKPOINT).is_file():
        return path / CHECKPOINT
    raise FileNotFoundError(f"there is no file {path} to initialise from, nor a run that has weights")


def _load_published(backbone: nn.Module, source: str, training: Training) -> str | None:
    name, _, which = source.removeprefix(TIMM).partition("@")
    channels = len(training.modality.normalization[0])
    options = {"pretrained": True, "num_classes": 0, "in_chans": channels}
    if which != "pretrained":
        if not Path(which).is_file():
            raise FileNotFoundError(f"there is no file {which} with weights of {name}; timm's own are @pretrained")
        options["pretrained_cfg_overlay"] = {"file": which, "custom_load": False}
    timm = require("timm", extra="train")
    try:
        try:
            published = timm.create_model(name, img_size=training.config.image_size, **options)
        except TypeError:  # a network that takes any size has no such argument
            published = timm.create_model(name, **options)
    except Exception as error:  # downloads raise what they like
        raise ValueError(f"the weights {source} cannot be had: {' '.join(str(error).split())}") from error
    return _load(backbone, published.state_dict())


def _load(backbone: nn.Module, weights: dict[str, Tensor]) -> str | None:
    """Load all of them but a classifier's, and a stem's for larger images."""
    own = backbone.state_dict()
    weights = {name: w for name, w in weights.items() if name in own or not name.startswith(CLASSIFIERS)}
    note = None
    if STEM in own and STEM in weights and own[STEM].shape[-1] < weights[STEM].shape[-1]:  # resnet.small_image_stem
        weights[STEM] = own[STEM]
        note = f"{STEM} begins at random: the weights have a stem for larger images than image_size here"
    backbone.load_state_dict(weights)
    return note
