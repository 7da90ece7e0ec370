"""The training layer from Python: `sslfast.pretrain`, `embed`, `give` and `load_backbone`.

`sslfast.evaluate` is the package of that name, which can be called.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslfast import train
from sslfast.augment import Preset
from sslfast.config import PretrainConfig
from sslfast.data import located
from sslfast.data.given import name_of
from sslfast.evaluate import Run, extract_features
from sslfast.evaluate.run import EXPORTED
from sslfast.evaluate.task import choose_device
from sslfast.methods import Method, register
from sslfast.models import load_backbone as load_image_backbone
from sslfast.models.own import backbone_name
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
    method: str | PretrainConfig | type[Method],
    *,
    data: Any = None,
    backbone: Any = None,
    preset: str | Preset | None = None,
    output: str | Path | None = None,
    resume: train.Resume = False,
    init_from: str | Path | None = None,
    overwrite: bool = False,
    download: bool = False,
    **settings: Any,
) -> Run:
    """Train a network without labels, and return its run.

        run = sslfast.pretrain("simclr", data=dataset, backbone="timm:resnet18@pretrained", epochs=5)

    Args:
        method: a method, which takes the recipe for `data`; a recipe by its own name; a method's `Config`; or a class
            of one's own.
        data: a name as on the command line (photos, folder:PATH, wds:SHARDS, module:name); a dataset of torch or of
            Hugging Face, or arrays, of images with or without labels; or a pair of them, for training and testing.
        backbone: a name (`models.build_backbone`), `timm:NAME@pretrained`, a run to begin with, or a module.
        preset: a name, or a `Preset` of one's own.
        output: the run folder; runs/NAME of the recipe if None.
        resume, init_from, overwrite, download: see `train.pretrain`.
        settings: fields of the method's `Config` to change.

    The run remembers what it was given by import paths where there are such. A dataset or a module that has none must
    be passed again, by `give`, in a process that evaluates, reports or resumes the run.

    Raises:
        TypeError: there is no such field, or it has another type. And what `train.pretrain` raises.
    """
    given = (("data", data, name_of), ("backbone", backbone, backbone_name), ("preset", preset, str))
    settings |= {field: name(value) for field, value, name in given if value is not None}
    if isinstance(method, type):
        method = register(method).Config.method
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


def give(thing: Any) -> str:
    """Pass a dataset or a network again that a run was given in another process; returns the run's name for it.

        sslfast.give(dataset)
        sslfast.evaluate("runs/simclr")

    Raises:
        TypeError, ValueError: it is neither.
    """
    return backbone_name(thing) if isinstance(thing, nn.Module) else name_of(thing)


def embed(
    run: Run | str | Path,
    data: Any = None,
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
    examples = run.modality.load(split, data=None if data is None else located(data), download=download)
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
