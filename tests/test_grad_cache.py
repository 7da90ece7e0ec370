"""GradCache against the same batch with one graph: chunk by chunk, or whole where no chunk can tell."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.distributed as dist
from gloo import run_ranks
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from sslfast import GradCache, ops


def network(seed: int, *between: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), *between, nn.Tanh(), nn.Linear(16, 5)).to(dtype)


def batch(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def contrast(x: Tensor, y: Tensor) -> Tensor:
    return ops.nt_xent(x, y, 0.2)


def gradients(*modules: nn.Module) -> list[Tensor]:
    return [p.grad for module in modules for p in module.parameters()]


def by_chunks_with_a_graph(modules: list[nn.Module], inputs: list[Tensor], size: int, loss: Any) -> Tensor:
    return loss(*(torch.cat([module(part) for part in x.split(size)]) for module, x in zip(modules, inputs)))


@pytest.mark.parametrize("size", [1, 4, 11, 50])
def test_gradients_are_those_of_one_large_batch(size: int, device: str) -> None:
    modules = [network(1).to(device), network(2).to(device)]
    inputs = [batch(11, 6, seed=seed).to(device) for seed in (3, 4)]
    expected = copy.deepcopy(modules)
    whole = contrast(*(module(x) for module, x in zip(expected, inputs)))
    whole.backward()
    loss = GradCache(modules, contrast, size)(*inputs)
    loss.backward()
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(gradients(*modules), gradients(*expected), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("between", [nn.Dropout(0.4), nn.BatchNorm1d(16)], ids=["dropout", "batch norm"])
def test_the_second_pass_repeats_the_first(between: nn.Module, device: str) -> None:
    """Its masks and statistics; and it leaves generator and buffers as one pass would."""
    modules = [network(1, between).to(device), network(2, copy.deepcopy(between)).to(device)]
    inputs = [batch(11, 6, seed=seed).to(device) for seed in (3, 4)]
    expected = copy.deepcopy(modules)
    found = []
    for run in (
        lambda: by_chunks_with_a_graph(expected, inputs, 4, contrast),
        lambda: GradCache(modules, contrast, 4)(*inputs),
    ):
        torch.manual_seed(0)
        loss = run()
        loss.backward()
        found.append((loss.detach(), torch.rand(3, device=device)))
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(*modules), gradients(*expected), rtol=1e-6, atol=1e-12)
    for mine, its in zip(modules, expected):
        torch.testing.assert_close(mine.state_dict(), its.state_dict(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("leave", ["inside", "outside"])
def test_autocast_is_that_of_the_call(leave: str, device: str) -> None:
    module = network(1, dtype=torch.float32).to(device)
    expected, x = copy.deepcopy(module), batch(9, 6, dtype=torch.float32).to(device)
    cache = GradCache(module, lambda z: contrast(z[:4], z[4:8]), 4)
    with torch.autocast(device, torch.bfloat16):
        loss = cache(x)
        if leave == "inside":
            loss.backward()
        whole = by_chunks_with_a_graph([expected], [x], 4, cache.loss)
    if leave == "outside":
        loss.backward()
    whole.backward()
    torch.testing.assert_close(loss, whole, rtol=0, atol=0)
    # Cast weights are one graph's there, one a chunk here: sums in bfloat16 or in float32.
    torch.testing.assert_close(gradients(module), gradients(expected), rtol=2e-2, atol=1e-3)


def test_one_chunk_at_a_time_has_a_graph() -> None:
    module, seen = network(1), []

    def encoder(x: Tensor) -> Tensor:
        seen.append((len(x), torch.is_grad_enabled()))
        return module(x)

    loss = GradCache([encoder, encoder], contrast, 4)(batch(7, 6), batch(7, 6, seed=1))
    assert seen == [(4, False), (3, False)] * 2
    loss.backward()
    assert seen[4:] == [(4, True), (3, True)] * 2
    with torch.no_grad():
        assert not GradCache(encoder, lambda z: z.sum(), 4)(batch(7, 6)).requires_grad
    assert len(seen) == 10


def test_a_scaled_loss_and_parameters_of_the_loss() -> None:
    module, temperature = network(1), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x, y = batch(7, 6), batch(7, 5, seed=1)
    found = []
    for encode in (lambda f: f(module(x)), lambda f: GradCache(module, f, 3)(x)):
        for leaf in (*module.parameters(), temperature):
            leaf.grad = None
        (1024 * encode(lambda z: ops.nt_xent(z, y, temperature))).backward()
        found.append([*gradients(module), temperature.grad])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


class Towers(nn.Module):
    """Two encoders and a temperature in one module, as models of images and texts have them."""

    def __init__(self) -> None:
        super().__init__()
        self.image, self.text = network(1), network(2)
        self.log_temperature = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

    def forward(self, image: Tensor, text: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        return scale * self.image(image), self.text(text), self.log_temperature.exp()


INPUTS = {
    "tuple": lambda image, text: (image, text),
    "dict": lambda image, text: {"image": image, "text": text, "scale": 1.0},
    "chunks": lambda image, text: list(zip(image.split(4), text.split(4))),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_and_outputs_of_several_parts(kind: str) -> None:
    model, inputs = Towers(), [batch(11, 6, seed=seed) for seed in (3, 4)]
    expected = copy.deepcopy(model)
    ops.nt_xent(*expected(*inputs)).backward()
    GradCache(model, ops.nt_xent, None if kind == "chunks" else 4)(INPUTS[kind](*inputs)).backward()
    torch.testing.assert_close(gradients(model), gradients(expected), rtol=1e-6, atol=1e-12)


def test_a_frozen_encoder_passes_once() -> None:
    frozen, module, calls = network(1).requires_grad_(False), network(2), []
    frozen.register_forward_hook(lambda *_: calls.append(1))
    GradCache([frozen, module], contrast, 4)(batch(8, 6), batch(8, 6, seed=1)).backward()
    assert len(calls) == 2
    assert all(grad is not None for grad in gradients(module))


def test_bad_arguments_are_named() -> None:
    x, module = batch(4, 6), network(1)
    for wrong, error, match in (
        (lambda: GradCache([], contrast, 4), ValueError, "encoders must be one or more, got none"),
        (lambda: GradCache(3, contrast, 4), TypeError, "encoders must be callable, got int"),
        (lambda: GradCache(module, contrast, 0), ValueError, "chunk_size must be at least 1, got 0"),
        (lambda: GradCache(module, contrast, 4)(x, x), ValueError, "inputs must be 1, one an encoder, got 2"),
        (lambda: GradCache(module, contrast, 4)((x, x[:3])), ValueError, r"one N for an encoder, got N \[3, 4\]"),
        (lambda: GradCache(module, contrast, None)(x), TypeError, "lists of chunks where chunk_size is None"),
        (lambda: GradCache(module, contrast, 2)(x.float().to_mkldnn()), TypeError, "cut into rows, got a _mkldnn one"),
        (lambda: GradCache(module, contrast, 2)(module(x)), ValueError, "inputs must be no results"),
        (lambda: GradCache(lambda x: {"z": x}, contrast, 2)(x), TypeError, "must return a tensor or a tuple.*got dict"),
    ):
        with pytest.raises(error, match=match):
            wrong()


def both_ways(inputs: tuple[Tensor, Tensor]) -> tuple[list[Tensor], list[Tensor], int]:
    """What this rank gets by GradCache of its part, what one process gets of the whole, and how many exchanges."""
    model, exchanges = Towers(), []
    expected = copy.deepcopy(model)
    ops.nt_xent(*expected(*inputs)).backward()

    def hook(_, bucket):
        exchanges.append(1)
        return dist.all_reduce(bucket.buffer().div_(2), async_op=True).get_future().then(lambda x: x.value()[0])

    parallel = DistributedDataParallel(model)
    parallel.register_comm_hook(None, hook)
    mine = tuple(x.chunk(2)[dist.get_rank()] for x in inputs)
    for _ in range(2):  # parallel modules find a step out of order in the next one
        model.zero_grad()
        exchanges.clear()
        loss = GradCache(parallel, lambda *z: ops.nt_xent(*z, group="world"), 4)(mine)
        loss.backward()
    return gradients(model), gradients(expected), len(exchanges)


def test_two_processes_are_one_and_exchange_gradients_once(tmp_path) -> None:
    inputs = (batch(20, 6, seed=3), batch(20, 6, seed=4))
    for mine, whole, exchanges in run_ranks(both_ways, 2, tmp_path, inputs=inputs):
        torch.testing.assert_close(mine, whole, rtol=1e-6, atol=1e-12)
        assert exchanges == 1
