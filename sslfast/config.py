"""What a pretraining run is made of: one flat, typed dataclass, extended by every method with its own fields.

The text below a field is its help on the command line.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from sslfast._words import nearest

Optimizer = Literal["lars", "sgd", "adamw"]
Scaling = Literal["linear", "sqrt", "none"]
Precision = Literal["32", "bf16-mixed", "bf16-true", "16-mixed"]
Accelerator = Literal["auto", "cpu", "cuda", "mps", "tpu"]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """The fields every method has. Frozen; `dataclasses.replace` makes a changed copy.

    Raises:
        TypeError: a field has another type. ValueError: it is out of its range. The message names it.
    """

    method: ClassVar[str] = ""

    modality: ClassVar[Literal["images", "text"]]

    data: str
    backbone: str

    epochs: int = 100
    """Passes over the training examples."""
    batch_size: int = 256
    """Examples a device a forward pass. The effective batch is this x accumulate x devices."""
    accumulate: int = 1
    """Forward passes of an optimizer step. Their losses are averaged; contrastive methods see the negatives of all."""
    optimizer: Optimizer = "sgd"
    """Optimizer; biases and norm parameters are left out of weight decay and of LARS's adaptation."""
    learning_rate: float = 0.1
    """Peak learning rate before lr_scaling."""
    lr_scaling: Scaling = "linear"
    """linear: learning_rate x effective batch / 256; sqrt: learning_rate x sqrt(effective batch); none: as it is."""
    weight_decay: float = 1e-4
    """Weight decay: an L2 term for LARS and SGD, decoupled for AdamW."""
    momentum: float = 0.9
    """Momentum of LARS and SGD."""
    nesterov: bool = False
    """Nesterov's momentum, SGD only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moments."""
    warmup_epochs: float = 10.0
    """Epochs over which the learning rate rises linearly to its peak; a half cosine to 0 follows."""

    precision: Precision = "32"
    """Arithmetic of the networks: bf16-true also keeps trained weights, their gradients and optimizer states in
    bfloat16; biases, norms, moving averages and evaluation stay in float32."""
    compile: bool = False
    """Compile networks and loss into one graph by torch.compile, which takes up to minutes at the first step."""
    accelerator: Accelerator = "auto"
    """Kind of device; auto takes the best there is."""
    devices: int = 1
    """Devices of this machine to train on, one process each. torchrun decides it when it starts the processes."""
    nodes: int = 1
    """Machines that torchrun or SLURM started the training on."""
    sync_batchnorm: bool = True
    """BatchNorm over the batches of all devices (CUDA only)."""
    deterministic: bool = True
    """cuDNN's deterministic algorithms only, so that a resumed run has the same bits on a GPU too; without it the first
    steps try which algorithms are fastest."""
    seed: int = 0
    """Seed of weights, data order and augmentation."""

    logger: Literal["tensorboard", "wandb", "mlflow"] = "tensorboard"
    """What draws the curves, besides the run's own metrics.jsonl; install wandb or mlflow yourself."""
    log_every: int = 10
    """Optimizer steps between two lines of metrics."""
    knn_every: int = 10
    """Epochs between two kNN evaluations during training, and one at the end; 0 for none."""
    checkpoint_every: int = 0
    """Optimizer steps between two checkpoints, besides the one after every epoch; 0 for those only."""
    keep_checkpoints: int | Literal["every"] = 2
    """Checkpoints that are kept, the last included, or every one; an earlier one serves if the last is damaged."""

    def __post_init__(self) -> None:
        self._check_types()
        at_least = {
            "epochs": 1, "batch_size": 2, "accumulate": 1, "learning_rate": 0, "weight_decay": 0, "momentum": 0,
            "warmup_epochs": 0, "devices": 1, "nodes": 1, "seed": 0, "log_every": 1, "knn_every": 0,
            "checkpoint_every": 0,
        }  # fmt: skip
        if self.keep_checkpoints != "every":
            at_least["keep_checkpoints"] = 1
        self.check_at_least(**at_least)
        if self.seed >= 2**63:
            raise ValueError(f"seed must be below 2^63, got {self.seed}")
        if self.momentum >= 1:
            raise ValueError(f"momentum must be below 1, got {self.momentum}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be in [0, 1), got {self.betas}")

    def _check_types(self) -> None:
        hints = typing.get_type_hints(type(self))
        for name, value in vars(self).items():
            if typing.get_origin(hints[name]) is Literal:
                allowed = typing.get_args(hints[name])
                if value not in allowed:
                    raise ValueError(
                        f"{name} must be one of {', '.join(allowed)}, got {value!r}{nearest(str(value), allowed)}"
                    )
            elif not _fits(value, hints[name]):
                kind = getattr(hints[name], "__name__", None) if isinstance(hints[name], type) else None
                raise TypeError(f"{name} must be {kind or hints[name]}, got {value!r}")

    def check_at_least(self, **least: float) -> None:
        """Raise ValueError, naming the field, if one is below its least value or NaN."""
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """Every field and `method`, as JSON values."""
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items()}
        return {"method": self.method, **fields}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PretrainConfig:
        """What `to_dict` was made from; fields that are not there have their defaults.

        Raises:
            TypeError: there is no such field, or it has another type. ValueError: a field is out of its range.
        """
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        for name in ("method", "method_class"):  # which is the class, and where it is to be found
            fields.pop(name, None)
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class ImageConfig(PretrainConfig):
    """The fields of the methods that learn from images."""

    modality = "images"
    gray: ClassVar[bool] = False
    """Whether the backbone is given the images' luma, one channel, instead of their colours."""

    data: str = "digits"
    """Images to train on: digits, photos, cifar10, cifar100, stl10, stl10-unlabeled, folder:PATH, wds:SHARDS (tar
    files), or module:name, a dataset of torch or Hugging Face or a function that returns one for "train" and "test"."""
    data_root: str | None = None
    """Folder of the downloaded sets; the data sets' own default if not given."""
    image_size: int = 32
    """Side of the augmented views, in pixels."""
    preset: str = "simclr-cifar"
    """Augmentation: simclr, simclr-tf, simclr-cifar, moco-v1, moco-v2, simsiam, byol, mae, mnist-like, module:name, or
    JSON of values that `Preset` has, '{"crop_scale": [0.5, 1.0]}'."""
    strength: float = 1.0
    """Scales the augmentation: 0 is none, 1 the published one."""
    backbone: str = "resnet20"
    """Network to train: resnet20, vit_tiny_patch4 and its like, any name of timm.list_models(), or module:name, a
    module or what makes one. timm:NAME@pretrained, or the folder of a run, begins with the weights that are there."""
    source_size: int | None = None
    """Shorter side, in pixels, to which larger images of a folder are shrunk before views are cut from them; twice
    image_size if not given."""
    mean: tuple[float, ...] = ()
    """Mean of the images, white being 1, a number a channel; if not given the data set's: of a folder ImageNet's for 8
    bits and three channels, else its own."""
    std: tuple[float, ...] = ()
    """Standard deviation of the images, likewise."""
    workers: int = 4
    """Processes that decode images which do not fit in memory."""
    skip_corrupt: bool = False
    """Go on without image files that cannot be read; the log names each and says how many there are."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(image_size=4, strength=0, workers=0)
        if self.source_size is not None:
            self.check_at_least(source_size=1)
        if len(self.mean) != len(self.std) or not all(std > 0 for std in self.std):
            raise ValueError(f"mean and std must be as many numbers, std above 0, got {self.mean} and {self.std}")

    @property
    def source_side(self) -> int:
        """`source_size`, or its default."""
        return self.source_size or 2 * self.image_size


@dataclass(frozen=True, kw_only=True)
class TextConfig(PretrainConfig):
    """The fields of the methods that learn from text."""

    modality = "text"

    data: str = "docs"
    """Text to train on: docs, Python's language reference, or text:FILE (UTF-8)."""
    backbone: str = "bert-tiny"
    """Network to train: bert-tiny, -mini, -small, -medium or -base."""
    tokenizer: Literal["wordpiece", "bpe"] = "wordpiece"
    """Subword tokens, learned from the training passages: BERT's lower-cased WordPiece or GPT-2's byte-level BPE."""
    vocabulary: int = 4096
    """Tokens in the vocabulary at most, the five special ones included."""
    length: int = 64
    """Tokens of a passage at most, special ones included."""

    optimizer: Optimizer = "adamw"
    """Optimizer; biases and norm parameters are left out of weight decay and of LARS's adaptation."""
    learning_rate: float = 1e-3
    """Peak learning rate before lr_scaling."""
    lr_scaling: Scaling = "none"
    """linear: learning_rate x effective batch / 256; sqrt: learning_rate x sqrt(effective batch); none: as it is."""
    weight_decay: float = 0.01
    """Weight decay: an L2 term for LARS and SGD, decoupled for AdamW."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(vocabulary=6, length=8)


# Fields that may be changed when a run is resumed: none of them changes what is computed.
FREE = frozenset({"data_root", "accelerator", "workers", "skip_corrupt", "logger", "log_every", "knn_every",
                  "checkpoint_every", "keep_checkpoints"})  # fmt: skip


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The fields, as `name: old -> new`, in which two runs' `to_dict` differ beyond what a resumed run may change."""
    names = [name for name in {**old, **new} if name not in FREE and old.get(name) != new.get(name)]
    return [f"{name}: {old.get(name)} -> {new.get(name)}" for name in names]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a field of this type may have this value; an int is a float, a bool is neither."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is Literal:
        return value in inner
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is tuple and inner[1:] == (...,):
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if kind is tuple:
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_fits, value, inner))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)
