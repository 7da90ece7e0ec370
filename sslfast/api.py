"""The training layer from Python: `sslfast.pretrain`, `embed`, `give` and `load_backbone`.

`sslfast.evaluate` is the package of that name, which can be called.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sslfast import train
from sslfast._files import replacing
from sslfast.augment import Preset
from sslfast.config import PretrainConfig
from sslfast.data import ExampleSet, load_images, located
from sslfast.data.given import name_of
from sslfast.data.registry import is_own
from sslfast.evaluate import Run, extract_features
from sslfast.evaluate.run import EXPORTED
from sslfast.evaluate.task import choose_device
from sslfast.methods import Method, register
from sslfast.modality.images import Transform, to_inputs
from sslfast.models import load_backbone as load_image_backbone
from sslfast.models.export import CONFIG
from sslfast.models.own import backbone_name
from sslfast.models.text import WEIGHTS as TEXT_WEIGHTS
from sslfast.models.text import load_text_backbone
from sslfast.recipes import recipe_for


class Embedding(NamedTuple):
    """Features, a row an example.

    Args:
        features: (N, F) float32, on the CPU.
        labels: (N,) int64, indices into `classes`; all 0 without classes.
        names: of the examples: the path of a file, else its number, after SPLIT/ where there are two splits.
        classes: names of the classes; none without labels.
    """

    features: Tensor
    labels: Tensor
    names: list[str]
    classes: list[str]

    def save(self, path: str | Path) -> None:
        """Write .npz with these four arrays, or .parquet with the columns name, label (a class's name) and feature.

        Raises:
            ValueError: the path ends in something else. ImportError: pyarrow, which writes Parquet, is not installed.
        """
        path = Path(path)
        check_output(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            if path.suffix == ".npz":
                arrays = {"features": self.features.numpy(), "labels": self.labels.numpy()}
                with open(temporary, "wb") as file:
                    np.savez(file, **arrays, names=np.array(self.names), classes=np.array(self.classes, dtype=str))
                return
            arrow = importlib.import_module("pyarrow")
            flat = arrow.array(self.features.flatten().numpy())
            columns = {
                "name": self.names,
                "label": [self.classes[label] if self.classes else None for label in self.labels.tolist()],
                "feature": arrow.FixedSizeListArray.from_arrays(flat, self.features.shape[1]),
            }
            importlib.import_module("pyarrow.parquet").write_table(arrow.table(columns), temporary)


def check_output(path: Path) -> None:
    """Refuse what `Embedding.save` cannot write.

    Raises:
        ValueError, ImportError: see there.
    """
    if path.suffix not in (".npz", ".parquet"):
        raise ValueError(f"output must end in .npz or .parquet, got {path}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ImportError("output .parquet needs the package 'pyarrow': pip install pyarrow, or write .npz")


def pretrain(
    method: str | PretrainConfig | type[Method] | Run,
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
        method: a method, which takes the recipe for `data`; a recipe by its own name; a method's `Config`; a class of
            one's own; or a run to `resume`, perhaps with more epochs.
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
    if isinstance(method, Run):
        method, output = method.settings, output or method.folder
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
    model: Run | nn.Module | str | Path,
    data: Any = None,
    *,
    split: str | None = None,
    inputs: Callable[[Any], Tensor] | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 256,
    workers: int = 4,
    data_root: str | Path | None = None,
    download: bool = False,
    skip_corrupt: bool = False,
) -> Embedding:
    """The features of every example, each brought to the network as in evaluation; nothing is random.

        features, labels, names, classes = sslfast.embed(run, "folder:birds")

    Args:
        model: a run, its folder; or a network from images to features (B, F), as `load_backbone` returns.
        data: as `pretrain` takes it; the run's own if None.
        split: "train" or "test"; None for all examples, those of one's own images in their order.
        inputs: images (B, C, H, W) as `data.batches` yields them, to what the network takes; if None as the run was
            trained, or as the network's `pretrained_cfg` says, which timm's have too.
        device: where it computes; CUDA if there is a device, else the CPU.
        batch_size: examples a forward pass.
        workers: processes that decode images which do not fit in memory.
        data_root, download: of the sets that are downloaded.
        skip_corrupt: leave out images that cannot be read.

    Raises:
        TypeError: a network comes without data, or says nothing of its inputs. And what `load_images` raises.
    """
    if isinstance(model, nn.Module):
        if data is None:
            raise TypeError("data must be given with a network, which has none of its own")
        network, size, own = model, *_inputs_of(model, inputs)
        options = {"source_size": 2 * size, "root": data_root, "download": download, "skip_corrupt": skip_corrupt}
        load, images = partial(load_images, **options), True
    else:
        run = Run(Path(model))
        network, own, images = run.backbone(), inputs or run.modality.inputs, run.settings.modality == "images"
        root = None if data_root is None else Path(data_root)

        def load(name: str, split: str | None) -> ExampleSet:
            return run.modality.load(split, data=name, root=root, download=download, skip_corrupt=skip_corrupt)

        data = run.config["data"] if data is None else data
    name = located(data)
    splits = (split,) if split else (None,) if images and is_own(name) else ("train", "test")
    parts = []
    for part in splits:
        examples = load(name, part)
        options = {"device": choose_device(device), "batch_size": batch_size, "workers": workers}
        features, labels = extract_features(network, examples, inputs=own, **options)
        names = [examples.name(index) for index in range(len(examples))]
        whole = [k for k, found in enumerate(names) if found not in examples.corrupt]
        names = [names[k] if len(splits) == 1 else f"{part}/{names[k]}" for k in whole]
        parts.append(Embedding(features[whole].cpu(), labels[whole].cpu(), names, examples.classes))
    features, labels = (torch.cat(tensors) for tensors in list(zip(*parts))[:2])
    return Embedding(features, labels, [name for part in parts for name in part.names], parts[0].classes)


def load_transform(path: str | Path | Run) -> Transform:
    """What brings single images to the backbone of a run, or of what it exported, as in evaluation.

    Raises:
        FileNotFoundError: nothing has been exported there. ValueError: it is of text, which has a tokenizer.
    """
    folder = _exported(path)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder / CONFIG} is not there; sslfast pretrain writes it to RUN/exported")
    about = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if "mean" not in about:
        raise ValueError(f"{folder} is of text: transformers.AutoTokenizer.from_pretrained reads its tokenizer")
    return Transform(about["image_size"], about["mean"], about["std"], source_size=about.get("source_size"))


def load_backbone(path: str | Path | Run, *, device: torch.device | str = "cpu") -> nn.Module:
    """The trained backbone of a run, in eval mode: inputs as its training had them -> (B, `.num_features`).

    Args:
        path: a run, its folder, or RUN/exported.
        device: where its tensors go.

    Raises:
        FileNotFoundError: nothing has been exported there. ValueError: it is damaged.
    """
    folder = _exported(path)
    if (folder / TEXT_WEIGHTS).is_file():
        return load_text_backbone(folder).to(device)
    return load_image_backbone(folder, device=device)


def _exported(path: str | Path | Run) -> Path:
    folder = Path(path)
    return folder / EXPORTED if (folder / EXPORTED).is_dir() else folder


def _inputs_of(network: nn.Module, inputs: Callable[[Any], Tensor] | None) -> tuple[int, Callable[[Any], Tensor]]:
    """The side of a network's images in pixels, and what makes them."""
    about = getattr(network, "pretrained_cfg", None) or {}
    if "input_size" not in about and inputs is None:
        raise TypeError(f"inputs must be given: {type(network).__name__} has no pretrained_cfg that says them")
    size = about.get("input_size", (3, 128, 128))[-1]
    return size, inputs or partial(to_inputs, size=size, mean=about["mean"], std=about["std"])
