"""Momentum update on CUDA: one launch for a table of tensors, which stays on the device until an address changes."""

from __future__ import annotations

import functools
from array import array

import torch
from torch import Tensor

from sslfast import _C

_in_graphs: set[Tensor] = set()  # tables that captured graphs read at every replay: never freed


def update(table: array, device: torch.device, momentum: float | Tensor, step: int | Tensor) -> None:
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream()
        uploaded, chunks = _upload(table.tobytes(), device)
        if torch.cuda.is_current_stream_capturing():
            _in_graphs.add(uploaded)
        else:
            uploaded.record_stream(stream)
        momentum, momentum_at = (0.0, momentum) if isinstance(momentum, Tensor) else (momentum, None)
        step, step_at = (0, step) if isinstance(step, Tensor) else (step, None)
        _C.cuda.ema_update(
            uploaded.data_ptr(),
            uploaded[table.buffer_info()[1] :].data_ptr(),
            chunks,
            momentum,
            0 if momentum_at is None else momentum_at.data_ptr(),
            momentum_at is not None and momentum_at.dtype == torch.float64,
            step,
            0 if step_at is None else step_at.data_ptr(),
            stream.cuda_stream,
        )


@functools.lru_cache(maxsize=128)
def _upload(table: bytes, device: torch.device) -> tuple[Tensor, int]:
    """The pairs and, behind them, the chunks, on the device; how many chunks."""
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("ema_update_: before a CUDA graph captures it, it must have run once on the same tensors")
    pairs = torch.frombuffer(bytearray(table), dtype=torch.int64).view(-1, 4)
    chunks = chunk_map(pairs[:, 2], _C.cuda.ema_chunk)
    return torch.cat([pairs.flatten(), chunks]).to(device), len(chunks)


def chunk_map(sizes: Tensor, chunk: int) -> Tensor:
    """(row << 32 | number of the chunk in that tensor) of every chunk of tensors of these sizes."""
    counts = (sizes + chunk - 1) // chunk
    row = torch.repeat_interleave(counts)
    return row << 32 | torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
