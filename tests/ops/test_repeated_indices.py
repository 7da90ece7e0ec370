"""Indices that come twice in a row: gradients add up, as those of torch.gather do, whatever the number of threads."""

from __future__ import annotations

import pytest
import torch
from every_op import randn
from torch import Tensor

from sslfast import ops
from sslfast.kernels import reference_mae as reference

KEEP = torch.tensor([[0, 3, 3, 1], [2, 2, 2, 2], [1, 0, 3, 2]])
RESTORE = torch.tensor([[0, 0, 1, 3, 3, 2], [1, 1, 1, 1, 1, 1], [5, 4, 3, 2, 1, 0]])
every_float = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)


def check(op, formula, *leaves: Tensor) -> None:
    """Gradients against those that autograd finds for the formula in float64."""
    leaves = [x.requires_grad_() for x in leaves]
    exact = [x.detach().double().requires_grad_() for x in leaves]
    result, expected = op(*leaves), formula(*exact)
    weights = randn(*result.shape, dtype=result.dtype, seed=5)
    actual = torch.autograd.grad((result * weights).sum(), leaves)
    wanted = torch.autograd.grad((expected * weights.double()).sum(), exact)
    for a, b in zip(actual, wanted):
        torch.testing.assert_close(a, b.to(a.dtype), rtol=2 * torch.finfo(a.dtype).eps, atol=1e-6)


@every_float
def test_gather_tokens(dtype):
    check(
        lambda x: ops.gather_tokens(x, KEEP),
        lambda x: torch.gather(x, 1, KEEP[:, :, None].expand(-1, -1, 7)),
        randn(3, 4, 7, dtype=dtype),
    )


@every_float
def test_gather_patches(dtype):
    check(
        lambda x: ops.gather_patches(x, KEEP, 2, mean=0.4, std=0.5),
        lambda x: reference.gather_patches_forward(x, KEEP, 2, [2.0] * 3, [-0.8] * 3, x.dtype),
        randn(3, 3, 4, 4, dtype=dtype),
    )


@every_float
@pytest.mark.parametrize("with_positions", [False, True])
def test_restore_that_is_no_permutation(with_positions, dtype):
    positions = [randn(6, 7, dtype=dtype, seed=2)] if with_positions else []
    check(
        lambda x, token, *rest: ops.restore_tokens(x, RESTORE, token, *rest),
        lambda x, token, *rest: reference.restore_tokens_forward(x, RESTORE, token, *(rest or [None])),
        randn(3, 4, 7, dtype=dtype),
        randn(7, dtype=dtype, seed=1),
        *positions,
    )
