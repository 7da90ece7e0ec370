"""torch.compile and torch.export of every op: one graph, few compilations, the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from every_op import DIFFERENTIABLE, order, randn, views
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch.export import Dim, export

from sslfast import ops
from sslfast.augment import ViewParams, ViewSampler
from sslfast.compat import mae
from sslfast.ops.view_params import LAYOUT

BATCHES = (3, 6, 7, 9, 8, 17, 11, 13, 33, 14, 12, 10)  # no other size of a case is among them


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def counted(function: Callable, **options) -> tuple[Callable, CompileCounterWithBackend]:
    counter = CompileCounterWithBackend("aot_eager")
    return torch.compile(function, fullgraph=True, backend=counter, **options), counter


def loss_and_gradients(op: Callable[..., Tensor], leaves: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().requires_grad_() for x in leaves]
    result = op(*leaves, *others)
    return [result.detach(), *torch.autograd.grad(result.square().sum(), leaves)]


def batched(x: Tensor, batch: int) -> bool:
    return x.dim() > 0 and x.shape[0] == batch


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_twelve_batches_of_a_dynamic_size_compile_at_most_twice(name):
    case = DIFFERENTIABLE[name]
    compiled, counter = counted(lambda *xs: case.op(*xs))
    for batch in BATCHES:
        leaves, others = case.inputs(batch, torch.float32)
        leaves = [x.requires_grad_() for x in leaves]
        for x in (*leaves, *others):
            if batched(x, batch):
                torch._dynamo.mark_dynamic(x, 0)
        result = compiled(*leaves, *others)
        actual = [result.detach(), *torch.autograd.grad(result.square().sum(), leaves)]
        torch.testing.assert_close(actual, loss_and_gradients(case.op, leaves, others))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_changing_batches_compile_at_most_twice(name):
    """Nobody marks them in a training loop: the second size is taken as one of many."""
    case = DIFFERENTIABLE[name]
    compiled, counter = counted(lambda *xs: case.op(*xs))
    for batch in (3, 5, 9, 4):
        leaves, others = case.inputs(batch, torch.float32)
        torch.testing.assert_close(compiled(*leaves, *others), case.op(*leaves, *others))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", ["nt_xent", "info_nce", "clip_loss"])
def test_an_annealed_temperature(name, dynamic):
    op = getattr(ops, name)
    compiled, counter = counted(lambda z1, z2, t: op(z1, z2, temperature=t), dynamic=dynamic)
    for step in range(6):
        temperature = 0.1 + 0.05 * step
        z1, z2 = (randn(5, 4, seed=k).requires_grad_() for k in (0, 1))
        expected = torch.autograd.grad(op(z1, z2, temperature=temperature), (z1, z2))
        torch.testing.assert_close(torch.autograd.grad(compiled(z1, z2, temperature), (z1, z2)), expected)
    assert counter.frame_count <= 2
    with pytest.raises(Exception, match="must be positive and finite"):
        compiled(z1, z2, -1.0)


def test_views_drawn_inside_a_step_with_a_smaller_last_batch():
    sampler = ViewSampler("simclr", 8)

    def step(images: Tensor) -> Tensor:
        params = sampler.sample(len(images), images.shape[-2:], device=images.device)
        return ops.augment(images, params, 8, mean=[0.4] * 3, std=[0.2] * 3)

    compiled, counter = counted(step)
    for batch in (6, 6, 4, 6, 3):
        images, _ = views(batch)
        torch.manual_seed(batch)
        expected = step(images)
        torch.manual_seed(batch)
        torch.testing.assert_close(compiled(images), expected)
    assert counter.frame_count <= 2


def test_changing_mean_and_std_are_numbers_of_the_graph():
    keep = order(2)[:, :2]

    def step(images: Tensor, mean: float) -> Tensor:
        return ops.gather_patches(images, keep, 2, mean=mean, std=0.5)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=True)
    for mean in (0.1, 0.2, 0.3):
        images = randn(2, 3, 4, 4)
        torch.testing.assert_close(compiled(images, mean), step(images, mean))


def test_random_patch_mask_of_a_symbolic_batch():
    def step(x: Tensor) -> Tensor:
        mask = ops.random_patch_mask(x.shape[0], x.shape[1], 0.5, device=x.device)
        return ops.gather_tokens(x, mask.keep)

    compiled, counter = counted(step)
    for batch in (3, 5, 9, 4):
        x = randn(batch, 6, 4)
        torch.manual_seed(0)
        expected = step(x)
        torch.manual_seed(0)
        assert torch.equal(compiled(x), expected)
    assert counter.frame_count <= 2


class Module(torch.nn.Module):
    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, *xs):
        return self.function(*xs)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_export_with_a_dynamic_batch(name):
    case = DIFFERENTIABLE[name]
    inputs, larger = ([x for part in case.inputs(size, torch.float32) for x in part] for size in (3, 4))
    batch = Dim("batch", min=2)
    more = [len(x) - 3 if x.dim() and len(x) != len(y) else None for x, y in zip(inputs, larger)]
    dynamic = [None if extra is None else {0: batch + extra if extra else batch} for extra in more]
    program = export(Module(case.op), tuple(inputs), dynamic_shapes=(tuple(dynamic),))
    for size in (3, 7):
        leaves, others = case.inputs(size, torch.float32)
        torch.testing.assert_close(program.module()(*leaves, *others), case.op(*leaves, *others))


STEPS = ("brightness", "hue", "blur")


def augmented(images: Tensor, *rows: Tensor) -> Tensor:
    return ops.augment(images, ViewParams(*rows, steps=STEPS, blur_radius=1), 8)


def parameters_of_views(batch: int) -> list[Tensor]:
    images, params = views(batch)
    return [images, *(getattr(params, name) for name in LAYOUT)]


WITHOUT_GRADIENT: dict[str, tuple[Callable, Callable[[int], list[Tensor]]]] = {  # and inputs of a batch
    "random_patch_mask": (
        lambda noise: tuple(ops.random_patch_mask(noise.shape[0], 6, 0.5, noise=noise)),
        lambda batch: [randn(batch, 6)],
    ),
    "augment": (augmented, parameters_of_views),
    "ViewSampler": (ViewSampler("simclr", 8).view, lambda batch: views(batch)[:1]),
    "random_masking": (lambda x: mae.random_masking(x, 0.5), lambda batch: [randn(batch, 6, 4)]),
}


def from_seed_0(function: Callable, *xs: Tensor) -> Tensor | tuple[Tensor, ...]:
    torch.manual_seed(0)
    return function(*xs)


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_without_a_gradient_too_twelve_batches_compile_at_most_twice(name):
    function, inputs = WITHOUT_GRADIENT[name]
    compiled, counter = counted(lambda *xs: function(*xs))
    for batch in BATCHES:
        xs = inputs(batch)
        for x in xs:
            torch._dynamo.mark_dynamic(x, 0)
        torch.testing.assert_close(from_seed_0(compiled, *xs), from_seed_0(function, *xs))
    assert counter.frame_count <= 2


@pytest.mark.parametrize("name", WITHOUT_GRADIENT)
def test_export_of_what_has_no_gradient(name):
    function, inputs = WITHOUT_GRADIENT[name]
    xs, batch = tuple(inputs(3)), Dim("batch", min=2)
    program = export(Module(function), xs, dynamic_shapes=(tuple({0: batch} for _ in xs),)).module()
    for size in (3, 7):
        xs = inputs(size)
        torch.testing.assert_close(from_seed_0(program, *xs), from_seed_0(function, *xs))
