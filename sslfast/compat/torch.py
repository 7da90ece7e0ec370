"""The averaging function of torch.optim.swa_utils, for `AveragedModel(model, multi_avg_fn=...)`, by its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslfast.compat.averaging import average_
from sslfast.ops.checks import as_number, check_dense


def get_ema_multi_avg_fn(decay: float = 0.999) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """A function that moves averages by one launch, `averaged = decay * averaged + (1 - decay) * current`.

        averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.999))

    It differs from PyTorch's for bfloat16 and float16 averages: they are rounded stochastically, seeded by the number
    of the update, where PyTorch's would stop moving; and dtypes of average and model may differ.

    Args:
        decay: in [0, 1].

    Raises:
        TypeError, ValueError: decay is not a number in [0, 1].
    """
    if not 0 <= as_number("get_ema_multi_avg_fn", "decay", decay) <= 1:
        raise ValueError(f"get_ema_multi_avg_fn: decay must be in [0, 1], got {decay}")

    @torch.no_grad()
    def ema_update(averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        for name, tensors in (("averaged", averaged), ("current", current)):
            for x in tensors:
                check_dense("get_ema_multi_avg_fn", name, x, "")
        if averaged[0].is_floating_point() or averaged[0].is_complex():
            average_(zip(averaged, current, strict=True), decay, num_averaged)
            return
        for target, source in zip(averaged, current, strict=True):  # integers, when buffers are averaged too
            target.copy_(target * decay + source * (1 - decay))

    return ema_update
