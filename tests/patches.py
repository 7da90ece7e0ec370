"""What the tests of the masked-autoencoder ops share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from numerics import assert_as_accurate
from torch import Tensor

from sslfast import ops

HALVES_AND_SINGLE = [torch.float32, torch.bfloat16, torch.float16]
EVERY_FLOAT = [*HALVES_AND_SINGLE, torch.float64]
SCALE, OFFSET = [1 / 58.4, 1 / 57.1, 1 / 57.4], [-2.1, -2.0, -1.8]  # of three channels
PATCHED = [  # images, and patches to keep: B, C, H, W, P, K
    (1, 1, 1, 1, 1, 1),
    (3, 3, 6, 9, 3, 2),
    (2, 3, 32, 48, 16, 2),
    (2, 4, 14, 7, 7, 1),
    (2, 2, 8, 5, 1, 10),
    (1, 17, 8, 8, 4, 3),
]


def constants(channels: int) -> tuple[list[float], list[float]]:
    """A scale and an offset of each channel."""
    return [SCALE[c % 3] for c in range(channels)], [OFFSET[c % 3] for c in range(channels)]


def randn(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(device, dtype)


def photographs(*shape: int, device: str = "cpu", dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Random images: integers up to 255 for uint8, numbers in [0, 1) for floats."""
    images = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return (256 * images).to(device, torch.uint8) if dtype == torch.uint8 else images.to(device, dtype)


def patch_mask(batch: int, num_patches: int, num_keep: int, device: str = "cpu") -> ops.PatchMask:
    noise = torch.rand(batch, num_patches, generator=torch.Generator().manual_seed(1), dtype=torch.float32)
    order = noise.argsort(dim=1)
    restore = order.argsort(dim=1).to(device)
    return ops.PatchMask(order[:, :num_keep].contiguous().to(device), restore, restore >= num_keep)


def run(
    function: Callable[..., Tensor], leaves: dict[str, Tensor], double: bool = False, seed: int = 7
) -> dict[str, Tensor]:
    """The result of function(**leaves), and the gradients of its randomly weighted sum to every leaf."""
    leaves = {name: (x.double() if double else x).detach().requires_grad_() for name, x in leaves.items()}
    result = function(**leaves)
    weights = randn(*result.shape, device=result.device, seed=seed).to(result.dtype)
    gradients = torch.autograd.grad((result * weights).sum(), list(leaves.values()))
    return {"result": result.detach()} | dict(zip(leaves, gradients))


def assert_meets_the_bar(
    op: Callable[..., Tensor], reference: Callable[..., Tensor], dtype: torch.dtype, **leaves: Tensor
) -> None:
    """Values and gradients of the op against the reference in float64, next to the reference at the op's dtype."""
    actual, eager, exact = run(op, leaves), run(reference, leaves), run(reference, leaves, double=True)
    assert actual["result"].dtype == eager["result"].dtype
    for name, leaf in leaves.items():
        assert actual[name].dtype == leaf.dtype
    for name in actual:
        assert_as_accurate(actual[name], eager[name], exact[name], name, dtype=dtype)


def check_each(
    actual: Sequence[Tensor], eager: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype, *names: str
) -> None:
    """Results of a kernel, some of them empty, against the reference at its dtype and in float64."""
    for name, a, b, c in zip(names, actual, eager, exact, strict=True):
        assert a.dtype == b.dtype, name
        if a.numel() or c.numel():
            assert_as_accurate(a, b, c, name, dtype=dtype)


def assert_repeats(function: Callable[..., Tensor], **leaves: Tensor) -> None:
    """The same bits from run to run, whatever the number of threads."""
    threads = torch.get_num_threads()
    results = []
    for count in (1, 1, 3):
        torch.set_num_threads(count)
        results.append(run(function, leaves))
    torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(other[name], x) for name, x in results[0].items())


def assert_compiles(function: Callable[..., Tensor], backend: str, **leaves: Tensor) -> None:
    compiled = torch.compile(function, fullgraph=True, backend=backend)
    torch.testing.assert_close(run(compiled, leaves), run(function, leaves))


def assert_captured(function: Callable[..., Tensor], **leaves: Tensor) -> None:
    """A CUDA graph of forward and backward, replayed on fresh values, gives what running does."""
    leaves = {name: x.detach().requires_grad_() for name, x in leaves.items()}
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        function(**leaves).square().sum().backward()
    torch.cuda.current_stream().wait_stream(stream)
    for leaf in leaves.values():
        leaf.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function(**leaves)
        result.square().sum().backward()
    with torch.no_grad():
        for seed, leaf in enumerate(leaves.values()):
            leaf.copy_(randn(*leaf.shape, seed=seed))
    graph.replay()
    fresh = {name: x.detach().clone().requires_grad_() for name, x in leaves.items()}
    expected = function(**fresh)
    expected.square().sum().backward()
    torch.testing.assert_close(result.detach(), expected.detach())
    for name, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, fresh[name].grad)
