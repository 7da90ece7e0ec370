"""ops.restore_tokens against the reference in float64: values, every gradient, layouts, contracts."""

from __future__ import annotations

import patches
import pytest
import torch
from patches import HALVES_AND_SINGLE, patch_mask, randn

from sslfast import ops
from sslfast.kernels import reference_mae as reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def restores(restore):
    """The op and its reference with this `restore`, functions of what is differentiable."""
    return tuple(
        lambda visible, mask_token, pos_embed=None, f=f: f(visible, restore, mask_token, pos_embed)
        for f in (ops.restore_tokens, reference.restore_tokens_forward)
    )


def inputs(b, n, k, d, device, dtype=torch.float32, parameter_dtype=None):
    parameter_dtype = parameter_dtype or dtype
    return {
        "visible": randn(b, k, d, device=device, dtype=dtype),
        "mask_token": randn(d, device=device, dtype=parameter_dtype, seed=1),
        "pos_embed": randn(n, d, device=device, dtype=parameter_dtype, seed=2),
    }


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize(
    ("b", "n", "k", "d"), [(1, 1, 1, 1), (3, 7, 2, 5), (2, 196, 49, 60), (5, 63, 63, 129), (70, 33, 1, 64)]
)
def test_values_and_gradients_ragged_shapes(b, n, k, d, dtype, device):
    op, expected = restores(patch_mask(b, n, k, device).restore)
    leaves = inputs(b, n, k, d, device, dtype)
    patches.assert_meets_the_bar(op, expected, dtype, **leaves)
    del leaves["pos_embed"]
    patches.assert_meets_the_bar(op, expected, dtype, **leaves)


@pytest.mark.parametrize("parameter_dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_parameters_of_another_dtype(dtype, parameter_dtype, device):
    op, expected = restores(patch_mask(6, 20, 5, device).restore)
    patches.assert_meets_the_bar(op, expected, dtype, **inputs(6, 20, 5, 24, device, dtype, parameter_dtype))


def test_float64_gradcheck():
    op, _ = restores(patch_mask(2, 5, 3).restore)
    leaves = [x.double().requires_grad_() for x in inputs(2, 5, 3, 4, "cpu").values()]
    assert torch.autograd.gradcheck(op, leaves)
    assert torch.autograd.gradcheck(op, leaves[:2])


def test_is_the_formula_of_the_docstring(device):
    """An independent spelling: token by token."""
    _, restore, mask = patch_mask(3, 8, 5, device)
    x = inputs(3, 8, 5, 4, device, torch.float64)
    result = ops.restore_tokens(x["visible"], restore, x["mask_token"], x["pos_embed"])
    for b in range(3):
        for i in range(8):
            token = x["mask_token"] if mask[b, i] else x["visible"][b, restore[b, i]]
            assert torch.equal(result[b, i], token + x["pos_embed"][i])


def test_undoes_gather_tokens(device):
    keep, restore, mask = patch_mask(3, 8, 5, device)
    tokens = randn(3, 8, 4, device=device)
    filled = ops.restore_tokens(ops.gather_tokens(tokens, keep), restore, torch.zeros(4, device=device))
    assert torch.equal(filled, tokens.masked_fill(mask[:, :, None], 0))


def test_parameters_as_models_hold_them(device):
    """(1, 1, D) and (1, L, D): same values, gradients of the parameters' shapes."""
    restore = patch_mask(3, 8, 5, device).restore
    op, _ = restores(restore)
    flat = inputs(3, 8, 5, 4, device)
    held = flat | {"mask_token": flat["mask_token"][None, None], "pos_embed": flat["pos_embed"][None]}
    expected, actual = patches.run(op, flat), patches.run(op, held)
    for name, x in actual.items():
        assert torch.equal(x, expected[name].reshape(x.shape))
    assert actual["mask_token"].shape == (1, 1, 4)
    assert actual["pos_embed"].shape == (1, 8, 4)


def test_frozen_positions_get_no_gradient(device):
    x = inputs(3, 8, 5, 4, device)
    visible, mask_token = x["visible"].requires_grad_(), x["mask_token"].requires_grad_()
    ops.restore_tokens(visible, patch_mask(3, 8, 5, device).restore, mask_token, x["pos_embed"]).sum().backward()
    assert x["pos_embed"].grad is None
    assert torch.equal(visible.grad, torch.ones_like(visible))
    assert torch.equal(mask_token.grad, torch.full_like(mask_token, 9))


def test_any_strides(device):
    restore = patch_mask(4, 9, 3, device).restore
    x = inputs(4, 9, 3, 12, device)
    expected = ops.restore_tokens(x["visible"], restore, x["mask_token"], x["pos_embed"])
    strided = [x["visible"].mT.contiguous().mT, restore.T.contiguous().T]
    strided += [torch.stack([x["mask_token"]] * 2, dim=1)[:, 0], x["pos_embed"].T.contiguous().T]
    assert torch.equal(ops.restore_tokens(*strided), expected)
    one = x["mask_token"][:1].expand(12)
    assert torch.equal(
        ops.restore_tokens(x["visible"], restore, one), ops.restore_tokens(x["visible"], restore, one.contiguous())
    )


def test_gradients_of_any_strides(device):
    x = [leaf.requires_grad_() for leaf in inputs(4, 9, 3, 12, device).values()]
    result = ops.restore_tokens(x[0], patch_mask(4, 9, 3, device).restore, *x[1:])
    grad = randn(4, 12, 9, device=device).mT
    strided = torch.autograd.grad(result, x, grad, retain_graph=True)
    assert all(map(torch.equal, strided, torch.autograd.grad(result, x, grad.contiguous())))


def test_nan_stays_where_it_belongs(device):
    _, restore, mask = patch_mask(2, 6, 2, device)
    x = inputs(2, 6, 2, 3, device)
    x["visible"][1, 0, 1] = x["mask_token"][2] = float("nan")
    nan = ops.restore_tokens(x["visible"], restore, x["mask_token"], x["pos_embed"]).isnan()
    assert torch.equal(nan[..., 2], mask)
    assert torch.equal(nan[..., 1], (restore == 0) & torch.tensor([[False], [True]], device=device))
    assert not nan[..., 0].any()


@pytest.mark.parametrize("wrong", [-1, 6])
def test_indices_out_of_range(wrong, device):
    x, restore = inputs(2, 6, 2, 3, device), patch_mask(2, 6, 2, device).restore
    place = int((restore[1] == 1).nonzero())
    restore[1, place] = wrong
    if device == "cpu":
        with pytest.raises(ValueError, match=r"restore_tokens: restore must hold indices in \[0, 6\), got"):
            ops.restore_tokens(x["visible"], restore, x["mask_token"])
        with pytest.raises(ValueError, match="restore_tokens: restore must hold"):
            torch.ops.sslfast.restore_tokens_backward(x["visible"].repeat(1, 3, 1), restore, 2, True)
        return
    visible = x["visible"].requires_grad_()
    result = ops.restore_tokens(visible, restore, x["mask_token"], x["pos_embed"])
    assert result.isnan().sum() == (3 if wrong < 0 else 0)
    result.sum().backward()
    assert (visible.grad[1, 1] == 0).all()
    assert visible.grad.sum() == 9


def test_tokens_that_are_left_out_have_gradient_zero(device):
    visible = randn(2, 3, 4, device=device).requires_grad_()
    restore = torch.tensor([[0, 5, 3, 2, 4, 5], [3, 4, 5, 3, 4, 1]], device=device)  # no 1; neither 0 nor 2
    ops.restore_tokens(visible, restore, torch.zeros(4, device=device)).sum().backward()
    assert visible.grad[..., 0].tolist() == [[1, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_deterministic(dtype, device):
    op, _ = restores(patch_mask(40, 64, 16, device).restore)
    patches.assert_repeats(op, **inputs(40, 64, 16, 32, device, dtype, torch.float32))


def test_autocast_keeps_the_dtype_of_visible(device):
    x, restore = inputs(2, 6, 2, 3, device, torch.bfloat16, torch.float32), patch_mask(2, 6, 2, device).restore
    with torch.autocast(device, torch.float16):
        inside = ops.restore_tokens(x["visible"], restore, x["mask_token"], x["pos_embed"])
    assert inside.dtype == torch.bfloat16
    assert torch.equal(inside, ops.restore_tokens(x["visible"], restore, x["mask_token"], x["pos_embed"]))


def test_opcheck(device):
    restore = patch_mask(2, 6, 2, device).restore
    forward, backward = torch.ops.sslfast.restore_tokens_forward, torch.ops.sslfast.restore_tokens_backward
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        x = inputs(2, 6, 2, 3, device, dtype)
        for pos_embed in (x["pos_embed"], None):
            torch.library.opcheck(forward.default, (x["visible"], restore, x["mask_token"], pos_embed))
        for with_pos in (True, False):
            grad = randn(2, 6, 3, device=device, dtype=dtype)
            torch.library.opcheck(backward.default, (grad, restore, 2, with_pos))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend, device):
    op, _ = restores(patch_mask(2, 6, 2, device).restore)
    patches.assert_compiles(lambda **x: op(**x).exp(), backend, **inputs(2, 6, 2, 3, device))


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    op, _ = restores(patch_mask(2, 6, 2, "cuda").restore)
    patches.assert_captured(op, **inputs(2, 6, 2, 3, "cuda"))


V, R, M, P = torch.ones(2, 3, 4), torch.arange(6).expand(2, 6), torch.ones(4), torch.ones(6, 4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([1.0], R, M), TypeError, r"visible must be a tensor \(B, K, D\), got list"),
        ((V.int(), R, M), TypeError, "visible must be float32.*int32"),
        ((V[0], R, M), ValueError, r"visible must be \(B, K, D\) and not empty, got shape \(3, 4\)"),
        ((V[:, :0], R, M), ValueError, r"visible must be .* not empty, got shape \(2, 0, 4\)"),
        ((V, R.int(), M), TypeError, "restore must be int64, got torch.int32"),
        ((V, R[0], M), ValueError, r"restore must be \(B, L\)"),
        ((V, R[:1], M), ValueError, "restore must have a batch of 2"),
        ((V, R[:, :2], M), ValueError, "restore must have as many columns as there are visible tokens, 3, or more"),
        ((V, R.to("meta"), M), ValueError, "restore must be on cpu"),
        ((V, R, 0.0), TypeError, "mask_token must be a tensor, got float"),
        ((V, R, M.int()), TypeError, "mask_token must be float32.*int32"),
        ((V, R, M[:3]), ValueError, r"mask_token must have shape \(4,\) or \(1, 1, 4\), got \(3,\)"),
        (
            (V, R, M.double()),
            TypeError,
            "float64 goes with float64 only, got .*32 visible and .*64 mask_token",
        ),
        ((V, R, M.to("meta")), ValueError, "mask_token must be on the device of visible, cpu, got meta"),
        ((V, R, M, [0.0]), TypeError, "pos_embed must be a tensor, got list"),
        ((V, R, M, P[:5]), ValueError, r"pos_embed must have shape \(6, 4\) or \(1, 6, 4\), got \(5, 4\)"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=f"restore_tokens: {message}"):
        ops.restore_tokens(*arguments)
