"""timm's moving average of a model (https://github.com/huggingface/pytorch-image-models), by its name and signature."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sslfast.compat.averaging import average_
from sslfast.ops.checks import as_int, as_number, check_module
from sslfast.ops.ema import HALVES


class ModelEmaV3(nn.Module):
    """A copy of a model that follows it: parameters and floating-point buffers in one launch, other buffers copied.

    It differs from timm's in what it rounds: bfloat16 and float16 averages stochastically, by other random numbers, and
    seeded by the number of the update, so that it goes on exactly only where `updates` does; timm rounds float16 to
    nearest. Tied tensors move once, timm moves them twice.

    Args:
        model: what to average.
        decay, min_decay, update_after_step, use_warmup, warmup_gamma, warmup_power: see `get_decay`.
        device: of the average, if it is not the model's.
        dtype: of the average, if it is not the model's.
        stochastic_rounding: False is refused for a bfloat16 average, which could not move.
        stochastic_rounding_seed: from 0 on, below 2^30.
        foreach: accepted for the signature; the update is one launch in any case.
        exclude_buffers: copy floating-point buffers, too, instead of averaging them.

    Raises:
        TypeError: model is no module, or a number none.
        ValueError: stochastic_rounding is False and the average has bfloat16 tensors; the seed is out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float = 0.9999,
        min_decay: float = 0.0,
        update_after_step: int = 0,
        use_warmup: bool = False,
        warmup_gamma: float = 1.0,
        warmup_power: float = 2 / 3,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        stochastic_rounding: bool = True,
        stochastic_rounding_seed: int = 0,
        foreach: bool = True,
        exclude_buffers: bool = False,
    ) -> None:
        super().__init__()
        check_module("ModelEmaV3", "model", model)
        for name, value in (("decay", decay), ("min_decay", min_decay), ("warmup_gamma", warmup_gamma),
                            ("warmup_power", warmup_power)):  # fmt: skip
            as_number("ModelEmaV3", name, value)
        as_int("ModelEmaV3", "update_after_step", update_after_step)
        self.module = copy.deepcopy(model).eval().to(device=device, dtype=dtype)
        self.decay, self.min_decay, self.update_after_step = decay, min_decay, update_after_step
        self.use_warmup, self.warmup_gamma, self.warmup_power = use_warmup, warmup_gamma, warmup_power
        self.device, self.dtype, self.foreach, self.exclude_buffers = device, dtype, foreach, exclude_buffers
        if not stochastic_rounding and any(x.dtype in HALVES for x in self.module.state_dict().values()):
            raise ValueError(
                "ModelEmaV3: stochastic_rounding must be True for bfloat16 and float16 averages, which cannot move "
                "otherwise; dtype=torch.float32 rounds nothing"
            )
        if not 0 <= as_int("ModelEmaV3", "stochastic_rounding_seed", stochastic_rounding_seed) < 2**30:
            raise ValueError(
                f"ModelEmaV3: stochastic_rounding_seed must be from 0 on and below 2^30, got {stochastic_rounding_seed}"
            )
        self.stochastic_rounding, self.stochastic_rounding_seed = stochastic_rounding, stochastic_rounding_seed
        self.updates = 0

    def get_decay(self, step: int | None = None) -> float:
        """`decay` without a step; else 0 up to `update_after_step`, and then it, or what warms up to it."""
        if step is None:
            return self.decay
        step = max(0, step - self.update_after_step - 1)
        if step == 0:
            return 0.0
        if not self.use_warmup:
            return self.decay
        warming = 1 - (1 + step / self.warmup_gamma) ** -self.warmup_power
        return max(min(warming, self.decay), self.min_decay)

    @torch.no_grad()
    def update(self, model: nn.Module, step: int | None = None) -> None:
        """Move towards the model, whose tensors are those of the average, in their order."""
        averaged, copied = self._pairs(model)
        average_(averaged, self.get_decay(step), (self.stochastic_rounding_seed << 32) + self.updates)
        for target, source in copied:
            target.copy_(source)
        self.updates += 1

    @torch.no_grad()
    def set(self, model: nn.Module) -> None:
        """Become the model."""
        for target, source in zip(self.module.state_dict().values(), model.state_dict().values(), strict=True):
            target.copy_(source)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def _pairs(self, model: nn.Module) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        def both(tensors: Callable[[nn.Module], Any]) -> list[tuple[Tensor, Tensor]]:
            return [(x, y.to(x.device)) for x, y in zip(tensors(self.module), tensors(model), strict=True)]

        if self.exclude_buffers:
            return both(nn.Module.parameters), both(nn.Module.buffers)
        every = both(lambda module: module.state_dict().values())
        averaged = [pair for pair in every if pair[0].is_floating_point()]
        return averaged, [pair for pair in every if not pair[0].is_floating_point()]
