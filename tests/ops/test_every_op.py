"""What is asked of every differentiable op alike: any shape of one number, and devices without float64."""

from __future__ import annotations

import pytest
import torch
from every_op import DIFFERENTIABLE
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslfast.ops import precision

every_op = pytest.mark.parametrize("case", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)


@pytest.mark.parametrize("name", [name for name, case in DIFFERENTIABLE.items() if case.leaves()[-1].dim() == 0])
def test_a_scalar_of_one_element_in_any_shape(name):
    """As models have it whose parameters are sharded, which those of no dimension cannot be."""
    op, _, leaves = DIFFERENTIABLE[name].bound(4)
    found = []
    for shape in ((), (1,), (1, 1)):
        own = [(x if x.dim() else x.reshape(shape)).detach().requires_grad_() for x in leaves]
        result = op(*own)
        gradients = torch.autograd.grad(result.sum(), own)
        assert gradients[-1].shape == shape
        found.append([result.detach(), *(x.squeeze() for x in gradients)])
    for others in found[1:]:
        assert all(map(torch.equal, others, found[0]))


class RefuseFloat64(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        assert not any(isinstance(x, torch.Tensor) and x.dtype == torch.float64 for x in tree_leaves(results)), function
        return results


@every_op
def test_devices_without_float64(case, monkeypatch):
    """Apple's GPUs; here the CPU is taken for such a device."""
    monkeypatch.setattr(precision, "WITHOUT_FLOAT64", ("cpu",))
    op, formula, leaves = case.bound(5)
    leaves = [x.requires_grad_() for x in leaves]
    with RefuseFloat64():
        result = op(*leaves)
        gradients = torch.autograd.grad(result.sum(), leaves)
    expected = formula(*leaves)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.sum(), leaves), rtol=1e-4, atol=1e-5)


UNIT_ROWS = ["nt_xent", "nt_xent, ids, decoupled", "info_nce, batch", "clip_loss", "siglip_loss"]
UNIT_ROWS += ["sup_con", "negative_cosine_similarity"]


@pytest.mark.parametrize("served", ["op", "formula"])
@pytest.mark.parametrize("name", UNIT_ROWS)
def test_rows_whose_length_is_no_float32(name, served):
    """Of elements near the largest float32. The formula in float32 serves where there is no kernel."""
    op, formula, leaves = DIFFERENTIABLE[name].bound(4)
    leaves[0][1] *= 3.4e38 / leaves[0][1].abs().max()
    assert torch.linalg.vector_norm(leaves[0][1]).isinf()

    def run(function, dtype):
        own = [x.to(dtype, copy=True).requires_grad_() for x in leaves]
        result = function(*own).sum()
        return [result.detach(), *torch.autograd.grad(result, own)]

    found = run({"op": op, "formula": formula}[served], torch.float32)
    wanted = [x.float() for x in run(formula, torch.float64)]
    torch.testing.assert_close(found, wanted, rtol=2e-5, atol=1e-6)
    small, exact = found[1][1], wanted[1][1]  # as small as the row is long
    assert small.abs().max() > 0
    torch.testing.assert_close(small, exact, rtol=1e-3, atol=1e-42)
