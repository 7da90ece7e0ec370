"""Lists of tensors that the tests of ops.ema_update_ share."""

from __future__ import annotations

import itertools

import torch

from sslfast.kernels import reference_ema

HALVES = [torch.bfloat16, torch.float16]
HALVES_AND_SINGLE = [torch.float32, *HALVES]
KINDS = list(itertools.product(HALVES_AND_SINGLE, repeat=2))
SHAPES = [(), (1,), (0, 3), (7,), (8,), (3, 5, 7), (129,), (64, 3, 7, 7), (40_003,)]  # the last: several chunks


def tensors(shapes, device="cpu", dtype=torch.float32, seed=0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float32).to(device, dtype) for shape in shapes]


def pairs(device, target_dtype=torch.float32, source_dtype=torch.float32, shapes=SHAPES):
    return tensors(shapes, device, target_dtype), tensors(shapes, device, source_dtype, seed=1)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.detach().contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def exact_update(targets, sources, momentum):
    results = [target.double().contiguous() for target in targets]
    reference_ema.ema_update_(results, [source.double().contiguous() for source in sources], momentum, 0)
    return results
