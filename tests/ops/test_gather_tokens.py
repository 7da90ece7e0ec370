"""ops.gather_tokens against torch.gather: values, gradients, layouts, contracts."""

from __future__ import annotations

import functools

import patches
import pytest
import torch
from patches import EVERY_FLOAT, HALVES_AND_SINGLE, patch_mask, randn

from sslfast import ops
from sslfast.kernels import reference_mae as reference
from sslfast.ops.checks import INTEGERS

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def gathers(keep):
    """The op and its reference with this `keep`, functions of the tokens alone."""
    return functools.partial(ops.gather_tokens, keep=keep), functools.partial(
        reference.gather_tokens_forward, keep=keep
    )


@pytest.mark.parametrize("dtype", EVERY_FLOAT, ids=str)
# The last is written past the caches.
@pytest.mark.parametrize(
    ("b", "n", "k", "d"),
    [(1, 1, 1, 1), (3, 7, 2, 5), (2, 196, 49, 60), (5, 63, 63, 129), (1, 257, 1, 64), (3, 9001, 8600, 81)],
)
def test_values_and_gradients_are_copies(b, n, k, d, dtype, device):
    tokens, keep = randn(b, n, d, device=device, dtype=dtype), patch_mask(b, n, k, device).keep
    op, expected = gathers(keep)
    actual, wanted = patches.run(op, {"tokens": tokens}), patches.run(expected, {"tokens": tokens})
    assert all(torch.equal(actual[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_and_truth_values(dtype, device):
    tokens = torch.randint(0, 100, (3, 7, 5), generator=torch.Generator().manual_seed(0)).to(device, dtype)
    keep = patch_mask(3, 7, 2, device).keep
    op, expected = gathers(keep)
    for x in (tokens, tokens.mT.contiguous().mT, tokens[:, :, ::2]):
        assert torch.equal(op(x), expected(x))
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(tokens), expected(tokens))
    torch.library.opcheck(torch.ops.sslfast.gather_tokens_forward.default, (tokens, keep))


def test_float64_gradcheck():
    op, _ = gathers(patch_mask(2, 5, 3).keep)
    assert torch.autograd.gradcheck(op, randn(2, 5, 4, dtype=torch.float64).requires_grad_())


def test_is_the_formula_of_the_docstring(device):
    tokens, keep = randn(3, 8, 4, device=device), patch_mask(3, 8, 5, device).keep
    expected = torch.stack([tokens[b, keep[b]] for b in range(3)])
    assert torch.equal(ops.gather_tokens(tokens, keep), expected)


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_any_strides(dtype, device):
    tokens, keep = randn(4, 9, 12, device=device, dtype=dtype), patch_mask(4, 9, 3, device).keep
    expected = ops.gather_tokens(tokens, keep)
    wide = torch.stack([tokens, tokens + 1], dim=-1)
    for alike in (tokens.mT.contiguous().mT, tokens.permute(1, 2, 0).contiguous().permute(2, 0, 1), wide[..., 0]):
        assert torch.equal(ops.gather_tokens(alike, keep), expected)
    assert torch.equal(ops.gather_tokens(tokens, keep.T.contiguous().T), expected)
    without_class_token = torch.cat([tokens[:, :1], tokens], dim=1)[:, 1:]
    assert torch.equal(ops.gather_tokens(without_class_token, keep), expected)
    assert torch.equal(ops.gather_tokens(tokens[:1].expand(4, -1, -1), keep[:1].expand(4, -1))[3], expected[0])


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_gradients_of_any_strides(dtype, device):
    tokens = randn(4, 9, 12, device=device, dtype=dtype).requires_grad_()
    result = ops.gather_tokens(tokens, patch_mask(4, 9, 3, device).keep)
    grad = randn(4, 12, 3, device=device, dtype=dtype).mT
    (strided,) = torch.autograd.grad(result, tokens, grad, retain_graph=True)
    (expected,) = torch.autograd.grad(result, tokens, grad.contiguous(), retain_graph=True)
    assert torch.equal(strided, expected)
    (ones,) = torch.autograd.grad(result.sum(), tokens)
    assert ones.sum() == result.numel()


def test_nan_moves_with_its_token(device):
    tokens, keep = randn(2, 6, 3, device=device), patch_mask(2, 6, 2, device).keep
    tokens[0, keep[0, 1], 2] = float("nan")
    result = ops.gather_tokens(tokens, keep)
    assert result[0, 1, 2].isnan()
    assert result.isnan().sum() == 1


@pytest.mark.parametrize("wrong", [-1, 6, 2**40])
def test_indices_out_of_range(wrong, device):
    tokens, keep = randn(2, 6, 3, device=device), patch_mask(2, 6, 2, device).keep
    keep[1, 0] = wrong
    if device == "cpu":
        with pytest.raises(ValueError, match=r"gather_tokens: keep must hold indices in \[0, 6\), got"):
            ops.gather_tokens(tokens, keep)
        with pytest.raises(ValueError, match="gather_tokens: keep must hold"):
            torch.ops.sslfast.gather_tokens_backward(tokens[:, :2], keep, 6)
        return
    tokens.requires_grad_()
    result = ops.gather_tokens(tokens, keep)
    assert result[1, 0].isnan().all()
    assert result.isnan().sum() == 3
    result.sum().backward()
    assert tokens.grad.sum() == 9


def test_deterministic(device):
    op, _ = gathers(patch_mask(16, 64, 16, device).keep)
    patches.assert_repeats(op, tokens=randn(16, 64, 32, device=device))


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_autocast_changes_nothing(dtype, device):
    tokens, keep = randn(2, 6, 3, device=device, dtype=dtype), patch_mask(2, 6, 2, device).keep
    with torch.autocast(device, torch.bfloat16):
        inside = ops.gather_tokens(tokens, keep)
    assert torch.equal(inside, ops.gather_tokens(tokens, keep))
    assert inside.dtype == dtype


def test_opcheck(device):
    keep = patch_mask(2, 6, 2, device).keep
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        tokens = randn(2, 6, 3, device=device, dtype=dtype)
        torch.library.opcheck(torch.ops.sslfast.gather_tokens_forward.default, (tokens, keep))
        torch.library.opcheck(torch.ops.sslfast.gather_tokens_backward.default, (tokens[:, :2], keep, 6))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend, device):
    keep = patch_mask(2, 6, 2, device).keep
    tokens = randn(2, 6, 3, device=device)
    patches.assert_compiles(lambda tokens: ops.gather_tokens(2 * tokens, keep).exp(), backend, tokens=tokens)


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    op, _ = gathers(patch_mask(2, 6, 2, "cuda").keep)
    patches.assert_captured(op, tokens=randn(2, 6, 3, device="cuda"))


X, KEEP = torch.ones(2, 6, 3), torch.zeros(2, 1, dtype=torch.int64)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], KEEP), TypeError, r"tokens must be a tensor \(B, L, D\), got list"),
        ((X.to(torch.complex64), KEEP), TypeError, "tokens must be float32, .* or int64, got torch.complex64"),
        ((X[0], KEEP), ValueError, r"tokens must be \(B, L, D\) and not empty, got shape \(6, 3\)"),
        ((X[:0], KEEP), ValueError, r"tokens must be .* not empty, got shape \(0, 6, 3\)"),
        ((X, [[0]]), TypeError, r"keep must be a tensor \(B, K\), got list"),
        ((X, KEEP.int()), TypeError, "keep must be int64, got torch.int32"),
        ((X, KEEP[0]), ValueError, r"keep must be \(B, K\) and not empty, got shape \(1,\)"),
        ((X, KEEP[:, :0]), ValueError, r"keep must be .* not empty, got shape \(2, 0\)"),
        ((X, KEEP[:1]), ValueError, r"keep must have a batch of 2, got shape \(1, 1\)"),
        ((X, KEEP.to("meta")), ValueError, "keep must be on cpu, as the other arguments, got meta"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=f"gather_tokens: {message}"):
        ops.gather_tokens(*arguments)
