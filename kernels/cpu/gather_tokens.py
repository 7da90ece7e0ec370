"""The visible tokens on the CPU: rows copied once, in parallel."""

from __future__ import annotations

from torch import Tensor

from sslfast import _C
from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu.memory import empty


def forward(tokens: Tensor, keep: Tensor) -> Tensor:
    if tokens.stride(2) != 1:
        tokens = tokens.contiguous()
    keep = keep.contiguous()
    size = tokens.element_size()
    visible = empty(*keep.shape, tokens.shape[2], dtype=tokens.dtype)
    _C.gather_tokens(
        tokens.data_ptr(),
        tokens.stride(0) * size,
        tokens.stride(1) * size,
        keep.data_ptr(),
        *keep.shape,
        tokens.shape[2] * size,
        visible.data_ptr(),
    )
    return visible


def backward(grad: Tensor, keep: Tensor, num_tokens: int) -> Tensor:
    grad, keep = grad.contiguous(), keep.contiguous()
    batch, num_keep, dim = grad.shape
    dtokens = empty(batch, num_tokens, dim, dtype=grad.dtype)
    distinct = _C.spread_tokens(
        grad.data_ptr(), keep.data_ptr(), batch, num_keep, num_tokens, dim * grad.element_size(), dtokens.data_ptr()
    )
    return dtokens if distinct else reference.gather_tokens_backward(grad, keep, num_tokens)
