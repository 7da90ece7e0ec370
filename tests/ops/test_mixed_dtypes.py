"""Contrastive losses of two dtypes: promoted under autocast, as PyTorch's own operations do, else refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from every_op import DIFFERENTIABLE

PAIRS = ["nt_xent", "info_nce, batch", "info_nce, queue", "clip_loss", "siglip_loss", "negative_cosine_similarity"]
KINDS = (torch.float32, torch.bfloat16, torch.float16)


def losses_and_gradients(function, leaves, widen: bool) -> tuple[torch.Tensor, ...]:
    leaves = [x.detach().requires_grad_() for x in leaves]
    dtype = torch.promote_types(leaves[0].dtype, leaves[1].dtype)
    pair = [x.to(dtype) for x in leaves[:2]] if widen else leaves[:2]
    loss = function(*pair, *leaves[2:])
    return loss.detach(), *torch.autograd.grad(loss.sum(), leaves)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(KINDS, 2)], ids=str)
def test_autocast_promotes(name, first, second):
    function, _, (x, y, *others) = DIFFERENTIABLE[name].bound()
    leaves = [x.to(first), y.to(second), *others]
    with torch.autocast("cpu", torch.bfloat16):
        actual = losses_and_gradients(function, leaves, False)
    assert [x.dtype for x in actual[1:3]] == [first, second]
    for found, expected in zip(actual, losses_and_gradients(function, leaves, True), strict=True):
        assert torch.equal(found, expected)
    with pytest.raises(TypeError, match="must have the dtype of"):
        function(*leaves)


@pytest.mark.parametrize("name", PAIRS)
def test_autocast_promotes_in_a_compiled_graph(name):
    function, _, (x, y, *others) = DIFFERENTIABLE[name].bound()
    leaves = [x.to(torch.bfloat16), y, *others]
    with torch.autocast("cpu", torch.bfloat16):
        actual = losses_and_gradients(torch.compile(function, fullgraph=True, backend="aot_eager"), leaves, False)
        expected = losses_and_gradients(function, leaves, False)
    assert all(map(torch.equal, actual, expected))
