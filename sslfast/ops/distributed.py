"""Negatives of other processes, for the contrastive losses: what is exchanged, and how a loss takes it in.

Every rank has the losses of its own rows, against the columns of all. Forward it needs the unit columns of the others.
Backward, a row is also a negative in the losses of others; the weight it has there follows from their (factor, shift),
two numbers a row. So no gradient is ever sent, and the same exchange serves both directions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from sslfast.ops import negatives
from sslfast.ops.registry import define_op

Gather = Literal["all", "ring"]
GATHERS = get_args(Gather)
Group = ProcessGroup | Literal["world"] | None
GATHER = "all_gather_single" if hasattr(dist, "all_gather_single") else "all_gather_into_tensor"  # before torch 2.14
ALIGNMENT = 16  # of each tensor among the bytes of several


def find_group(op: str, group: Group, gather: Gather) -> ProcessGroup | None:
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


class OfGroup(nn.Module):
    """A module with a group, which cannot be copied: copies have the same one, and a pickle the name of the group."""

    group: Group

    def __getstate__(self) -> dict[str, Any]:
        group: Any = self.group
        return self.__dict__ | {"group": (group.group_name,) if isinstance(group, ProcessGroup) else group}

    def __setstate__(self, state: dict[str, Any]) -> None:
        group = state["group"]
        super().__setstate__(state | {"group": group_named(*group) if isinstance(group, tuple) else group})


def name_of(group: ProcessGroup | None) -> str | None:
    """By which an op is told its group, so that torch.compile can hand it on."""
    return None if group is None else group.group_name


def group_named(name: str) -> ProcessGroup:
    return dist.distributed_c10d._resolve_process_group(name)  # type: ignore[attr-defined, arg-type]


def check_alone(op: str, group: str | None) -> None:
    if group is not None:
        raise RuntimeError(f"{op}: with a group it can be differentiated once only: create_graph=True needs group=None")


def _add_negatives(
    rows: Tensor,
    columns: Tensor,
    losses: Tensor,
    shift: Tensor,
    inverse_sum: Tensor,
    mean: Tensor,
    rank: Tensor,
    positives: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    group: str,
    gather: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Losses, shift, inverse_sum, mean and rank of the rows, once the columns of all other ranks are negatives too.

    positives: the rows' own, (R, D), for the rank; without them that is (0,).
    """
    t = temperature if tau is None else tau.double()
    loss, top, total, weighted = losses.double(), shift.double(), 1 / inverse_sum.double(), mean
    weighted = weighted * total[: len(mean), None]
    temperatures, rank = [] if tau is None else [tau.detach().reshape(1)], rank.clone()
    for block, *theirs in other_ranks([columns, *temperatures], group_named(group), gather):
        *part, closer = negatives.forward(rows, block, False, temperature, tau, len(mean) > 0, None, None, positives)
        part_shift, part_sum, part_weighted = (x.double() for x in part)
        rank += closer
        ratio = torch.log(part_sum / total) + (part_shift - top) / t
        loss = loss + torch.logaddexp(ratio, torch.zeros_like(ratio))
        top, total, keep, join = joined(top, total, part_shift, part_sum, t)
        for here, there in zip(temperatures, theirs):  # that differ: the loss is NaN, and from the shift its gradient
            nothing = torch.where(there == here, 0.0, float("nan"))
            top, loss = top + nothing, loss + nothing
        weighted = weighted * keep[: len(mean), None] + part_weighted * join[: len(mean), None]
    mean = weighted / total[: len(mean), None]
    found = loss.to(losses.dtype), top.to(shift.dtype), (1 / total).to(inverse_sum.dtype), mean.to(losses.dtype)
    return *found, rank


def joined(
    shift: Tensor, total: Tensor, their_shift: Tensor, their_total: Tensor, t: float | Tensor
) -> tuple[Tensor, ...]:
    """Shift and sum of two parts of a softmax, and what turns sums relative to the shift of either into such."""
    higher = torch.maximum(shift, their_shift)
    keep, join = torch.exp((shift - higher) / t), torch.exp((their_shift - higher) / t)
    return higher, total * keep + their_total * join, keep, join


def _weighted_negatives(
    rows: Tensor,
    columns: Tensor,
    row: Sequence[Tensor],
    column: Sequence[Tensor],
    temperature: float,
    tau: Tensor | None,
    group: str,
    gather: str,
) -> tuple[Tensor, Tensor]:
    """Gradients to the unit rows, and to the temperature from them, that the negatives of all other ranks add.

    row: (factor, shift) of the rows' own losses, or nothing. column: those of this rank's columns, to be exchanged,
    where the columns have losses in which the rows are negatives.
    """
    t = temperature if tau is None else tau
    du = torch.zeros(rows.shape, dtype=torch.promote_types(rows.dtype, torch.float32), device=rows.device)
    for block, *factors in other_ranks([columns, *column], group_named(group), gather):
        row_factors, column_factors = row or (None, None), factors or (None, None)
        du += negatives.backward(rows, block, False, *row_factors, *column_factors, temperature, tau)
    du /= t
    return du, -(du * rows).sum() / t


def _fake_weighted(rows, *_):
    du = rows.new_empty(rows.shape, dtype=torch.promote_types(rows.dtype, torch.float32))
    return du, du.new_empty(())


def other_ranks(tensors: Sequence[Tensor], group: ProcessGroup, gather: str) -> Iterator[list[Tensor]]:
    """The same tensors of every other rank, by distance; with "ring" one rank's at a time, the next under way."""
    size, rank = dist.get_world_size(group), dist.get_rank(group)
    held = _packed(tensors)
    if gather == "all":
        gathered = gather_all(held, group)
        for distance in range(1, size):
            yield _unpacked(gathered[(rank - distance) % size], tensors)
        return
    following, preceding = (dist.get_global_rank(group, (rank + way) % size) for way in (1, -1))
    for distance in range(1, size + 1):
        arriving = torch.empty_like(held)
        requests = []
        if distance < size:
            exchange = (
                dist.P2POp(dist.isend, held, following, group),
                dist.P2POp(dist.irecv, arriving, preceding, group),
            )
            with _exchange():
                requests = dist.batch_isend_irecv(list(exchange))
        if distance > 1:
            yield _unpacked(held, tensors)
        with _exchange():
            for request in requests:
                request.wait()
        held = arriving


def gather_all(x: Tensor, group: ProcessGroup) -> Tensor:
    """(ranks, *x.shape)."""
    out = x.new_empty(dist.get_world_size(group), *x.shape)
    with _exchange():
        getattr(dist, GATHER)(out.view(-1).view(torch.uint8), _bytes(x), group=group)
    return out


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(f"a rank of the group is gone, or did not come to this loss: {error}") from error


def _packed(tensors: Sequence[Tensor]) -> Tensor:
    """The bytes of all, one behind the other, so that they go in one exchange."""
    if len(tensors) == 1:
        return _bytes(tensors[0])
    return torch.cat([F.pad(_bytes(x), (0, -x.nbytes % ALIGNMENT)) for x in tensors])


def _unpacked(held: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """The tensors, like these, whose bytes `_packed` has put together."""
    found, start = [], 0
    for like in tensors:
        found.append(held[start : start + like.nbytes].view(like.dtype).view(like.shape))
        start += like.nbytes + -like.nbytes % ALIGNMENT
    return found


def _bytes(x: Tensor) -> Tensor:
    """Flat and contiguous; bytes, since not every backend knows every dtype."""
    return x.contiguous().view(-1).view(torch.uint8)


def define_exchange(schema: str, function: Callable, fake: Callable) -> Callable:
    """An op of one function on all devices, which exchanges with other ranks: torch.compile does not look into it."""
    return define_op(schema, fake=fake, reference=function, cpu=function, cuda=function)


add_negatives = define_exchange(
    "add_negatives(Tensor rows, Tensor columns, Tensor losses, Tensor shift, Tensor inverse_sum, Tensor mean,"
    " Tensor rank, Tensor? positives, float temperature, Tensor? tau, str group, str gather)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _add_negatives,
    lambda rows, columns, *same, **_: tuple(map(torch.empty_like, same[:5])),
)
weighted_negatives = define_exchange(
    "weighted_negatives(Tensor rows, Tensor columns, Tensor[] row, Tensor[] column, float temperature, Tensor? tau,"
    " str group, str gather) -> (Tensor du, Tensor dtau)",
    _weighted_negatives,
    _fake_weighted,
)
