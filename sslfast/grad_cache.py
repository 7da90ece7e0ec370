"""A contrastive loss over a batch whose activations do not fit: one of embeddings, and gradients chunk by chunk."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import get_device_states, set_device_states

from sslfast.ops.checks import as_int, check_dense

Encoder = Callable[..., "Tensor | tuple[Tensor, ...]"]


class GradCache:
    """The loss of one large batch with the memory of a chunk: all embeddings first, gradients in a second pass.

        cache = GradCache([image_encoder, text_encoder], loss=lambda x, y: ops.info_nce(x, y), chunk_size=64)
        loss = cache(images, texts)  # no graph of the encoders: embeddings of all chunks, then the loss once
        loss.backward()  # gradients to the embeddings, then every chunk forward again, and backward with its own
        optimizer.step()

    The gradients are those of the whole batch, at the price of one more forward pass. In the second pass a chunk has
    the random numbers, the autocast state and the buffers (of encoders that are modules) of its first: dropout drops
    the same, and running statistics move once. BatchNorm's own statistics are those of a chunk, so networks with
    BatchNorm in train mode differ from one large batch, as on several devices.

    `loss.backward()` is what the script has: under a GradScaler, `scaler.scale(loss).backward()`. With
    DistributedDataParallel the encoders' gradients are exchanged once, with an encoder's last chunk; give the loss
    `group="world"`, so that it sees the embeddings of every process.

    Args:
        encoders: one or a list of them, modules or functions. Each maps a chunk to a tensor (n, ...) or a tuple of
            them. A 0-dim tensor among them, as a learned temperature, is taken to be the same for all chunks.
        loss: takes the outputs of all encoders in order, the rows of all chunks together, and returns a 0-dim tensor.
            Its own parameters get their gradients as usual; in DistributedDataParallel let an encoder return them.
        chunk_size: rows of a chunk; None where the inputs come as lists of chunks.
        no_sync: a function that gives a context without exchange of gradients between processes, for encoders that
            wrap a parallel module; by default an encoder's own `no_sync`, if it has one.

    Raises:
        TypeError, ValueError: an argument has the wrong type or range; in the call: inputs or outputs do not fit.

    Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
    https://arxiv.org/abs/2101.06983
    """

    def __init__(
        self,
        encoders: Encoder | Sequence[Encoder],
        loss: Callable[..., Tensor],
        chunk_size: int | None,
        *,
        no_sync: Callable[[], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self.encoders: list[Any] = list(encoders) if isinstance(encoders, (list, tuple)) else [encoders]
        if not self.encoders:
            raise ValueError("GradCache: encoders must be one or more, got none")
        for name, function in (*(("encoders", x) for x in self.encoders), ("loss", loss)):
            if not callable(function):
                raise TypeError(f"GradCache: {name} must be callable, got {type(function).__name__}")
        if chunk_size is not None:
            chunk_size = as_int("GradCache", "chunk_size", chunk_size, "an int or None")
        if chunk_size is not None and chunk_size < 1:
            raise ValueError(f"GradCache: chunk_size must be at least 1, got {chunk_size}")
        self.loss, self.chunk_size, self.no_sync = loss, chunk_size, no_sync

    def __call__(self, *inputs: Any, **options: Any) -> Tensor:
        """The loss, 0-dim, of all rows.

        Args:
            inputs: one an encoder: a tensor (N, ...), a tuple of them for an encoder of several arguments, or a dict
                for one of keyword arguments; without chunk_size a list of such chunks. They get no gradient.
            options: go to the loss, as they are.
        """
        if len(inputs) != len(self.encoders):
            raise ValueError(f"GradCache: inputs must be {len(self.encoders)}, one an encoder, got {len(inputs)}")
        rows = [
            [_Chunk(encoder, *arguments) for arguments in self._cut(x)] for encoder, x in zip(self.encoders, inputs)
        ]
        second = torch.is_grad_enabled()
        with torch.no_grad(), _buffers_restored(self.encoders if second else []):
            outputs = [[chunk.encode() for chunk in row] for row in rows]
        whole = [_joined(parts) for row in outputs for parts in zip(*row, strict=True)]
        if second:
            lengths = [[[len(x) if x.dim() else None for x in part] for part in row] for row in outputs]
            anchor = torch.empty(0, dtype=torch.float32, requires_grad=True)
            whole = _Embeddings.apply(lambda grads: self._second_pass(rows, lengths, grads), anchor, *whole)
        return self.loss(*whole, **options)

    def _cut(self, x: Any) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments of an encoder, chunk by chunk."""
        if self.chunk_size is None:
            if not isinstance(x, list) or not x:
                raise TypeError("GradCache: inputs must be lists of chunks where chunk_size is None")
            return [_arguments(chunk) for chunk in x]
        arguments = _arguments(x)
        tensors = [leaf for leaf in tree_leaves(arguments) if _has_rows(leaf)]
        for x in tensors:
            check_dense("GradCache", "inputs", x, " that can be cut into rows")
        sizes = {len(x) for x in tensors}
        if len(sizes) != 1 or 0 in sizes:
            raise ValueError(
                f"GradCache: inputs must be tensors (N, ...) of one N for an encoder, got N {sorted(sizes)}"
            )
        return [
            tree_map(lambda leaf, i=i: leaf[i : i + self.chunk_size] if _has_rows(leaf) else leaf, arguments)
            for i in range(0, sizes.pop(), self.chunk_size)
        ]

    def _second_pass(
        self, rows: list[list[_Chunk]], lengths: list[list[list[int | None]]], grads: Sequence[Tensor | None]
    ) -> None:
        """Every chunk forward again, with a graph, and backward with its part of the gradients to the embeddings."""
        following = iter(grads)
        todo: list[tuple[_Chunk, tuple[Tensor | None, ...]]] = []
        for row, sizes in zip(rows, lengths):
            pieces = [_pieces(next(following), list(column)) for column in zip(*sizes, strict=True)]
            if row[0].trainable and any(piece is not None for column in pieces for piece in column):
                todo += zip(row, zip(*pieces, strict=True))
        last = {id(chunk.encoder) if self.no_sync is None else None: chunk for chunk, _ in todo}
        for chunk, its in todo:
            with nullcontext() if chunk in last.values() else self._unsynchronised(chunk.encoder):
                chunk.backward(its)

    def _unsynchronised(self, encoder: Encoder) -> AbstractContextManager[Any]:
        no_sync = getattr(encoder, "no_sync", nullcontext) if self.no_sync is None else self.no_sync
        return no_sync()


class _Embeddings(torch.autograd.Function):
    """The embeddings of the first pass as they are; their gradients set off the second pass."""

    @staticmethod
    def forward(ctx: Any, second_pass: Callable[..., None], anchor: Tensor, *embeddings: Tensor) -> tuple[Tensor, ...]:
        ctx.second_pass = second_pass
        ctx.set_materialize_grads(False)
        return embeddings

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[None, ...]:
        ctx.second_pass(grads)
        return None, None, *(None for _ in grads)


class _Chunk:
    """A chunk of an encoder's batch, and the state in which it was encoded first."""

    def __init__(self, encoder: Encoder, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.encoder, self.args, self.kwargs = encoder, args, kwargs
        self.tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if any(x.grad_fn is not None for x in self.tensors):
            raise ValueError("GradCache: inputs must be no results of what is differentiated, they get no gradient")
        self.trainable = not isinstance(encoder, nn.Module) or any(p.requires_grad for p in encoder.parameters())

    def encode(self) -> tuple[Tensor, ...]:
        """The first pass, and what the second needs to be like it."""
        self.rng = torch.get_rng_state()
        self.devices, self.device_rng = get_device_states(*self.tensors)
        kinds = sorted({"cpu", *(x.device.type for x in self.tensors)})
        self.autocast = [
            (kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind))
            for kind in kinds
            if torch.amp.autocast_mode.is_autocast_available(kind)
        ]
        return self._outputs()

    def backward(self, grads: Sequence[Tensor | None]) -> None:
        with torch.enable_grad(), torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.rng)
            set_device_states(self.devices, self.device_rng)
            pairs = [(x, grad) for x, grad in zip(self._outputs(), grads) if grad is not None and x.requires_grad]
            if pairs:
                outputs, theirs = zip(*pairs)
                torch.autograd.backward(outputs, theirs)

    def _outputs(self) -> tuple[Tensor, ...]:
        with ExitStack() as stack:
            for kind, dtype, enabled in self.autocast:  # a weight cast in the first pass has no graph for the second
                stack.enter_context(torch.autocast(kind, dtype, enabled=enabled, cache_enabled=False))
            outputs = self.encoder(*self.args, **self.kwargs)
        outputs = tuple(outputs) if isinstance(outputs, (tuple, list)) else (outputs,)
        for x in outputs:
            if not isinstance(x, Tensor):
                raise TypeError(f"GradCache: encoders must return a tensor or a tuple of them, got {type(x).__name__}")
        return outputs


def _arguments(x: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(x, Mapping):
        return (), dict(x)
    return (x if isinstance(x, tuple) else (x,)), {}


def _has_rows(x: Any) -> bool:
    return isinstance(x, Tensor) and x.dim() > 0


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all chunks; of what is the same for all, the first."""
    return torch.cat(list(parts)) if parts[0].dim() else parts[0]


def _pieces(grad: Tensor | None, sizes: list[int | None]) -> Sequence[Tensor | None]:
    """The gradient's rows a chunk; one of a 0-dim tensor goes with the last chunk, which parallel modules wait for."""
    if grad is None or sizes[0] is None:
        return [None] * (len(sizes) - 1) + [grad]
    return grad.split(sizes)


@contextlib.contextmanager
def _buffers_restored(encoders: Sequence[Encoder]) -> Iterator[None]:
    """What the passes do to buffers, as running statistics, is undone behind this one: the second does it again."""
    before = [
        (part, name, buffer, buffer.clone())
        for encoder in encoders
        if isinstance(encoder, nn.Module)
        for part in encoder.modules()
        for name, buffer in part._buffers.items()
        if buffer is not None and (0 not in buffer.stride() or buffer.numel() < 2)  # nobody writes to an expanded one
    ]
    yield
    for part, name, buffer, values in before:
        part._buffers[name] = buffer
        buffer.copy_(values)
