"""Negatives of other processes, for the contrastive losses: what is exchanged, and how a loss takes it in.

Every rank has the losses of its own rows, against the columns of all. Forward it needs the unit columns of the others.
Backward, a row is also a negative in the losses of others; the weight it has there follows from their (factor, shift),
two numbers a row. So no gradient is ever sent, and the same exchange serves both directions.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

from sslfast.ops import negatives

GATHERS = ("all", "ring")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_host_groups: weakref.WeakKeyDictionary[ProcessGroup, ProcessGroup] = weakref.WeakKeyDictionary()


def find_group(op: str, group: ProcessGroup | str | None, gather: str) -> ProcessGroup | None:
    """The process group, or None where this process is alone."""
    if gather not in GATHERS:
        raise ValueError(f"{op}: gather must be one of {', '.join(GATHERS)}, got {gather!r}")
    if group == "world":
        group = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
    if group is None:
        return None
    if not isinstance(group, ProcessGroup):
        raise TypeError(f"{op}: group must be a process group, 'world' or None, got {group!r}")
    return group if dist.get_world_size(group) > 1 else None


def agree(op: str, group: ProcessGroup, x: Tensor, temperature: float, tau: Tensor | None) -> Tensor | None:
    """Refuse ranks whose shapes, dtypes or temperatures differ: to exchange them would hang, or mix two losses.

    The numbers travel between the hosts, so that no device waits. A temperature on a device is compared there: the
    tensor that comes back is NaN where ranks differ.
    """
    if tau is not None and tau.device.type == "cpu":
        temperature = float(tau)
    mine = torch.tensor([*x.shape, DTYPES.index(x.dtype), temperature], dtype=torch.float64)
    everyone = gather_all(mine, _host_group(group))
    if not torch.allclose(everyone, mine.expand_as(everyone), rtol=0, atol=0, equal_nan=True):
        ranks = "; ".join(
            f"rank {rank}: ({n:.0f}, {d:.0f}) {DTYPES[int(dtype)]}, temperature {tau:.9g}"
            for rank, (n, d, dtype, tau) in enumerate(everyone.tolist())
        )
        raise ValueError(f"{op}: the ranks of group must have equal shapes, dtypes and temperatures, got {ranks}")
    if tau is None or tau.device.type == "cpu":
        return tau
    taus = gather_all(tau.detach()[None], group)
    return torch.where((taus == tau).all(), tau, float("nan"))


def _host_group(group: ProcessGroup) -> ProcessGroup:
    """The group itself if it can exchange tensors of the host, else one of the same ranks that can."""
    if "cpu" in dist.get_backend_config(group):
        return group
    if group not in _host_groups:
        ranks = dist.get_process_group_ranks(group)
        _host_groups[group] = dist.new_group(ranks, backend="gloo", use_local_synchronization=True)
    return _host_groups[group]


def add_negatives(
    rows: Tensor,
    columns: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    mean: Tensor,
    temperature: float,
    tau: Tensor | None,
    group: ProcessGroup,
    gather: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses, shift, inverse_sum and mean of the rows, once the columns of all other ranks are negatives too."""
    t = temperature if tau is None else tau.double()
    loss, top, total, weighted = losses.double(), shift.double(), 1 / inverse_sum.double(), mean
    weighted = weighted * total[: len(mean), None]
    for (block,) in others([columns], group, gather):
        part = negatives.forward(rows, block, False, temperature, tau, len(mean) > 0)
        part_shift, part_sum, part_weighted = (x.double() for x in part)
        ratio = torch.log(part_sum / total) + (part_shift - top) / t
        loss = loss + torch.logaddexp(ratio, torch.zeros_like(ratio))
        higher = torch.maximum(top, part_shift)
        keep, join = torch.exp((top - higher) / t), torch.exp((part_shift - higher) / t)
        total, top = total * keep + part_sum * join, higher
        weighted = weighted * keep[: len(mean), None] + part_weighted * join[: len(mean), None]
    mean = weighted / total[: len(mean), None]
    return loss.to(losses.dtype), top.to(shift.dtype), (1 / total).to(inverse_sum.dtype), mean.to(losses.dtype)


def weighted_negatives(
    rows: Tensor,
    columns: Tensor,
    row: tuple[Tensor, Tensor] | None,
    column: tuple[Tensor, Tensor] | None,
    temperature: float,
    tau: Tensor | None,
    group: ProcessGroup,
    gather: str,
) -> tuple[Tensor, Tensor]:
    """Gradients to the unit rows, and to the temperature from them, that the negatives of all other ranks add.

    row: (factor, shift) of the rows' own losses. column: those of this rank's columns, to be exchanged, where the
    columns have losses in which the rows are negatives.
    """
    t = temperature if tau is None else tau
    du = torch.zeros(rows.shape, dtype=torch.promote_types(rows.dtype, torch.float32), device=rows.device)
    for block, *factors in others([columns, *(column or ())], group, gather):
        row_factors, column_factors = row or (None, None), factors or (None, None)
        du += negatives.backward(rows, block, False, *row_factors, *column_factors, temperature, tau)
    du /= t
    return du, -(du * rows).sum() / t


def others(tensors: Sequence[Tensor], group: ProcessGroup, gather: str) -> Iterator[list[Tensor]]:
    """The same tensors of every other rank, by distance; with "ring" one rank's at a time, the next under way."""
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    if gather == "all":
        gathered = [gather_all(x, group) for x in tensors]
        for distance in range(1, size):
            yield [x[(rank - distance) % size] for x in gathered]
        return
    following, preceding = (dist.get_global_rank(group, (rank + way) % size) for way in (1, -1))
    held = [_bytes(x) for x in tensors]
    for distance in range(1, size + 1):
        arriving = [torch.empty_like(x) for x in held]
        requests = []
        if distance < size:
            sends = [dist.P2POp(dist.isend, x, following, group) for x in held]
            receives = [dist.P2POp(dist.irecv, x, preceding, group) for x in arriving]
            with _exchange():
                requests = dist.batch_isend_irecv(sends + receives)
        if distance > 1:
            yield [x.view(like.dtype).view(like.shape) for x, like in zip(held, tensors)]
        with _exchange():
            for request in requests:
                request.wait()
        held = arriving


def gather_all(x: Tensor, group: ProcessGroup) -> Tensor:
    """(ranks, *x.shape)."""
    out = x.new_empty(dist.get_world_size(group), *x.shape)
    with _exchange():
        dist.all_gather_into_tensor(out.view(-1).view(torch.uint8), _bytes(x), group=group)
    return out


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(f"a rank of the group is gone, or did not come to this loss: {error}") from error


def _bytes(x: Tensor) -> Tensor:
    """Flat and contiguous; bytes, since not every backend knows every dtype."""
    return x.contiguous().view(-1).view(torch.uint8)
