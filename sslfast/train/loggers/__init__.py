"""Who draws a run's curves: TensorBoard, Weights & Biases or MLflow. metrics.jsonl has them whoever it is."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sslfast.train.loggers.service import Service
from sslfast.train.loggers.tensorboard import Board

SERVICES = {"wandb": "WeightsAndBiases", "mlflow": "MLflow"}  # modules here, of packages of that name; their classes


class Logger(Protocol):
    """Takes the numbers of one training."""

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """A point of each curve."""

    def flush(self) -> None:
        """What was given is safe from the end of this process, as far as the package can do that."""

    def close(self, *, failed: bool) -> None:
        """The training is over, or has `failed`."""


def check_logger(name: str) -> None:
    """Raise ImportError if the package that `name` needs is not installed."""
    if name not in SERVICES:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:  # without an origin it is no package but a folder, as wandb leaves its own
        raise ImportError(f"logger {name} needs the package {name!r}: pip install {name}", name=name)


def open_logger(name: str, run: Path, *, config: dict[str, Any], step: int) -> Logger:
    """Begin with a new run in the logger, or where `step` steps of it are done go on in the same one.

    Raises:
        OSError: TensorBoard's file cannot be written, also later. ValueError: the package cannot begin; says why.
    """
    if name not in SERVICES:
        return Board(run / "tensorboard", purge_step=step + 1 if step else None)
    module = importlib.import_module(f"{__name__}.{name}")
    return Service(name, getattr(module, SERVICES[name]), run, config=config, resumed=step > 0)
