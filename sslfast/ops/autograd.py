"""What the autograd side of the ops shares."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch


def once_differentiable(backward: Callable) -> Callable:
    """A backward of a kernel: asked for a graph of itself it raises, where PyTorch's decorator of this name can stay
    silent (it looks at the incoming gradient only) and a gradient penalty would be quietly wrong."""

    @functools.wraps(backward)
    def wrapper(ctx, *grads):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError("this sslfast op can be differentiated once only; create_graph=True is not supported")
        return backward(ctx, *grads)

    return wrapper
