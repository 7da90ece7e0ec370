"""Momentum (exponential moving average) update of many tensors at once, in place."""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels import reference_ema
from sslfast.kernels.cpu import ema as cpu
from sslfast.kernels.pair_table import pair_table
from sslfast.ops.checks import FLOATS, as_int, as_number, check_dense, number_or_tensor
from sslfast.ops.registry import define_op, lazily

HALVES = (torch.bfloat16, torch.float16)  # too coarse to be rounded to nearest


def ema_update_(
    targets: Sequence[Tensor], sources: Sequence[Tensor], momentum: float | Tensor, *, step: int | Tensor | None = None
) -> None:
    """Move every target towards its source, all in one launch. It equals

        for target, source in zip(targets, sources):
            target.copy_(momentum * target + (1 - momentum) * source)

    computed in float32 (float64 for float64 targets). Rounded to nearest, a bfloat16 target would stand still as soon
    as (1 - momentum) * |source - target| falls below 0.2 % of it, a float16 target below 0.02 %. So both are rounded up
    or down at random, such that the expectation is the float32 result.

    Nothing is differentiated: targets may require grad, as in an optimizer's step. A CUDA graph may capture the update
    once it has run on the same tensors; its replays read momentum and step anew if they are tensors.

    Args:
        targets: list of float32, bfloat16, float16 or float64 tensors of any shapes on one device; no two may overlap.
        sources: as many tensors, with the shapes and the device of the targets. Dtypes may differ, but float64 goes
            with float64 only. A source must not overlap any target but its own. Where the strides of target and source
            differ, a tensor has gaps, or a source overlaps its target by a shift, there is an extra copy.
        momentum: what remains of the target, in [0, 1]; or a 0-dim float32 or float64 tensor on the same device, whose
            value is not checked: outside [0, 1] it gives NaN.
        step: number of this update, at least 0; or a 0-dim int64 tensor on the same device. It seeds the rounding of
            bfloat16 and float16 targets, which cannot do without: equal steps give equal bits, on any device.

    Raises:
        TypeError, ValueError: an argument has the wrong type, length, shape, dtype, device or range; there are no
            targets; two of them overlap, or a target itself; one is bfloat16 or float16 and step is not given.
        RuntimeError: a CUDA graph is being captured, and the update has not run on these tensors before.

    Source: He et al. 2020, "Momentum Contrast", https://arxiv.org/abs/1911.05722, equation 2
    """
    _check_lists(targets, sources)
    device = targets[0].device
    momentum, momentum_at = _check_momentum(momentum, device)
    step, step_at = _check_step(step, device, needed=any(target.dtype in HALVES for target in targets))
    with torch.no_grad():
        try:
            _update(targets, sources, momentum, momentum_at, step, step_at)
        except RuntimeError:  # of tensors without an address, or of a layout that no kernel is for
            _check_tensors(targets, sources)
            raise


def _check_lists(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for name, tensors in (("targets", targets), ("sources", sources)):
        if not isinstance(tensors, (list, tuple)):
            raise TypeError(f"ema_update_: {name} must be a list of tensors, got {type(tensors).__name__}")
        for k, tensor in enumerate(tensors):
            if not isinstance(tensor, Tensor):
                raise TypeError(f"ema_update_: {name}[{k}] must be a tensor, got {type(tensor).__name__}")
    if not targets or len(targets) != len(sources):
        raise ValueError(
            "ema_update_: targets and sources must be equally many, at least one, "
            f"got {len(targets)} targets and {len(sources)} sources"
        )


def _check_tensors(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    for name, tensors in (("targets", targets), ("sources", sources)):
        for k, tensor in enumerate(tensors):
            check_dense("ema_update_", f"{name}[{k}]", tensor, "")
            if tensor.dtype not in FLOATS:
                raise TypeError(
                    f"ema_update_: {name}[{k}] must be float32, bfloat16, float16 or float64, got {tensor.dtype}"
                )
            if tensor.device != targets[0].device:
                raise ValueError(
                    f"ema_update_: {name}[{k}] must be on the device of targets[0], {targets[0].device}, "
                    f"got {tensor.device}"
                )
    for k, (target, source) in enumerate(zip(targets, sources)):
        if target.shape != source.shape:
            raise ValueError(
                f"ema_update_: sources[{k}] must have the shape of targets[{k}], {tuple(target.shape)}, "
                f"got {tuple(source.shape)}"
            )
        if target.dtype != source.dtype and torch.float64 in (target.dtype, source.dtype):
            raise TypeError(
                f"ema_update_: float64 goes with float64 only, got {target.dtype} targets[{k}] and "
                f"{source.dtype} sources[{k}]"
            )


def _check_apart(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """No target shares memory with another, with the source of another, or with itself.

    Tensors with gaps may lie in each other's; of those only equal beginnings are found.
    """
    spans = sorted((*_span(target), k) for k, target in enumerate(targets) if target.numel())
    for (_, end, k), (begin, _, other) in itertools.pairwise(spans):
        if begin < end:
            raise ValueError(f"ema_update_: targets[{min(k, other)}] and targets[{max(k, other)}] share memory")
    for k, target in enumerate(targets):
        if any(stride == 0 and size > 1 for stride, size in zip(target.stride(), target.shape)):
            raise ValueError(f"ema_update_: targets[{k}] must not share memory with itself, as expanded tensors do")
    for k, source in enumerate(sources):
        begin, end = _span(source)
        for _, after, other in reversed(spans[: bisect.bisect_left(spans, (end,))]):
            if after <= begin:
                break
            if other != k and source.numel():
                raise ValueError(f"ema_update_: sources[{k}] must not share memory with targets[{other}]")


def _span(x: Tensor) -> tuple[int, int]:
    """The addresses of a dense tensor, from the first to behind the last; of one with gaps, of its first element."""
    return x.data_ptr(), x.data_ptr() + (x.nbytes if _is_dense(x) else 1)


def _check_momentum(momentum: float | Tensor, device: torch.device) -> tuple[float, Tensor | None]:
    """(number, tensor): one of them holds the momentum; the value of a tensor is not read."""
    if isinstance(momentum, Tensor):
        if momentum.dim() != 0 or momentum.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                "ema_update_: momentum must be a number or a 0-dim float32 or float64 tensor, "
                f"got shape {tuple(momentum.shape)} of {momentum.dtype}"
            )
        if momentum.device != device:
            raise ValueError(f"ema_update_: momentum must be on {device}, as the targets, got {momentum.device}")
        return 0.0, momentum
    momentum = as_number("ema_update_", "momentum", momentum, "a number or a 0-dim tensor")
    if not 0 <= momentum <= 1:
        raise ValueError(f"ema_update_: momentum must be in [0, 1], got {momentum}")
    return number_or_tensor(momentum, device)


def _check_step(step: int | Tensor | None, device: torch.device, needed: bool) -> tuple[int, Tensor | None]:
    """(number, tensor): one of them holds the step; the value of a tensor is not read."""
    if step is None:
        if needed:
            raise ValueError(
                "ema_update_: step must be given for bfloat16 and float16 targets, it seeds their rounding; got None"
            )
        return 0, None
    if isinstance(step, Tensor):
        if step.dim() != 0 or step.dtype != torch.int64:
            raise ValueError(
                "ema_update_: step must be an int or a 0-dim int64 tensor, "
                f"got shape {tuple(step.shape)} of {step.dtype}"
            )
        if step.device != device:
            raise ValueError(f"ema_update_: step must be on {device}, as the targets, got {step.device}")
        return 0, step
    step = as_int("ema_update_", "step", step, "an int or a 0-dim int64 tensor")
    if not 0 <= step < 2**63:
        raise ValueError(f"ema_update_: step must be at least 0 and below 2^63, got {step}")
    return step, None


# --- the backends ---

_in_order: set[tuple] = set()  # tables (and strides) that passed the checks and need no copies


def _over_table(kernel: Callable) -> Callable:
    """A C++ kernel and its table of addresses, sizes and dtypes. A table that once passed is not checked again."""

    @functools.wraps(kernel)
    def run(targets, sources, momentum, momentum_at, step, step_at):
        momentum = momentum if momentum_at is None else momentum_at
        step = step if step_at is None else step_at
        table = pair_table(targets, sources)
        contiguous = all(map(Tensor.is_contiguous, targets)) and all(map(Tensor.is_contiguous, sources))
        strides = None if contiguous else tuple(x.stride() for x in (*targets, *sources))
        key = (table.tobytes(), strides)
        if key in _in_order and [x.shape for x in targets] == [x.shape for x in sources]:
            kernel(table, targets[0].device, momentum, step)
        else:
            _check_tensors(targets, sources)
            _check_apart(targets, sources)
            with _dense_pairs(targets, sources) as pairs:
                dense_table = pair_table(*pairs)
                kernel(dense_table, targets[0].device, momentum, step)
            if dense_table == table:
                if len(_in_order) >= 128:
                    _in_order.clear()
                _in_order.add(key)
        _count_change(targets)

    return run


@functools.wraps(reference_ema.ema_update_)
def _reference(targets, sources, momentum, momentum_at, step, step_at):
    _check_tensors(targets, sources)
    _check_apart(targets, sources)
    with _dense_pairs(targets, sources) as pairs:
        reference_ema.ema_update_(
            *pairs, momentum if momentum_at is None else momentum_at, step if step_at is None else step_at
        )
    _count_change(targets)


@contextlib.contextmanager
def _dense_pairs(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """The tensors, or copies where a pair is not dense and alike in strides; copied targets are copied back."""
    dense, alike = list(targets), list(sources)
    for k, (target, source) in enumerate(zip(targets, sources)):
        shifted = source.data_ptr() != target.data_ptr() and _overlap(source, target)
        if target.is_contiguous() and source.is_contiguous() and not shifted:
            continue
        if not _is_dense(target):
            dense[k] = target.contiguous()
        if source.stride() != dense[k].stride() or shifted:
            alike[k] = torch.empty_like(dense[k], dtype=source.dtype).copy_(source)
    yield dense, alike
    for target, updated in zip(targets, dense):
        if updated is not target:
            target.copy_(updated)


def _overlap(a: Tensor, b: Tensor) -> bool:
    (begin, end), (other_begin, other_end) = _span(a), _span(b)
    return begin < other_end and other_begin < end


def _is_dense(x: Tensor) -> bool:
    """Whether the elements fill a stretch of memory, each once."""
    expected = 1
    for stride, size in sorted((stride, size) for stride, size in zip(x.stride(), x.shape) if size != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def _count_change(targets: Sequence[Tensor]) -> None:
    """Lets autograd see that the targets changed."""
    torch.autograd.graph.increment_version([target for target in targets if not target.is_inference()])


_update = define_op(
    "ema_update_(Tensor(a!)[] targets, Tensor[] sources, float momentum, Tensor? momentum_at, SymInt step,"
    " Tensor? step_at) -> ()",
    fake=lambda targets, sources, *_: _check_tensors(targets, sources),
    reference=_reference,
    cpu=_over_table(cpu.update),
    cuda=_over_table(lazily("sslfast.kernels.cuda.ema", "update")) if _C.has_cuda else _reference,
)
