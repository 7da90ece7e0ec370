"""The visible tokens of a batch."""

from __future__ import annotations

from torch import Tensor

from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu import gather_tokens as cpu
from sslfast.ops.autograd import differentiable
from sslfast.ops.checks import FLOATS, INTEGERS
from sslfast.ops.patches import check_keep, check_tensor, indices_checked
from sslfast.ops.registry import define_op, lazily


def gather_tokens(tokens: Tensor, keep: Tensor) -> Tensor:
    """The kept tokens of every image, in the order of `keep`. It equals

        torch.gather(tokens, 1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))

    but needs no index of the size of the result, and its gradient is written once, where no token is kept twice.

    Args:
        tokens: (B, L, D) float32, bfloat16, float16, or float64 through the reference, bool or integers; any strides.
        keep: (B, K) int64 in [0, L), on the same device. What is out of range raises on the CPU and on CUDA gives NaN,
            the least of integers, or False.

    Returns:
        (B, K, D) in the dtype of tokens. Differentiable with respect to tokens.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype, device or range, or is empty.

    Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377
    """
    check_tensor("gather_tokens", "tokens", tokens, "(B, L, D)", (*FLOATS, *INTEGERS), like=tokens)
    check_keep("gather_tokens", keep, tokens.shape[0], like=tokens)
    return _gather_tokens(tokens, keep)


_below_tokens = indices_checked("gather_tokens", "keep", lambda tokens, keep: tokens.shape[1])
_below_number = indices_checked("gather_tokens", "keep", lambda grad, keep, num_tokens: num_tokens)

_forward = define_op(
    "gather_tokens_forward(Tensor tokens, Tensor keep) -> Tensor",
    fake=lambda tokens, keep: tokens.new_empty(*keep.shape, tokens.shape[2]),
    reference=_below_tokens(reference.gather_tokens_forward),
    cpu=_below_tokens(cpu.forward),
    cuda=lazily("sslfast.kernels.triton.gather_tokens", "forward"),
    layout={"tokens": "B L D: number", "keep": "B K: int64"},
)
_backward = define_op(
    "gather_tokens_backward(Tensor grad, Tensor keep, SymInt num_tokens) -> Tensor",
    fake=lambda grad, keep, num_tokens: grad.new_empty(grad.shape[0], num_tokens, grad.shape[2]),
    reference=_below_number(reference.gather_tokens_backward),
    cpu=_below_number(cpu.backward),
    cuda=lazily("sslfast.kernels.triton.gather_tokens", "backward"),
    layout={"grad": "B K D: float", "keep": "B K: int64"},
)
_gather_tokens = differentiable(
    "gather_tokens(Tensor tokens, Tensor keep) -> Tensor",
    value=lambda args: (_forward(*args), ()),
    gradient=lambda wanted, grad, args, _: (_backward(grad, args.keep, args.tokens.shape[1]),),
    formula=lambda args: reference.gather_tokens_forward(*args),
    leaves=1,
    linear=True,
)
