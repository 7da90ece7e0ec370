"""The training layer from Python: `sslfast.pretrain`, `sslfast.embed` and `sslfast.load_backbone`.

`sslfast.evaluate` is the package of that name, which can be called.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslfast import train
from sslfast.config import PretrainConfig
from sslfast.evaluate import Run, extract_features
from sslfast.evaluate.run import EXPORTED
from sslfast.evaluate.task import choose_device
from sslfast.models import load_backbone as load_image_backbone
from sslfast.models.text import WEIGHTS as TEXT_WEIGHTS
from sslfast.models.text import load_text_backbone
from sslfast.recipes import recipe_for


class Embedding(NamedTuple):
    """Features, a row an example.

    Args:
        features: (N, F) float32, on the CPU.
        labels: (N,) int64, indices into `classes`; all 0 without classes.
        names: of the examples: the path of a file, else its number.
        classes: names of the classes.
    """

    features: Tensor
    labels: Tensor
    names: list[str]
    classes: list[str]


def pretrain(
    method: str | PretrainConfig,
    *,
    output: str | Path | None = None,
    resume: train.Resume = False,
    init_from: str | Path | None = None,
    overwrite: bool = False,
    download: bool = False,
    **settings: Any,
) -> Run:
    """Train a network without labels, and return its run.

        run = sslfast.pretrain("simclr", data="photos", epochs=5)

    Args:
        method: a method, which takes the recipe for `data`; a recipe by its own name; or a method's `Config`.
        output: the run folder; runs/NAME of the recipe if None.
        resume, init_from, overwrite, download: see `train.pretrain`.
        settings: fields of the method's `Config` to change, `data`, `backbone` and `preset` among them.

    Raises:
        TypeError: there is no such field, or it has another type. And what `train.pretrain` raises.
    """
    if isinstance(method, PretrainConfig):
        name, config = method.method, method
    else:
        name, recipe = recipe_for(method, settings.get("data"), cpu=settings.get("accelerator") == "cpu")
        config = recipe.config
    if unknown := [field for field in settings if field not in vars(config)]:
        raise TypeError(f"{config.method} has no setting {', '.join(unknown)}; it has {', '.join(vars(config))}")
    folder = Path(output or Path("runs", name))
    options = {"resume": resume, "init_from": init_from, "overwrite": overwrite, "download": download}
    train.pretrain(replace(config, **settings), folder, **options)
    return Run(folder)


def embed(
    run: Run | str | Path,
    data: str | None = None,
    *,
    split: str = "test",
    device: torch.device | str | None = None,
    batch_size: int = 256,
    workers: int = 4,
    download: bool = False,
) -> Embedding:
    """The features of examples, from a run's backbone, each example brought to the network as in evaluation.

    features, labels, names, classes = sslfast.embed(run, "folder:birds")
    """
    run = Run(Path(run))
    examples = run.modality.load(split, data=data, download=download)
    features, labels = extract_features(
        run.backbone(),
        examples,
        inputs=run.modality.inputs,
        device=choose_device(device),
        batch_size=batch_size,
        workers=workers,
    )
    return Embedding(features.cpu(), labels.cpu(), [str(k) for k in range(len(labels))], examples.classes)


def load_backbone(path: str | Path | Run, *, device: torch.device | str = "cpu") -> nn.Module:
    """The trained backbone of a run, in eval mode: inputs as its training had them -> (B, `.num_features`).

    Args:
        path: a run, its folder, or RUN/exported.
        device: where its tensors go.

    Raises:
        FileNotFoundError: nothing has been exported there. ValueError: it is damaged.
    """
    folder = Path(path)
    if (folder / EXPORTED).is_dir():
        folder = folder / EXPORTED
    if (folder / TEXT_WEIGHTS).is_file():
        return load_text_backbone(folder).to(device)
    return load_image_backbone(folder, device=device)
