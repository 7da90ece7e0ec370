"""Weights & Biases. Its own environment variables decide where to: WANDB_PROJECT, WANDB_MODE=offline."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class WeightsAndBiases:
    """One run there, with files in RUN/wandb. Steps that it has, it does not take again."""

    def __init__(self, run: Path, config: dict[str, Any], known: str | None) -> None:
        import wandb

        self.id = known or secrets.token_hex(4)
        self._run = wandb.init(
            id=self.id,
            name=run.resolve().name,
            dir=str(run),
            config=config,
            resume="allow",
            reinit="create_new",  # one of the caller's own stays as it is
            settings=wandb.Settings(console="off"),
        )

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
