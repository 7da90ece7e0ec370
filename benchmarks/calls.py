"""One call of one peer: forward, and backward from a fixed gradient; and whether its results are right."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.peers import EXACT, PEERS

# Relative error of every result and gradient in the 2-norm. At bfloat16 that of eager itself: its logits are rounded.
GATE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class Call:
    """A peer on its inputs, under autocast if the case is of 16 bits: what a training step does."""

    def __init__(self, peer: Callable, inputs: dict[str, Tensor], dtype: torch.dtype):
        self.peer, self.inputs = peer, list(inputs.values())
        self.draws = getattr(peer, "draws", False)
        self.leaves = [x for x in self.inputs if x.requires_grad]
        self.autocast = torch.autocast(self.inputs[0].device.type, dtype, enabled=dtype.itemsize == 2)
        self.upstream: list[Tensor] | None = None

    def __call__(self) -> list[Tensor]:
        """Results, then gradients; of a peer that returns nothing, the inputs as it left them."""
        with self.autocast:
            results = self.peer(*self.inputs)
        if results is None:
            return self.inputs
        results = [results] if isinstance(results, Tensor) else list(results)
        differentiable = [y for y in results if y.requires_grad]
        if not differentiable:
            return results
        if self.upstream is None:
            self.upstream = [upstream(y) for y in differentiable]
        gradients = torch.autograd.grad(differentiable, self.leaves, self.upstream)
        return [y.detach() for y in results] + list(gradients)


def upstream(y: Tensor) -> Tensor:
    """1 for a loss, else random numbers, the same for all peers."""
    if y.dim() == 0:
        return torch.ones_like(y)
    generator = torch.Generator(y.device).manual_seed(1)
    return torch.randn(y.shape, generator=generator, device=y.device).to(y.dtype)


def make_call(case: Case, name: str, device: str, *, gate: bool = False) -> Call | None:
    """None where the package does not compute this case. Raises ImportError where it is missing."""
    inputs = case.inputs(device, gate=gate)
    peer = PEERS[case.op][name](inputs)
    return Call(peer, inputs, case.dtype) if peer else None


def exact_results(case: Case, device: str) -> list[Tensor]:
    """What the reference gives in float64."""
    inputs = {
        name: x.detach().double().requires_grad_(x.requires_grad) if x.is_floating_point() else x
        for name, x in case.inputs(device, gate=True).items()
    }
    return Call(EXACT[case.op], inputs, torch.float64)()


def alike(results: list[Tensor], exact: list[Tensor]) -> bool:
    """All that can be asked of a peer with random numbers of its own: the same shapes, and nothing but numbers."""
    return all(x.shape == y.shape and bool(x.isfinite().all()) for x, y in zip(results, exact, strict=True))


def error(results: list[Tensor], exact: list[Tensor]) -> float:
    """The largest relative error; infinite if an index differs or a shape. NaN passes no gate."""
    errors = []
    for x, y in zip(results, exact, strict=True):
        if x.shape != y.shape or (not y.is_floating_point() and not torch.equal(x.to(y.dtype), y)):
            return float("inf")
        if y.is_floating_point():
            errors.append(float((x.to(y.dtype) - y).norm() / y.norm()))
    return max(errors, default=0.0, key=lambda e: float("inf") if e != e else e)
