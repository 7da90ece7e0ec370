"""A run folder, read: what was trained, how it went, and the networks at its beginning and its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslfast.checkpoint import CHECKPOINT, load_last
from sslfast.config import PretrainConfig
from sslfast.methods import Method, method_named
from sslfast.modality import Modality, modality_of

EXPORTED = "exported"
NEEDED = {"method": str, "data": str, "backbone": str, "seed": int, "epochs": int}  # of config.json


@dataclass(frozen=True)
class Run:
    """A folder that `sslfast pretrain` wrote; it is taken wherever a path is.

    Raises:
        FileNotFoundError: the folder is not there, or has no config.json and so is no run.
        ValueError: its config.json is damaged.
    """

    folder: Path

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(f"there is no run folder {self.folder}")
        if not (self.folder / "config.json").is_file():
            raise FileNotFoundError(f"{self.folder} is not a run: it has no config.json")
        if any(self.folder.glob("*.safetensors")):
            raise FileNotFoundError(f"{self.folder} is what a run exported: give the run's own folder")
        if lacking := [key for key in NEEDED if key not in self.config]:
            raise ValueError(f"{self.folder / 'config.json'} is no run's configuration: it lacks {', '.join(lacking)}")
        for key, kind in NEEDED.items():
            if not isinstance(self.config[key], kind):
                found = f"{key} must be {kind.__name__}, got {self.config[key]!r}"
                raise ValueError(f"{self.folder / 'config.json'} is no run's configuration: {found}")

    def __fspath__(self) -> str:
        return str(self.folder)

    @cached_property
    def config(self) -> dict[str, Any]:
        """Every field of the recipe, and `method`."""
        return self._json("config.json")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device, command and commit; empty if the run recorded none."""
        if not (path := self.folder / "environment.json").is_file():
            return {}
        found = self._json(path.name)
        if not isinstance(found.get("device", {}), dict):
            raise ValueError(f"{path} is damaged: device must be an object, got {found['device']!r}")
        return found

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, in order; a last line that is still being written is left out."""
        path = self.folder / "metrics.jsonl"
        lines = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and all(isinstance(value, int | float) for value in found.values()):
                lines.append(found)
        return lines

    @property
    def finished(self) -> bool:
        """Whether training came to its end, where it exports the backbone."""
        return (self.folder / EXPORTED / "config.json").is_file()

    @cached_property
    def settings(self) -> PretrainConfig:
        """The same as the method's `Config`.

        Raises:
            ValueError: there is no such method here, or a field does not fit it.
        """
        try:
            return self.method_class.Config.from_dict(self.config)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self.folder / 'config.json'} does not fit {self.config['method']}: {error}") from error

    @cached_property
    def method_class(self) -> type[Method]:
        """The method, which is imported if it is somebody's own.

        Raises:
            ValueError: there is no such method here. ImportError: its module is not there.
        """
        try:
            return method_named(self.config["method"], self.config.get("method_class"))
        except (ValueError, ImportError) as error:
            raise type(error)(f"{self.folder / 'config.json'} names a method that is not here: {error}") from error

    @cached_property
    def modality(self) -> Modality:
        """How this run's examples are loaded and its backbone is built and fed."""
        return modality_of(self.settings, self.folder)

    @cached_property
    def progress(self) -> tuple[int, int | None]:
        """(epoch, step) of the weights that `backbone` returns: how many are complete. None: no file says the steps."""
        if self.finished:
            return self.config["epochs"], max((line["step"] for line in self.metrics), default=None)
        state = self._checkpoint()
        return state["epoch"], state["step"]

    def backbone(self) -> nn.Module:
        """The last backbone, in eval mode on the CPU: the exported one, or the checkpoint's of an unfinished run.

        Raises:
            FileNotFoundError: neither is there. ValueError: the file is damaged or of another network.
        """
        if self.finished:
            return self.modality.load_exported(self.folder / EXPORTED)
        state = self._checkpoint()["method"]
        backbone = self.modality.build_backbone()
        weights = {name.removeprefix("backbone."): w for name, w in state.items() if name.startswith("backbone.")}
        try:
            backbone.load_state_dict(weights)
        except RuntimeError as error:
            raise ValueError(f"{self.folder / CHECKPOINT} does not fit {self.config['backbone']}: {error}") from error
        return backbone.eval()

    def initial_backbone(self, seed: int | None = None) -> nn.Module:
        """The backbone as a seed, the run's if None, initialises it, in eval mode on the CPU.

        Training began with the run's to the bit, unless it took other weights by `init_from`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["seed"] if seed is None else seed)
            return self.modality.build_backbone().eval()

    def method(self) -> Method:
        """The whole method with the weights of the last checkpoint, in eval mode on the CPU.

        Raises:
            FileNotFoundError: there is no checkpoint. ValueError: it is damaged or of another network.
        """
        state = self._checkpoint()["method"]
        method = self.method_class(self.modality.build_backbone(), self.settings)
        try:
            method.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(f"{self.folder / CHECKPOINT} does not fit {self.config['method']}: {error}") from error
        return method.eval()

    def initial_method(self) -> Method:
        """The whole method as the seed initialises it, in eval mode on the CPU; see `initial_backbone`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["seed"])
            return self.method_class(self.modality.build_backbone(), self.settings).eval()

    def _checkpoint(self) -> dict[str, Any]:
        if not (self.folder / CHECKPOINT.parent).is_dir():
            raise FileNotFoundError(f"{self.folder} has neither an exported backbone nor a checkpoint {CHECKPOINT}")
        return load_last(self.folder)

    def _json(self, *parts: str) -> dict[str, Any]:
        path = self.folder.joinpath(*parts)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path} must hold one JSON object, got {type(content).__name__}")
        return content
