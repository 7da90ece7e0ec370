"""ema-pytorch's average of a model (https://github.com/lucidrains/ema-pytorch, 0.8), by its name and signature."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Any

import torch
from torch import Tensor, nn

from sslfast.compat.averaging import average_
from sslfast.ops.checks import as_int, as_number, check_module


class EMA(nn.Module):
    """A copy of a model that follows it every `update_every` steps, by a decay that rises to `beta`; one launch.

    It differs from ema-pytorch's in that the count of steps is read by the host only where it has been loaded, not at
    every update; in that bfloat16 and float16 averages are rounded stochastically, seeded by the step; and in that
    dtypes of average and model may differ whatever `coerce_dtype` says. What it cannot serve raises; `sslfast.EMA` or
    ema-pytorch's own has it.

    Args:
        model: what to follow; part of the state unless `include_online_model` is False.
        ema_model: a module to hold the average, or a function that makes one, instead of a deep copy.
        beta: the largest decay; 1 keeps the average as it is.
        update_after_step, update_every: the average is the model up to the former, and moves every so many steps.
        inv_gamma, power, min_value: the decay of update k after the first is 1 - (1 + k / inv_gamma)^-power, within
            [min_value, beta].
        param_or_buffer_names_no_ema: names of tensors that are copied instead of averaged.
        ignore_names, ignore_startswith_names: names, and beginnings of names, of tensors that stay as they are.
        include_online_model: whether the state has the model.
        allow_different_devices: the average may be on another device, as after `ema.ema_model.cpu()`.
        use_foreach: accepted for the signature.
        forward_method_names: methods of the average that are called on this, too.
        coerce_dtype: accepted for the signature.
        update_model_with_ema_every, update_model_with_ema_beta, move_ema_to_online_device, lazy_init_ema: not served.

    Raises:
        TypeError: model is no module, or a number none. ValueError: update_every is below 1; an argument that is not
            served is given.
    """

    initted: Tensor
    step: Tensor

    def __init__(
        self,
        model: nn.Module,
        ema_model: nn.Module | Callable[[], nn.Module] | None = None,
        beta: float = 0.9999,
        update_after_step: int = 100,
        update_every: int = 10,
        inv_gamma: float = 1.0,
        power: float = 2 / 3,
        min_value: float = 0.0,
        param_or_buffer_names_no_ema: Set[str] = frozenset(),
        ignore_names: Set[str] = frozenset(),
        ignore_startswith_names: Set[str] = frozenset(),
        include_online_model: bool = True,
        allow_different_devices: bool = False,
        use_foreach: bool = False,
        update_model_with_ema_every: int | None = None,
        update_model_with_ema_beta: float = 0.0,
        forward_method_names: tuple[str, ...] = (),
        move_ema_to_online_device: bool = False,
        coerce_dtype: bool = False,
        lazy_init_ema: bool = False,
    ) -> None:
        super().__init__()
        check_module("EMA", "model", model)
        for name, value in (("beta", beta), ("inv_gamma", inv_gamma), ("power", power), ("min_value", min_value)):
            as_number("EMA", name, value)
        as_int("EMA", "update_after_step", update_after_step)
        if as_int("EMA", "update_every", update_every) < 1:
            raise ValueError(f"EMA: update_every must be at least 1, got {update_every}")
        unserved = {
            "update_model_with_ema_every": update_model_with_ema_every,
            "update_model_with_ema_beta": update_model_with_ema_beta,
            "move_ema_to_online_device": move_ema_to_online_device,
            "lazy_init_ema": lazy_init_ema,
        }
        if given := [name for name, value in unserved.items() if value]:
            raise ValueError(f"EMA: {', '.join(given)} is not served; use ema_pytorch.EMA for it")
        self.include_online_model = include_online_model
        self.online_model: Any = model if include_online_model else [model]  # in a list it is no submodule
        if ema_model is None:
            ema_model = copy.deepcopy(model)
        self.ema_model = ema_model if isinstance(ema_model, nn.Module) else ema_model()
        self.ema_model.requires_grad_(False)
        self.beta, self.update_after_step, self.update_every = beta, update_after_step, update_every
        self.inv_gamma, self.power, self.min_value = inv_gamma, power, min_value
        self.param_or_buffer_names_no_ema = param_or_buffer_names_no_ema
        self.ignore_names, self.ignore_startswith_names = ignore_names, tuple(ignore_startswith_names)
        self.allow_different_devices = allow_different_devices
        for name in forward_method_names:
            setattr(self, name, getattr(self.ema_model, name))
        self.register_buffer("initted", torch.tensor(False, device="cpu"))
        self.register_buffer("step", torch.tensor(0, dtype=torch.int64, device="cpu"))
        self._known: tuple[int, bool] | None = (0, False)  # step and initted, unless they were loaded since

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._known = None

    @property
    def model(self) -> nn.Module:
        return self.online_model if self.include_online_model else self.online_model[0]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.ema_model(*args, **kwargs)

    def eval(self) -> nn.Module:  # type: ignore[override]
        return self.ema_model.eval()

    def add_to_optimizer_post_step_hook(self, optimizer: torch.optim.Optimizer) -> Any:
        return optimizer.register_step_post_hook(lambda *_: self.update())

    def get_current_decay(self) -> float:
        return self._decay(int(self.step))

    def copy_params_from_model_to_ema(self) -> None:
        self._copy(self._pairs())

    def copy_params_from_ema_to_model(self) -> None:
        self._copy((name, source, target) for name, target, source in self._pairs())

    @torch.no_grad()
    def update(self) -> None:
        """Count a step, and move the average if it is its turn: the first time it becomes the model."""
        step, begun = self._known or (int(self.step), bool(self.initted))
        self._known = step + 1, True
        self.step.fill_(step + 1)
        if not begun:
            self.copy_params_from_model_to_ema()
            self.initted.fill_(True)
        elif step % self.update_every == 0 and step <= self.update_after_step:
            self.copy_params_from_model_to_ema()
        elif step % self.update_every == 0 and self.beta != 1:
            self._move(self._decay(step + 1), step)

    def _decay(self, step: int) -> float:
        k = max(step - self.update_after_step - 1, 0)
        if k == 0:
            return 0.0
        return min(max(1 - (1 + k / self.inv_gamma) ** -self.power, self.min_value), self.beta)

    def _move(self, decay: float, step: int) -> None:
        pairs = [
            pair
            for pair in self._pairs()
            if pair[0] not in self.ignore_names and not pair[0].startswith(self.ignore_startswith_names)
        ]
        self._copy(pair for pair in pairs if pair[0] in self.param_or_buffer_names_no_ema)
        averaged = [(x, y) for name, x, y in pairs if name not in self.param_or_buffer_names_no_ema]
        average_(averaged, decay, step)

    def _pairs(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(name, of the average, of the model) of parameters and buffers that are no integers."""
        for kind in ("named_parameters", "named_buffers"):
            theirs = dict(getattr(self.model, kind)())
            for name, x in getattr(self.ema_model, kind)():
                if x.is_floating_point() or x.is_complex():
                    yield name, x, theirs[name].to(x.device) if self.allow_different_devices else theirs[name]

    @torch.no_grad()
    def _copy(self, pairs: Iterable[tuple[str, Tensor, Tensor]]) -> None:
        for _, target, source in pairs:
            target.copy_(source)
