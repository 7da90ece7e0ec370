"""Momentum update on CUDA: one launch for all tensors, over a table of them that stays on the device."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels.pairs import pair_table

_in_graphs: set[Tensor] = set()  # tables that captured graphs read at every replay: never freed


def update(targets: list[Tensor], sources: list[Tensor], momentum: float | Tensor, step: int | Tensor) -> None:
    with torch.cuda.device(targets[0].device):
        stream = torch.cuda.current_stream()
        table, chunks = _upload(pair_table(targets, sources).tobytes(), targets[0].device)
        if torch.cuda.is_current_stream_capturing():
            _in_graphs.add(table)
        else:
            table.record_stream(stream)
        number, momentum_at = (0.0, momentum.data_ptr()) if isinstance(momentum, Tensor) else (momentum, 0)
        step, step_at = (0, step.data_ptr()) if isinstance(step, Tensor) else (step, 0)
        double = momentum_at != 0 and momentum.dtype == torch.float64
        pairs = table.data_ptr()
        _C.ema_update_cuda(
            pairs, pairs + 32 * len(targets), chunks, number, momentum_at, double, step, step_at, stream.cuda_stream
        )


@functools.lru_cache(maxsize=128)
def _upload(table: bytes, device: torch.device) -> tuple[Tensor, int]:
    """The pairs and, behind them, the chunks, on the device; how many chunks. Another address makes another table."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("ema_update_: before a CUDA graph captures it, it must have run once on the same tensors")
    pairs = torch.frombuffer(bytearray(table), dtype=torch.int64).view(-1, 4)
    chunks = chunk_map(pairs[:, 2], _C.ema_chunk)
    return torch.cat([pairs.flatten(), chunks]).to(device), len(chunks)


def chunk_map(sizes: Tensor, chunk: int) -> Tensor:
    """(row << 32 | number of the chunk in that tensor) of every chunk of tensors of these sizes."""
    counts = (sizes + chunk - 1) // chunk
    row = torch.repeat_interleave(counts)
    return row << 32 | torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
