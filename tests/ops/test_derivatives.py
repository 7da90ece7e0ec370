"""Derivatives of every op beyond `backward`: second ones, forward mode and torch.func, against the reference's."""

from __future__ import annotations

import pytest
import torch
from every_op import DIFFERENTIABLE, randn
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jvp, vjp, vmap

from sslfast import ops
from sslfast.losses import InfoNCELoss

every_op = pytest.mark.parametrize("case", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)


def close(actual, expected) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def penalty(function, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a loss with a gradient penalty."""
    leaves = [x.detach().requires_grad_() for x in leaves]
    result = function(*leaves)
    loss = (result * randn(*result.shape, seed=9)).sum()
    slopes = torch.autograd.grad(loss, leaves, create_graph=True)
    return torch.autograd.grad(loss + 10 * sum(slope.pow(2).sum() for slope in slopes), leaves)


@every_op
def test_gradients_of_gradients_in_float64(case):
    op, _, leaves = case.bound(2, torch.float64)
    leaves = tuple(x.requires_grad_() for x in leaves)
    assert torch.autograd.gradcheck(op, leaves, check_forward_ad=True, fast_mode=True)
    assert torch.autograd.gradgradcheck(op, leaves, check_fwd_over_rev=True, fast_mode=True)


@every_op
def test_gradient_penalty_in_float32(case):
    op, formula, leaves = case.bound(7)
    close(penalty(op, leaves), penalty(formula, leaves))


@every_op
def test_autocast_leaves_the_formula_alone(case):
    """As it leaves the kernels: second derivatives and forward mode keep values and dtypes."""
    op, formula, leaves = case.bound(7)
    tangents = tuple(randn(*x.shape, dtype=x.dtype, seed=7) for x in leaves)
    with torch.autocast("cpu", torch.bfloat16):
        slopes, moved = penalty(op, leaves), jvp(op, tuple(leaves), tangents)
    close(slopes, penalty(formula, leaves))
    close(moved, jvp(formula, tuple(leaves), tangents))


@every_op
def test_several_gradients_at_once(case):
    """As `torch.autograd.functional.jacobian(vectorize=True)` takes them."""
    op, _, leaves = case.bound(3)
    leaves = [x.requires_grad_() for x in leaves]
    result = op(*leaves)
    directions = randn(2, *result.shape, seed=6)
    one_by_one = [torch.autograd.grad(result, leaves, direction, retain_graph=True) for direction in directions]
    together = torch.autograd.grad(result, leaves, directions, is_grads_batched=True)
    close(together, tuple(map(torch.stack, zip(*one_by_one))))


@every_op
def test_gradient_penalty_of_a_compiled_op(case):
    """Right where PyTorch differentiates a compiled graph twice, with the backend that compiles nothing."""
    op, formula, leaves = case.bound(7)
    torch._dynamo.reset()
    compiled = torch.compile(op, fullgraph=True, backend="eager")
    close(penalty(compiled, leaves), penalty(formula, leaves))


@pytest.mark.parametrize("case", [name for name in DIFFERENTIABLE if name.startswith(("nt_", "info", "neg", "masked"))])
def test_gradient_penalty_of_compiled_code_raises(case):
    """With a gradient to one leaf at a time: whichever it is, the backward graph must need it."""
    op, _, leaves = DIFFERENTIABLE[case].bound(7)
    for place in range(len(leaves)):
        torch._dynamo.reset()
        compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
        chosen = [x.detach().requires_grad_(i == place) for i, x in enumerate(leaves)]
        with pytest.raises(RuntimeError, match=r"double backward|create_graph=False"):
            torch.autograd.grad(compiled(*chosen).sum(), chosen[place], create_graph=True)[0].square().sum().backward()


@every_op
def test_third_derivatives(case):
    def third(function, leaves):
        x = leaves[0].detach().requires_grad_()
        result = function(x, *leaves[1:])
        result = (result * randn(*result.shape, seed=9)).square().sum()
        for _ in range(3):
            (slope,) = torch.autograd.grad(result, x, create_graph=True)
            result = (slope * randn(*slope.shape, seed=8)).square().sum()
        return slope.detach()

    op, formula, leaves = case.bound(2, torch.float64)
    torch.testing.assert_close(third(op, leaves), third(formula, leaves))


@every_op
def test_torch_func(case):
    op, formula, leaves = case.bound(5)
    leaves = tuple(leaves)
    tangents = tuple(randn(*x.shape, dtype=x.dtype, seed=7) for x in leaves)
    close(jvp(op, leaves, tangents), jvp(formula, leaves, tangents))
    (actual, pull), (expected, pull_expected) = vjp(op, *leaves), vjp(formula, *leaves)
    close(actual, expected)
    cotangent = randn(*actual.shape, seed=6)
    close(pull(cotangent), pull_expected(cotangent))
    places = tuple(range(len(leaves)))
    weighted = [lambda *xs, f=f: (f(*xs) * cotangent).sum() for f in (op, formula)]
    close(*(grad(f, places)(*leaves) for f in weighted))
    close(*(grad(lambda x, f=f: grad(f)(x, *leaves[1:]).square().sum())(leaves[0]) for f in weighted))


@every_op
def test_curvature(case):
    op, formula, leaves = case.bound(2, torch.float64)
    for curvature in (hessian, lambda f: jacfwd(jacfwd(f))):
        actual, expected = (
            curvature(lambda x, f=f: f(x, *leaves[1:]).square().sum())(leaves[0]) for f in (op, formula)
        )
        torch.testing.assert_close(actual, expected)


@every_op
def test_vmap(case):
    """Over the leaves, over some of them, of the gradients, and the gradient of it."""
    op, formula, leaves = case.bound(3)
    several = [torch.stack([x, 0.5 * x, x.flip(0) if x.dim() else 2 * x]) for x in leaves]
    close(vmap(op)(*several), vmap(formula)(*several))
    in_dims = (0, *[None] * (len(leaves) - 1))
    close(vmap(op, in_dims)(several[0], *leaves[1:]), vmap(formula, in_dims)(several[0], *leaves[1:]))
    last = several[0].movedim(0, -1)
    close(vmap(op, (-1, *in_dims[1:]))(last, *leaves[1:]), vmap(formula, in_dims)(several[0], *leaves[1:]))
    slopes = [vmap(grad(lambda *xs, f=f: f(*xs).square().sum()))(*several) for f in (op, formula)]
    close(*slopes)
    total = [grad(lambda *xs, f=f: vmap(f)(*xs).square().sum())(*several) for f in (op, formula)]
    close(*total)


def test_functional_call_of_a_module_with_a_learnable_temperature():
    loss = InfoNCELoss(0.2, learnable=True)
    query, key, _ = DIFFERENTIABLE["nt_xent"].leaves(6)
    parameters = dict(loss.named_parameters())
    slopes = grad(lambda p: functional_call(loss, p, (query, key)))(parameters)
    loss(query, key).backward()
    close(slopes["log_temperature"], loss.log_temperature.grad)


def test_the_gradient_itself_is_the_kernels():
    """With a graph or without, the same bits; only what follows takes the formula."""
    for case in DIFFERENTIABLE.values():
        op, _, leaves = case.bound(7)
        leaves = [x.requires_grad_() for x in leaves]
        plain, graphed = (torch.autograd.grad(op(*leaves).sum(), leaves, create_graph=graph) for graph in (False, True))
        assert all(torch.equal(a, b) for a, b in zip(plain, graphed))
        by_func = grad(lambda *xs, op=op: op(*xs).sum(), tuple(range(len(leaves))))(*leaves)
        assert all(torch.equal(a, b) for a, b in zip(plain, by_func))


def test_a_queue_may_change_before_the_gradient_but_not_before_its_graph():
    leaves = DIFFERENTIABLE["info_nce, queue"].leaves()
    query, key, tau = leaves
    queue = torch.nn.functional.normalize(randn(4, 5))
    query.requires_grad_()
    expected = torch.autograd.grad(ops.info_nce(query, key, queue, tau), query)
    loss = ops.info_nce(query, key, queue, tau)
    queue.neg_()
    with pytest.raises(RuntimeError, match=r"info_nce: .*changed in place"):
        torch.autograd.grad(loss, query, create_graph=True)
    assert torch.equal(torch.autograd.grad(loss, query)[0], expected[0])


def test_tensors_of_inference_mode_are_constants():
    query, key, tau = DIFFERENTIABLE["nt_xent"].leaves()
    with torch.inference_mode():
        fixed = key.clone()
    for op in (ops.nt_xent, ops.info_nce, lambda q, k, temperature: ops.negative_cosine_similarity(q, k)):
        slopes = []
        for other in (key, fixed):
            x = query.clone().requires_grad_()
            op(x, other, temperature=tau).backward()
            slopes.append(x.grad)
        assert torch.equal(*slopes)
