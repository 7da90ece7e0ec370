"""Indices that come twice in a row, in the Triton kernels: gradients add up, in one order. On a GPU, and on the CPU
under Triton's interpreter in a process of its own."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_as_accurate
from patches import HALVES_AND_SINGLE, randn

from sslfast.kernels import reference_mae as reference

pytest.importorskip("triton")

from triton_kernels import DEVICE, compiles, run_interpreted, runs

from sslfast.kernels.triton import gather_patches, gather_tokens, restore_tokens


def indices(batch: int, count: int, size: int) -> torch.Tensor:
    """At random, so that most of many come several times; one row of nothing else, one of a permutation."""
    generator = torch.Generator().manual_seed(count)
    drawn = torch.randint(0, size, (batch, count), generator=generator)
    drawn[0], drawn[-1] = size - 1, torch.randperm(max(size, count), generator=generator)[:count] % size
    return drawn.to(DEVICE)


def check(function, formula, grad, *names):
    """Against the formula in float64, and the same bits again."""
    first, second, eager, exact = (
        x if isinstance(x, tuple) else (x,)
        for x in (function(grad), function(grad), formula(grad), formula(grad.double()))
    )
    for name, a, b, c, d in zip(names, first, second, eager, exact, strict=True):
        assert torch.equal(a, b), name
        assert_as_accurate(a, c, d, name, dtype=grad.dtype)


@runs
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("b", "n", "k", "d"), [(3, 4, 6, 5), (2, 7, 3, 129), (5, 2, 90, 64)])
def test_gather_tokens(b, n, k, d, dtype):
    keep, grad = indices(b, k, n), randn(b, k, d, device=DEVICE, dtype=dtype)
    check(
        lambda g: gather_tokens.backward(g, keep, n), lambda g: reference.gather_tokens_backward(g, keep, n), grad, "dx"
    )


@runs
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("b", "c", "h", "w", "p", "k"), [(3, 3, 6, 9, 3, 8), (2, 2, 8, 4, 1, 40), (2, 5, 4, 4, 4, 3)])
def test_gather_patches(b, c, h, w, p, k, dtype):
    keep, grad = indices(b, k, h // p * (w // p)), randn(b, k, p * p * c, device=DEVICE)
    scale = [0.5 + channel for channel in range(c)]

    def formula(g):
        exact = dtype if g.dtype == torch.float32 else g.dtype
        return reference.gather_patches_backward(g, keep, c, h, w, p, scale, exact)

    result = gather_patches.backward(grad, keep, c, h, w, p, scale, dtype)
    assert torch.equal(result, gather_patches.backward(grad, keep, c, h, w, p, scale, dtype))
    assert_as_accurate(result, formula(grad), formula(grad.double()), dtype=dtype)


@runs
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(("b", "n", "k", "d"), [(3, 6, 4, 7), (20, 9, 2, 64)])
def test_restore_that_is_no_permutation(b, n, k, d, dtype):
    restore, grad = indices(b, n, n), randn(b, n, d, device=DEVICE, dtype=dtype)
    restore[0] = 1  # one visible token everywhere
    check(
        lambda g: restore_tokens.backward(g, restore, k, True),
        lambda g: reference.restore_tokens_backward(g, restore, k, True),
        grad,
        "dvisible",
        "dmask_token",
        "dpos",
    )


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)
