"""Whatever torch's default dtype and device are, every op and module gives the same bits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
import torch
from every_op import DIFFERENTIABLE, randn, views
from torch import Tensor, nn

from sslfast import EMA, KeyQueue, losses, ops
from sslfast.augment import PaddedImages, ViewParams, ViewSampler
from sslfast.compat import lightly, mae
from sslfast.ops.view_params import LAYOUT


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


DEFAULTS = {
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "float64": lambda: default_dtype(torch.float64),
    "meta": lambda: default_device("meta"),
    "context": lambda: torch.device("meta"),
}
DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def gradients(op: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in leaves]
    result = op(*leaves)
    return [result.detach(), *torch.autograd.grad(result.square().sum(), leaves)]


def differentiable(name: str, dtype: torch.dtype, batch: int) -> Callable[[], list[Tensor]]:
    op, _, leaves = DIFFERENTIABLE[name].bound(batch, dtype)
    return lambda: gradients(op, leaves)


def masks() -> Callable[[], list[Tensor]]:
    noise, seed = randn(3, 20), torch.tensor(5, dtype=torch.int64, device="cpu")
    return lambda: [
        *ops.random_patch_mask(3, 20, noise=noise),
        *ops.random_patch_mask(3, 20, seed=seed),
        *ops.random_patch_mask(3, 20, seed=5, device="cpu"),
    ]


def augmented() -> Callable[[], list[Tensor]]:
    images, params = views()
    sizes = torch.tensor([[12, 12], [8, 9], [10, 12]], dtype=torch.int32)
    return lambda: [
        ops.augment(images, params, 8, mean=[0.4] * 3, std=[0.2] * 3),
        ops.augment(images, params, 8, sizes=sizes, dtype=torch.float64),
        ops.augment(images, params, (5, 7), dtype=torch.bfloat16),
    ]


def padded() -> Callable[[], list[Tensor]]:
    images = [randn(3, 4, 5), randn(3, 6, 2)]

    def pad() -> list[Tensor]:
        batch = PaddedImages.of(images)
        return [batch.pixels, batch.sizes]

    return pad


def drawn() -> Callable[[], list[Tensor]]:
    sizes = torch.tensor([[12, 12], [8, 9], [10, 12]], dtype=torch.int32)

    def draw() -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        several = [
            ViewSampler("byol-2", 8).sample(3, (12, 12), generator=generator),
            ViewSampler("simclr", 8).sample(3, sizes, generator=generator),
            ViewParams.identity(3, (12, 12)),
        ]
        return [getattr(params, name) for params in several for name in LAYOUT]

    return draw


def averaged(dtype: torch.dtype) -> Callable[[], list[Tensor]]:
    def update() -> list[Tensor]:
        targets, sources = ([randn(*shape, dtype=dtype, seed=k) for shape in ((3,), (4, 5))] for k in (0, 1))
        ops.ema_update_(targets, sources, 0.9, step=3)
        ops.ema_update_(targets, [x.double() if dtype == torch.float64 else x.float() for x in sources], 0.9, step=4)
        return targets

    return update


def teacher() -> Callable[[], list[Tensor]]:
    model = nn.Linear(5, 4, dtype=torch.float32, device="cpu")

    def update() -> list[Tensor]:
        ema = EMA(model, 0.9, "cosine", total_steps=10, dtype=torch.bfloat16)
        for step in range(3):
            ema.update(step)
        torch.manual_seed(0)
        lightly.update_momentum(model, ema.module, 0.9)
        return [*ema.module.parameters(), ema.step]

    return update


def of_modules() -> Callable[[], list[Tensor]]:
    """Made beforehand: a module's parameters and buffers lie on the default device, as those of torch.nn do."""
    query, key = randn(6, 5), randn(6, 5, seed=1)
    queue = KeyQueue(8, 5)
    queue.keys.copy_(torch.nn.functional.normalize(randn(8, 5)))
    start = {name: x.clone() for name, x in queue.state_dict().items()}
    learned = [losses.NTXentLoss(0.3, learnable=True), losses.InfoNCELoss(0.3, learnable=True)]
    bank = lightly.NTXentLoss(memory_bank_size=(8, 5))

    def run() -> list[Tensor]:
        for module in (queue, bank.memory_bank):
            module.load_state_dict(start)
        queue.enqueue(key)
        found = [*queue.buffers(), bank(query, key)]
        found += [losses.NegativeCosineSimilarity()(query, key), lightly.NegativeCosineSimilarity()(query, key)]
        found += [loss(query, key) for loss in learned] + [loss.temperature for loss in learned]
        return found + [losses.InfoNCELoss()(query, key, queue.keys), *mae.random_masking(*masked, noise=randn(3, 4))]

    masked = randn(3, 4, 5), 0.5
    return run


CALLS: dict[str, Callable[[], Callable[[], list[Tensor]]]] = {
    **{
        f"{name}, {dtype}, {batch}": lambda name=name, dtype=dtype, batch=batch: differentiable(name, dtype, batch)
        for name in DIFFERENTIABLE
        for dtype, batch in [(torch.float32, 3), (torch.float32, 300), (torch.bfloat16, 3), (torch.float64, 3)]
    },
    "random_patch_mask": masks,
    "augment": augmented,
    "PaddedImages": padded,
    "ViewSampler": drawn,
    **{f"ema_update_, {dtype}": lambda dtype=dtype: averaged(dtype) for dtype in DTYPES},
    "EMA": teacher,
    "modules": of_modules,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_same_bits_under_every_default(call):
    run = call()
    expected = run()
    for name, defaults in DEFAULTS.items():
        with defaults():
            actual = run()
        for k, (a, b) in enumerate(zip(actual, expected, strict=True)):
            assert a.dtype == b.dtype, f"{name}, result {k}"
            assert a.device == b.device, f"{name}, result {k}"
            assert torch.equal(a, b), f"{name}, result {k}"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_modules_made_under_another_default_dtype_stay_float32(dtype):
    """A temperature, a queue and the parameters of views are exact whatever the model's precision."""
    with default_dtype(dtype):
        assert losses.NTXentLoss(0.3, learnable=True).log_temperature.dtype == torch.float32
        assert KeyQueue(8, 5).keys.dtype == torch.float32
        params = ViewSampler("simclr", 8).sample(3, (12, 12))
    assert params.jitter.dtype == params.blur.dtype == params.solarize.dtype == torch.float32


def test_modules_follow_the_default_device():
    with torch.device("meta"):
        assert KeyQueue(8, 5).keys.device.type == "meta"
        assert losses.NTXentLoss(0.3, learnable=True).log_temperature.device.type == "meta"
