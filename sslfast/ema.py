"""An exponential moving average of a model: the teacher of MoCo, BYOL and their kin."""

from __future__ import annotations

import copy
import math
import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NoReturn, get_args

import torch
from torch import Tensor, nn

from sslfast import ops
from sslfast.ops.checks import FLOATS, as_int, as_number, check_module, is_readable
from sslfast.ops.precision import precise

Buffers = Literal["copy", "average", "ignore"]
BUFFERS = get_args(Buffers)


class EMA(nn.Module):
    """A copy of a model that follows it: every parameter becomes m·its own + (1 − m)·the model's at each `update`.

        teacher = EMA(student, momentum=0.996, schedule="cosine", total_steps=steps)
        for step, (x1, x2) in enumerate(batches):
            loss = criterion(predictor(student(x1)), teacher(x2))
            ...
            optimizer.step()
            teacher.update(step)

    All parameters are updated in one launch, `ops.ema_update_`. The model is looked up anew at each update: it may be
    moved (with the EMA) or loaded in between, and wrapped by DistributedDataParallel or torch.compile before or after.
    Its tensors are found by their names. For FSDP2 make the EMA first and then apply `fully_shard` to the model and in
    the same way to `ema.module`: each process averages its shards. A CUDA graph may capture `update` after a call of
    it, without a number or with one in a CUDA tensor; torch.compile takes it into one graph for all steps. A copy or an
    unpickled EMA follows the model that was copied with it, or else none, until `attach` gives it one.

    Attributes:
        module: the average, a deep copy of the model whose parameters require no grad. It starts in the model's mode,
            train or eval, and follows `train()` and `eval()` of the EMA.
        step: number of the next update, a 0-dim int64 buffer; saved, so that a resumed schedule goes on exactly.

    Args:
        model: what to average. Neither registered nor saved here.
        teacher: a module to hold the average instead of a deep copy, for models that cannot be copied, as with
            `torch.nn.utils.weight_norm`. Its tensors have the names and shapes of the model's, and take their values.
        momentum: m in [0, 1]; where the schedule starts.
        schedule: "cosine": m = 1 − (1 − momentum)·(cos(π·step/total_steps) + 1)/2, as BYOL, up to 1; None: m stays.
        total_steps: updates until m is 1; needed by the cosine schedule.
        buffers: what happens to floating-point buffers: "copy", "average" like parameters, or "ignore". Integer buffers
            are copied unless ignored.
        dtype: of the average's floating-point tensors; by default that of the model's. A float32 average of a bfloat16
            model is exact; a bfloat16 or float16 average is rounded stochastically, seeded by the step.

    Raises:
        TypeError, ValueError: an argument has the wrong type or range, total_steps is missing, the model is sharded, it
            cannot be copied, or the teacher is the model.
        RuntimeError: in `update`, a tensor of the model is new, missing, or of another shape or device, or float64 or
            complex where the average is not; there is no model.

    Sources: He et al. 2020, https://arxiv.org/abs/1911.05722 (parameters); Grill et al. 2020, "Bootstrap Your Own
    Latent", https://arxiv.org/abs/2006.07733 (schedule)
    """

    step: Tensor

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.996,
        schedule: Literal["cosine"] | None = None,
        *,
        total_steps: int | None = None,
        buffers: Buffers = "copy",
        dtype: torch.dtype | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _check(model, momentum, schedule, total_steps, buffers, dtype, teacher)
        model = _unwrapped(model)
        if _sharded_parts(model):
            raise ValueError(
                "EMA: model must not be sharded yet, since fully_shard forbids copies: make the EMA first, then apply "
                "fully_shard to the model and to ema.module"
            )
        self.momentum, self.schedule, self.total_steps, self.buffer_mode = (
            float(momentum),
            schedule,
            total_steps,
            buffers,
        )
        self.module = (_copy(model) if teacher is None else _taken_over(teacher, model)).requires_grad_(False).to(dtype)
        self.module.zero_grad()  # a copy has copies of the gradients, too
        self._model = lambda: model  # in a function it is not a submodule
        device = next((x.device for x in model.parameters()), None)
        self.register_buffer("step", torch.zeros((), dtype=torch.int64, device=device))

    def attach(self, model: nn.Module) -> None:
        """Follow this model from now on: after a copy of the EMA alone, or where the model was replaced.

        Raises:
            TypeError: model is no module. RuntimeError: its tensors are not those of the average.
        """
        check_module("EMA", "model", model)
        model = _unwrapped(model)
        for _ in _aligned(self.module, model):
            pass
        self._model = lambda: model

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_model": self._model()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy holds the copy of the model only weakly: alone it would follow one that nobody trains."""
        model = state["_model"]
        super().__setstate__(state | {"_model": (lambda: None) if model is None else weakref.ref(model)})

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def update(self, step: int | Tensor | None = None) -> None:
        """Moves the average towards the model, as update number `step` >= 0: by default the one after the last.

        A 0-dim int64 tensor on the model's CUDA device is never read by the host, nor is the EMA's own count.
        """
        step = self._checked(self.step if step is None else step)
        averaged, copied = self._pairs()
        ops.ema_update_([t for t, _ in averaged], [s for _, s in averaged], self.momentum_at(step), step=step)
        if copied:
            torch._foreach_copy_([t for t, _ in copied], [s for _, s in copied])
        self.step.copy_(step + 1) if isinstance(step, Tensor) else self.step.fill_(step + 1)

    def momentum_at(self, step: int | Tensor) -> float | Tensor:
        """m of update number `step`; a 0-dim tensor if the step is one and there is a schedule."""
        if self.schedule is None or self.total_steps is None:
            return self.momentum
        cosine: float | Tensor
        if isinstance(step, Tensor):
            cosine = torch.cos(precise(step).clamp(max=self.total_steps) * (math.pi / self.total_steps))
        else:
            cosine = math.cos(min(step, self.total_steps) * (math.pi / self.total_steps))
        return 1 - (1 - self.momentum) * (cosine + 1) / 2

    def extra_repr(self) -> str:
        return (
            f"momentum={self.momentum}, schedule={self.schedule!r}, total_steps={self.total_steps}, "
            f"buffers={self.buffer_mode!r}"
        )

    def _checked(self, step: int | Tensor) -> int | Tensor:
        """The step, as a number where the host may look at it."""
        if isinstance(step, Tensor) and (step.dim() != 0 or step.dtype != torch.int64):
            raise ValueError(
                f"EMA: step must be an int or a 0-dim int64 tensor, got shape {tuple(step.shape)} of {step.dtype}"
            )
        if not isinstance(step, Tensor):
            step = as_int("EMA", "step", step, "an int or a 0-dim int64 tensor")
        if isinstance(step, Tensor) and not is_readable(step):
            return step
        if step < 0:
            raise ValueError(f"EMA: step must be at least 0, got {int(step)}")
        return int(step)

    def _pairs(self) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
        """(average, model) of what to average and of what to copy: tied tensors once, of sharded ones the shards."""
        model = self._model()
        if model is None:
            raise RuntimeError(
                "EMA: there is no model to follow after a copy or a load of the EMA alone; attach(model)"
            )
        for part in _sharded_parts(self) + _sharded_parts(model):
            part.reshard()  # a root stays gathered after its forward, and would forget the update of its shards
        averaged: dict[int, tuple[Tensor, Tensor]] = {}
        copied: dict[int, tuple[Tensor, Tensor]] = {}
        for target, source, is_buffer in _aligned(self.module, model):
            inexact = target.is_floating_point() or target.is_complex()
            if inexact and not (is_buffer and self.buffer_mode != "average"):
                averaged[id(target)] = _real(_local(target)), _real(_local(source))
            elif self.buffer_mode != "ignore" or not is_buffer:
                copied[id(target)] = _local(target), _local(source)
        return list(averaged.values()), list(copied.values())


def _aligned(average: nn.Module, model: nn.Module) -> Iterator[tuple[Tensor, Tensor, bool]]:
    """(tensor of the average, of the model, whether a buffer), by names; full names would take four times as long.

    Raises RuntimeError where a tensor is in one of them only, or of another shape, device or family of dtypes.
    """
    seen: set[nn.Module] = set()
    modules = [(average, model)]
    while modules:
        mine, its = modules.pop()
        seen.add(mine)
        for kind in ("_parameters", "_buffers", "_modules"):
            ours, theirs = getattr(mine, kind), getattr(its, kind)
            if ours.keys() != theirs.keys():
                _refuse(average, mine, ours.keys() ^ theirs.keys(), "is not in both")
            for name, target in ours.items():
                source = theirs[name]
                if (target is None) != (source is None):
                    _refuse(average, mine, [name], "is None in one of them")
                if target is None or target in seen:
                    continue
                if kind == "_modules":
                    modules.append((target, source))
                    continue
                if target.shape != source.shape:
                    _refuse(average, mine, [name], f"is {tuple(target.shape)} here, {tuple(source.shape)} there")
                if target.device != source.device:
                    _refuse(average, mine, [name], f"is on {target.device} here, on {source.device} there")
                if target.dtype is not source.dtype and _family(target.dtype) != _family(source.dtype):
                    _refuse(average, mine, [name], f"is {target.dtype} here, {source.dtype} there")
                yield target, source, kind == "_buffers"


def _refuse(average: nn.Module, module: nn.Module, names: Iterable[str], what: str) -> NoReturn:
    prefix = next(name for name, found in average.named_modules() if found is module)
    full = ", ".join(sorted(f"{prefix}.{name}".lstrip(".") for name in names))
    raise RuntimeError(f"EMA: the model must have the tensors of the average: {full} {what}")


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except RuntimeError as error:
        raise ValueError(f"EMA: model cannot be copied, pass a teacher of its making: {error}") from error


@torch.no_grad()
def _taken_over(teacher: nn.Module, model: nn.Module) -> nn.Module:
    for target, source, _ in _aligned(teacher, model):
        target.copy_(source)
    return teacher.train(model.training)


def _family(dtype: torch.dtype) -> tuple[bool, bool, bool]:
    """Equal for the dtypes that can be averaged with each other; float64 stands alone."""
    return dtype.is_floating_point, dtype.is_complex, dtype in (torch.float64, torch.complex128)


def _real(x: Tensor) -> Tensor:
    return torch.view_as_real(x) if x.is_complex() else x


def _local(x: Tensor) -> Tensor:
    """What this process holds of a tensor that is sharded (a DTensor), or the tensor."""
    return x.to_local() if hasattr(x, "to_local") else x


def _sharded_parts(model: nn.Module) -> list[Any]:
    """The modules to which `fully_shard` was applied; there are none unless something has imported it."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    return [] if fsdp is None else [part for part in model.modules() if isinstance(part, fsdp.FSDPModule)]


def _unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel and torch.compile."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel):
            model = model.module
        elif hasattr(model, "_orig_mod"):
            model = model.get_submodule("_orig_mod")
        else:
            return model


def _check(model: Any, momentum: Any, schedule: Any, total_steps: Any, buffers: Any, dtype: Any, teacher: Any) -> None:
    check_module("EMA", "model", model)
    if teacher is not None and (not isinstance(teacher, nn.Module) or teacher is model):
        raise TypeError(f"EMA: teacher must be another module, or None, got {type(teacher).__name__}")
    as_number("EMA", "momentum", momentum)
    if not 0 <= momentum <= 1:
        raise ValueError(f"EMA: momentum must be in [0, 1], got {momentum}")
    if schedule not in ("cosine", None):
        raise ValueError(f'EMA: schedule must be "cosine" or None, got {schedule!r}')
    if schedule == "cosine" and (total_steps is None or as_int("EMA", "total_steps", total_steps) < 1):
        raise ValueError(f"EMA: total_steps must be given for the cosine schedule, at least 1, got {total_steps!r}")
    if buffers not in BUFFERS:
        raise ValueError(f"EMA: buffers must be one of {', '.join(BUFFERS)}, got {buffers!r}")
    if dtype is not None and dtype not in FLOATS:
        raise TypeError(f"EMA: dtype must be float32, bfloat16, float16 or float64, got {dtype!r}")
