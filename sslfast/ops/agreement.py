"""Whether the ranks of a group compute the same loss: to exchange what does not fit would hang, or mix two losses."""

from __future__ import annotations

import weakref

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sslfast.ops.distributed import gather_all

LENGTH = 192  # bytes of a description, more than any has
_host_groups: weakref.WeakKeyDictionary[ProcessGroup, ProcessGroup] = weakref.WeakKeyDictionary()


def check_ranks_agree(
    op: str,
    group: ProcessGroup,
    x: Tensor,
    *,
    gather: str = "all",
    reduction: str = "none",
    **numbers: float | Tensor,
) -> None:
    """Refuse ranks whose op, shape, dtype, gather, reduction or numbers differ: one small exchange between hosts.

    No device waits for it: a temperature in a tensor of a GPU is compared with the first exchange of the loss itself.
    Nothing is exchanged while a CUDA graph is captured, which must not hold it, or torch.compile traces.

    Raises:
        ValueError: on every rank; says what each has.
    """
    if torch.compiler.is_compiling() or (x.is_cuda and torch.cuda.is_current_stream_capturing()):
        return
    about = f"{tuple(x.shape)} {x.dtype}, "
    for name, number in numbers.items():
        shown: object = number
        if isinstance(number, Tensor):
            shown = "on its device" if number.is_cuda else float(number.detach())
        about += f"{name} {shown}, "
    about += f"gather {gather}, reduction {reduction} in {op}"
    mine = torch.frombuffer(bytearray(about.encode().ljust(LENGTH)), dtype=torch.uint8)
    everyone = gather_all(mine, _host_group(group))
    if not everyone.eq(mine).all():
        texts = [bytes(row.tolist()).decode().rstrip() for row in everyone]
        ranks = "; ".join(f"rank {rank}: {text}" for rank, text in enumerate(texts))
        raise ValueError(
            f"{op}: the ranks of group must have equal ops, shapes, dtypes, temperatures or scales, gathers and "
            f"reductions, got {ranks}"
        )


def _host_group(group: ProcessGroup) -> ProcessGroup:
    """The group itself if it can exchange tensors of the host, else one of the same ranks that can."""
    if "cpu" in dist.get_backend_config(group):
        return group
    if group not in _host_groups:
        ranks = dist.get_process_group_ranks(group)
        host_group = dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
        assert isinstance(host_group, ProcessGroup)  # this rank is one of them
        _host_groups[group] = host_group
    return _host_groups[group]
