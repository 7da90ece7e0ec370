"""The decoder's input on the CPU: every row read and written once, sums in float64 and a fixed order."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu.images import TYPES
from sslfast.kernels.cpu.memory import empty


def forward(visible: Tensor, restore: Tensor, mask_token: Tensor, pos_embed: Tensor | None) -> Tensor:
    visible, restore = visible.contiguous(), restore.contiguous()
    mask_token = mask_token.float().contiguous()
    pos_embed = None if pos_embed is None else pos_embed.float().contiguous()
    tokens = empty(*restore.shape, visible.shape[2], dtype=visible.dtype)
    _C.restore_tokens(
        visible.data_ptr(),
        TYPES[visible.dtype],
        restore.data_ptr(),
        mask_token.data_ptr(),
        0 if pos_embed is None else pos_embed.data_ptr(),
        *restore.shape,
        *visible.shape[1:],
        tokens.data_ptr(),
    )
    return tokens


def backward(grad: Tensor, restore: Tensor, num_visible: int, with_pos: bool) -> tuple[Tensor, Tensor, Tensor]:
    grad, restore = grad.contiguous(), restore.contiguous()
    batch, num_tokens, dim = grad.shape
    dvisible = empty(batch, num_visible, dim, dtype=grad.dtype)
    dmask_token = empty(dim, dtype=torch.float32)
    dpos = empty(num_tokens if with_pos else 0, dim, dtype=torch.float32)
    distinct = _C.restore_tokens_backward(
        grad.data_ptr(),
        TYPES[grad.dtype],
        restore.data_ptr(),
        batch,
        num_tokens,
        num_visible,
        dim,
        dvisible.data_ptr(),
        dmask_token.data_ptr(),
        dpos.data_ptr(),
    )
    if distinct:
        return dvisible, dmask_token, dpos
    return reference.restore_tokens_backward(grad, restore, num_visible, with_pos)
