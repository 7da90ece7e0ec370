"""What training, evaluation and report ask of a modality."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sslfast.config import PretrainConfig
from sslfast.data import ExampleSet
from sslfast.models.weights import load_weights


class Modality(ABC):
    """All that differs between a run on images and one on text, besides the method.

    Args:
        config: the run's.
        folder: a run folder in which `save` has been called, to take up what it left there; None for a new run.
    """

    unit: ClassVar[str]
    """What one example is called, in the plural."""

    def __init__(self, config: PretrainConfig, folder: Path | None = None) -> None:
        self.config, self.folder = config, folder

    @abstractmethod
    def load(
        self,
        split: str,
        *,
        data: str | None = None,
        root: Path | None = None,
        download: bool = False,
        skip_corrupt: bool = False,
    ) -> ExampleSet:
        """The run's own examples, or those of another data set; `split` is "train" or "test"."""

    def save(self, folder: Path) -> None:
        """Leave in a new run's folder what a later process needs besides the configuration."""
        return

    @abstractmethod
    def build_backbone(self) -> nn.Module:
        """A new backbone, initialised by torch's default generator; `.num_features` is the F of its (B, F) output."""

    @abstractmethod
    def inputs(self, source: Any) -> Tensor:
        """A batch of examples, of whatever data set, as evaluation gives it to the backbone: nothing random."""

    def augmented(self, source: Any, generator: torch.Generator) -> Tensor:
        """The same for fine-tuning, with what a modality has in the way of augmentation; the same shape."""
        return self.inputs(source)

    @abstractmethod
    def baselines(self) -> dict[str, nn.Module]:
        """Networks from `inputs` to features that learned nothing, by name, besides the backbone at random init."""

    def describe(self) -> dict[str, Any]:
        """What results.json should say of the inputs."""
        return {}

    def read_weights(self, path: Path) -> dict[str, Tensor]:
        """The backbone's `state_dict` in an exported .safetensors file.

        Raises:
            ValueError: it is damaged, or was trained with other inputs than this run's.
        """
        return load_weights(path)

    @abstractmethod
    def export(self, backbone: nn.Module, folder: Path, *, head: nn.Module | None = None) -> None:
        """Write the trained backbone, and `Method.exported_head`, so that they can be read without sslfast."""

    @abstractmethod
    def load_exported(self, folder: Path) -> nn.Module:
        """What `export` wrote, in eval mode on the CPU.

        Raises:
            FileNotFoundError, ValueError: it is not there, or damaged.
        """
