"""MoCo's queue of keys: the negatives of the batches before."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.kernels.reference import normalize
from sslfast.ops import agreement, distributed
from sslfast.ops.checks import as_int, check_embeddings
from sslfast.ops.distributed import Group, OfGroup


class KeyQueue(OfGroup):
    """The last `size` keys, rows of unit length; the newest overwrite the oldest.

        queue = KeyQueue(65536, 128)
        loss = ops.info_nce(query, key, queue.keys, temperature=0.07)
        queue.enqueue(key)

    It starts with random rows. The rows and the place of the next are buffers, so a checkpoint resumes them exactly.

    Args:
        size: number of keys K.
        dim: width D of a key.
        group: process group whose keys to take in, "world" for the default one (if there is one): all ranks then hold
            the same queue, if they began alike, as under DDP. None: the keys of this process.

    Attributes:
        keys: (size, dim) float32.
        pointer: 0-dim int64, the row that is overwritten next.
        check_ranks: whether `enqueue` compares the shapes of all ranks first, see `ops.nt_xent`; True.

    Raises:
        TypeError, ValueError: size or dim is not a positive integer.

    Source: He et al. 2020, "Momentum Contrast", https://arxiv.org/abs/1911.05722
    """

    keys: Tensor
    pointer: Tensor

    def __init__(self, size: int, dim: int, group: Group = None) -> None:
        super().__init__()
        for name, value in (("size", size), ("dim", dim)):
            if as_int("KeyQueue", name, value, "an integer") < 1:
                raise ValueError(f"KeyQueue: {name} must be at least 1, got {value}")
        self.group, self.check_ranks = group, True
        self.register_buffer("keys", normalize(torch.randn(size, dim, dtype=torch.float32))[0])
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Take in raw or normalised keys (N, D), of every rank of the group; of more than `size`, the last ones.

        Nothing waits for a device, and a CUDA graph may capture it.

        Raises:
            TypeError, ValueError: keys are not a float matrix (N, dim) on the device of the queue; ranks disagree on
                their shape.
        """
        check_embeddings("KeyQueue", keys=keys)
        size, dim = self.keys.shape
        if keys.shape[1] != dim:
            raise ValueError(f"KeyQueue: keys must be (N, {dim}), got shape {tuple(keys.shape)}")
        if keys.device != self.keys.device:
            raise ValueError(f"KeyQueue: keys must be on {self.keys.device}, as the queue, got {keys.device}")
        rows = normalize(keys.to(self.keys.dtype))[0]
        group = distributed.find_group("KeyQueue", self.group, "all")
        if group is not None:
            if self.check_ranks:
                agreement.check_ranks_agree("KeyQueue", group, rows)
            rows = distributed.gather_all(rows, group).flatten(0, 1)
        count = rows.shape[0]
        first = max(0, count - size)
        places = (self.pointer + torch.arange(first, count, device=rows.device)) % size
        self.keys.index_copy_(0, places, rows[first:])
        self.pointer.add_(count).remainder_(size)

    def extra_repr(self) -> str:
        return "size={}, dim={}".format(*self.keys.shape)
