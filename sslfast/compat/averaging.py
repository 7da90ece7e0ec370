"""What the moving averages of several libraries have in common: one launch for all tensors."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sslfast import ops


def average_(pairs: Iterable[tuple[Tensor, Tensor]], momentum: float, step: int | Tensor) -> None:
    """Every target becomes momentum·its own + (1 − momentum)·its source: tied ones once, complex ones by parts.

    Args:
        pairs: (target, source), on one device, of the dtypes that `ops.ema_update_` takes, or complex.
        momentum: in [0, 1].
        step: seeds the stochastic rounding of bfloat16 and float16 targets.
    """
    distinct = {target.data_ptr(): (target.detach(), source.detach()) for target, source in pairs if target.numel()}
    if distinct:
        targets, sources = ([_real(x) for x in side] for side in zip(*distinct.values()))
        ops.ema_update_(targets, sources, momentum, step=step)


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x
