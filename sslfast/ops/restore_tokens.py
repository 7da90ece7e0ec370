"""The decoder's input: visible and mask tokens back in the order of the image."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu import restore_tokens as cpu
from sslfast.ops.autograd import differentiable
from sslfast.ops.checks import FLOATS, check_dense
from sslfast.ops.layout import require
from sslfast.ops.patches import check_batch, check_tensor, indices_checked
from sslfast.ops.registry import define_op, lazily


def restore_tokens(visible: Tensor, restore: Tensor, mask_token: Tensor, pos_embed: Tensor | None = None) -> Tensor:
    """Put the visible tokens back in their places, the mask token in all others, and add positions. It equals

        filled = torch.cat([visible, mask_token.expand(B, L - K, D)], dim=1)
        torch.gather(filled, 1, restore[:, :, None].expand(-1, -1, D)) + pos_embed

    in one pass, computed in float32.

    Args:
        visible: (B, K, D) float32, bfloat16, float16, or float64 through the reference.
        restore: (B, L) int64 in [0, L), L >= K, on the same device; of `random_patch_mask` a permutation in each row.
            Patch l is visible token restore[b, l], or masked if that is K or more. A number out of range raises on the
            CPU; on CUDA a negative one gives NaN.
        mask_token: (D,) or (1, 1, D), of any of these dtypes; float64 goes with float64 only.
        pos_embed: (L, D) or (1, L, D), likewise; None adds nothing.

    Returns:
        (B, L, D) in the dtype of visible. Differentiable with respect to visible, mask_token and pos_embed; the
        gradients of the latter two are sums in float32, the same from run to run.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype, device or range, or is empty.

    Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377
    """
    op = "restore_tokens"
    check_tensor(op, "visible", visible, "(B, K, D)", FLOATS, like=visible)
    check_tensor(op, "restore", restore, "(B, L)", (torch.int64,), like=visible)
    batch, num_keep, dim = visible.shape
    check_batch(op, "restore", restore, batch)
    num_patches = restore.shape[1]
    if num_patches < num_keep:
        raise ValueError(
            f"{op}: restore must have as many columns as there are visible tokens, {num_keep}, or more, "
            f"got {num_patches}"
        )
    _check_parameter("mask_token", mask_token, visible, [(dim,), (1, 1, dim)])
    if pos_embed is not None:
        _check_parameter("pos_embed", pos_embed, visible, [(num_patches, dim), (1, num_patches, dim)])
        pos_embed = pos_embed.reshape(num_patches, dim)
    return _restore_tokens(visible, mask_token.reshape(dim), pos_embed, restore)


def _check_parameter(name: str, x: Tensor, visible: Tensor, shapes: list[tuple[int, ...]]) -> None:
    check_dense("restore_tokens", name, x, "")
    if x.dtype not in FLOATS:
        raise TypeError(f"restore_tokens: {name} must be float32, bfloat16, float16 or float64, got {x.dtype}")
    if (x.dtype == torch.float64) != (visible.dtype == torch.float64):
        raise TypeError(
            f"restore_tokens: float64 goes with float64 only, got {visible.dtype} visible and {x.dtype} {name}"
        )
    if x.shape not in shapes:
        raise ValueError(f"restore_tokens: {name} must have shape {shapes[0]} or {shapes[1]}, got {tuple(x.shape)}")
    if x.device != visible.device:
        raise ValueError(f"restore_tokens: {name} must be on the device of visible, {visible.device}, got {x.device}")


def _value(args):
    return _forward(args.visible, args.restore, args.mask_token, args.pos_embed), ()


def _gradient(wanted, grad, args, _):
    dvisible, dmask_token, dpos = _backward(grad, args.restore, args.visible.shape[1], wanted[2])
    return dvisible, dmask_token.to(args.mask_token.dtype), dpos.to(args.pos_embed.dtype) if wanted[2] else None


def _formula(args):
    return reference.restore_tokens_forward(args.visible, args.restore, args.mask_token, args.pos_embed)


def _fake_backward(grad, restore, num_visible, with_pos):
    batch, num_patches, dim = grad.shape
    exact = torch.promote_types(grad.dtype, torch.float32)
    dpos = grad.new_empty(num_patches if with_pos else 0, dim, dtype=exact)
    return grad.new_empty(batch, num_visible, dim), grad.new_empty(dim, dtype=exact), dpos


def _require(num_visible: int, restore: Tensor) -> None:
    tokens = restore.shape[1]
    require("restore_tokens", "num_visible", f"in [0, {tokens}]", 0 <= num_visible <= tokens, num_visible)


_below_columns = indices_checked("restore_tokens", "restore", lambda first, restore, *_: restore.shape[1])

_forward = define_op(
    "restore_tokens_forward(Tensor visible, Tensor restore, Tensor mask_token, Tensor? pos_embed) -> Tensor",
    fake=lambda visible, restore, *_: visible.new_empty(*restore.shape, visible.shape[2]),
    reference=_below_columns(reference.restore_tokens_forward),
    cpu=_below_columns(cpu.forward),
    cuda=lazily("sslfast.kernels.triton.restore_tokens", "forward"),
    layout={"visible": "B K D: float", "restore": "B L: int64", "mask_token": "D: float", "pos_embed": "L D: float"},
    requires=lambda visible, restore, *_: _require(visible.shape[1], restore),
)
_backward = define_op(
    "restore_tokens_backward(Tensor grad, Tensor restore, SymInt num_visible, bool with_pos)"
    " -> (Tensor dvisible, Tensor dmask_token, Tensor dpos)",
    fake=_fake_backward,
    reference=_below_columns(reference.restore_tokens_backward),
    cpu=_below_columns(cpu.backward),
    cuda=lazily("sslfast.kernels.triton.restore_tokens", "backward"),
    layout={"grad": "B L D: float", "restore": "B L: int64"},
    requires=lambda grad, restore, num_visible, with_pos: _require(num_visible, restore),
)
_restore_tokens = differentiable(
    "restore_tokens(Tensor visible, Tensor mask_token, Tensor? pos_embed, Tensor restore) -> Tensor",
    value=_value,
    gradient=_gradient,
    formula=_formula,
    leaves=3,
    linear=True,
)
