"""Odd calls of everything public, drawn from a seed: what is asked, and whether the answer is one that may be given."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from faces import Call, faces
from torch import Tensor, nn

from sslfast import EMA, KeyQueue, losses, ops
from sslfast.augment import ViewParams, ViewSampler
from sslfast.compat import lightly, mae

NAMED = (TypeError, ValueError, RuntimeError)  # what a refusal may be, and must carry a message


def tensor(draw: random.Random, *shape: int) -> Tensor:
    """Floats that are plain more often than not."""
    generator = torch.Generator().manual_seed(draw.randrange(2**31))
    x = torch.randn(shape, generator=generator, dtype=torch.float32)
    odd = draw.choice(["plain"] * 6 + ["zero", "nan", "payload", "inf", "huge", "tiny"])
    if odd == "plain" or not x.numel():
        return x
    flat, at = x.view(-1), draw.randrange(x.numel())
    if odd == "payload":
        flat.view(torch.int32)[at] = 0x7F812345
    else:
        flat[at] = {"zero": 0.0, "nan": float("nan"), "inf": float("inf"), "huge": 3e38, "tiny": 1e-42}[odd]
    return x


CHANGES: dict[str, Callable[[random.Random, Tensor], Any]] = {
    "dtype": lambda draw, x: x.to(draw.choice([torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.bool])),
    "complex": lambda draw, x: x.to(torch.complex64),
    "empty": lambda draw, x: x[:0],
    "row": lambda draw, x: x[:1],
    "fewer": lambda draw, x: x[:-1],
    "more": lambda draw, x: torch.cat([x, x]),
    "flat": lambda draw, x: x.flatten(),
    "deeper": lambda draw, x: x[None],
    "transposed": lambda draw, x: x.mT if x.dim() > 1 else x,
    "strided": lambda draw, x: x.repeat_interleave(2, dim=-1)[..., ::2] if x.dim() else x,
    "expanded": lambda draw, x: x[:1].expand(x.shape) if x.dim() else x,
    "meta": lambda draw, x: x.to("meta"),
    "sparse": lambda draw, x: x.to_sparse(),
    "nested": lambda draw, x: torch.nested.nested_tensor([x, x]),
    "mkldnn": lambda draw, x: x.float().to_mkldnn() if x.dim() else x,
    "quantised": lambda draw, x: torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8),
    "numpy": lambda draw, x: x.numpy(),
    "list": lambda draw, x: x.tolist(),
    "none": lambda draw, x: None,
    "text": lambda draw, x: "tensor",
    "grad": lambda draw, x: x.requires_grad_() if x.is_floating_point() else x,
    "shuffled": lambda draw, x: x.flip(-1) if x.dim() else x,
    "far": lambda draw, x: x + 10**6 if not x.is_floating_point() and x.dtype != torch.bool else x,
    "negative": lambda draw, x: -x - 1 if x.dtype in (torch.int64, torch.int32) else x,
    "repeated": lambda draw, x: torch.zeros_like(x),
}
NUMBERS: list[Any] = [
    0, 1, -1, 2, 0.5, 1e-300, 1e155, 1e-30, float("nan"), float("inf"), True, None, "0.5", [], (1, 2), 10**30,
    np.float32(0.5), np.int64(2), np.array(0.5), np.array([0.5]), torch.tensor(0.5), torch.tensor(2), object(),
]  # fmt: skip


def calls(draw: random.Random) -> dict[str, Call]:
    """Name -> function, tensors, other arguments, all of them good."""
    n, d = draw.choice([1, 2, 5, 17]), draw.choice([1, 3, 16, 33])
    z1, z2, queue = tensor(draw, n, d), tensor(draw, n, d), nn.functional.normalize(tensor(draw, 6, d))
    noise = torch.rand(n, 6, generator=torch.Generator().manual_seed(draw.randrange(2**31)), dtype=torch.float32)
    order = noise.argsort(dim=1)
    tokens, images = tensor(draw, n, 6, d), tensor(draw, n, 3, 4, 6)
    pixels = (255 * torch.rand(n, 3, 9, 8, dtype=torch.float32)).to(torch.uint8)
    params = ViewSampler("simclr", 6).sample(n, (9, 8), generator=torch.Generator().manual_seed(0))
    fields = [getattr(params, name) for name in ("crop", "flip", "jitter", "order", "grayscale", "blur", "solarize")]
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

    def view(pixels, *fields, size=6, mean=None, std=None):
        return ops.augment(pixels, ViewParams(*fields, blur_radius=1), size, mean=mean, std=std)

    def enqueue(keys):
        bank = KeyQueue(7, d)
        bank.enqueue(keys)
        return bank.keys

    def average(momentum=0.9, schedule=None, total_steps=5, step=1):
        ema = EMA(model, momentum, schedule, total_steps=total_steps)
        with torch.no_grad():
            model[1].weight.add_(1)
        ema.update(step)
        return ema.module[1].weight

    def updated(target, source, momentum=0.9, step=1):
        ops.ema_update_([target], [source], momentum, step=step)
        return target

    def ranked(op, z1, z2, **options):
        loss, rank = op(z1, z2, return_rank=True, **options)
        return loss, (rank >= 0) & (rank <= 2 * rank.shape[-1])  # of candidates as close but for rounding either counts

    labels = torch.tensor([draw.randrange(3) for _ in range(n)])
    temper = {"temperature": 0.2}
    return faces(draw, z1, z2, tokens, order) | {
        "nt_xent": (ops.nt_xent, [z1, z2], temper | {"reduction": "sum"}),
        "nt_xent, ranks": (functools.partial(ranked, ops.nt_xent), [z1, z2], temper | {"ids": labels}),
        "clip_loss, ranks": (functools.partial(ranked, ops.clip_loss), [z1, z2], temper),
        "nt_xent, ids": (
            lambda z1, z2, ids, **numbers: ops.nt_xent(z1, z2, ids=ids, **numbers), [z1, z2, labels],
            temper | {"decoupled": True},
        ),
        "nt_xent_views": (
            lambda z, ids, **numbers: ops.nt_xent_views(z, ids=ids, **numbers), [torch.stack([z1, z2, -z1]), labels],
            temper | {"decoupled": False},
        ),
        "sup_con": (ops.sup_con, [z1, labels], temper | {"reduction": "none"}),
        "info_nce": (ops.info_nce, [z1, z2], temper),
        "clip_loss": (ops.clip_loss, [z1, z2], temper | {"reduction": "sum"}),
        "siglip_loss": (ops.siglip_loss, [z1, z2], {"logit_scale": 5.0, "logit_bias": -3.0}),
        "info_nce, candidates": (
            ops.info_nce, [z1, z2], temper | {"targets": torch.zeros(len(z1), dtype=torch.int64), "normalize": False},
        ),
        "info_nce, queue": (ops.info_nce, [z1, z2, queue], temper),
        "negative_cosine_similarity": (ops.negative_cosine_similarity, [z1, z2], {"reduction": "none"}),
        "gather_tokens": (ops.gather_tokens, [tokens, order[:, :3]], {}),
        "gather_patches": (ops.gather_patches, [images, order[:, :3]], {"patch_size": 2, "mean": 0.3, "std": 0.2}),
        "restore_tokens": (ops.restore_tokens, [tokens[:, :3], order, tokens[0, 0], tokens[0]], {}),
        "masked_patch_loss": (
            ops.masked_patch_loss, [tensor(draw, n, 6, 12), images, order >= 3],
            {"patch_size": 2, "mean": 0.3, "std": 0.2},
        ),
        "random_patch_mask": (ops.random_patch_mask, [], {"batch": n, "num_patches": 6, "mask_ratio": 0.5, "seed": 3}),
        "random_patch_mask, noise": (
            lambda noise, **numbers: ops.random_patch_mask(noise=noise, **numbers), [noise],
            {"batch": n, "num_patches": 6, "mask_ratio": 0.5},
        ),
        "augment": (view, [pixels, *fields], {"size": 6, "mean": [0.4] * 3, "std": [0.2] * 3}),
        "ViewSampler": (
            lambda **numbers: ViewSampler("simclr", 6).sample(**numbers).crop, [], {"batch": n, "source_size": (9, 8)}
        ),
        "ema_update_": (updated, [z1, z2], {"momentum": 0.9, "step": 1}),
        "EMA": (average, [], {"momentum": 0.9, "schedule": None, "total_steps": 5, "step": 1}),
        "KeyQueue": (enqueue, [z1], {}),
        "KeyQueue, size": (lambda size, dim: KeyQueue(size, dim).keys, [], {"size": 7, "dim": 3}),
        "NTXentLoss": (lambda a, b, temperature: losses.NTXentLoss(temperature)(a, b), [z1, z2], temper),
        "CLIPLoss": (lambda a, b, temperature: losses.CLIPLoss(temperature)(a, b), [z1, z2], temper),
        "InfoNCELoss": (lambda a, b, q, temperature: losses.InfoNCELoss(temperature)(a, b, q), [z1, z2, queue], temper),
        "lightly.NTXentLoss": (
            lambda a, b, temperature, bank: lightly.NTXentLoss(temperature, bank)(a, b), [z1, z2],
            temper | {"bank": (4, d)},
        ),
        "lightly.NegativeCosineSimilarity": (
            lambda a, b, dim, eps: lightly.NegativeCosineSimilarity(dim, eps)(a, b), [z1, z2], {"dim": 1, "eps": 1e-8}
        ),
        "lightly.update_momentum": (
            lambda model, teacher, m: lightly.update_momentum(model, teacher, m), [],
            {"model": model, "teacher": nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), "m": 0.9},
        ),
        "mae.random_masking": (lambda x, ratio: mae.random_masking(x, ratio)[0], [tokens], {"ratio": 0.5}),
    }  # fmt: skip


def odd_call(seed: int) -> tuple[str, Callable[[], Any]]:
    """What is called, in words, and the call: of a good one, nothing, one or two arguments are changed."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    every = calls(draw)
    name = draw.choice(sorted(every))
    function, tensors, numbers = every[name]
    words = []
    for _ in range(draw.choice([0, 1, 1, 1, 2])):
        place = draw.randrange(len(tensors) + len(numbers))
        if place < len(tensors):
            if not isinstance(tensors[place], Tensor):
                continue
            change = draw.choice(sorted(CHANGES))
            try:
                tensors[place] = CHANGES[change](draw, tensors[place].clone())
            except (RuntimeError, ValueError, TypeError, NotImplementedError):
                continue  # PyTorch itself cannot make such a tensor
            words.append(f"tensor {place} {change}")
        else:
            key = list(numbers)[place - len(tensors)]
            numbers[key] = draw.choice(NUMBERS)
            words.append(f"{key}={numbers[key]!r}")
    return f"{name}: {', '.join(words) or 'as it should be'}", lambda: function(*tensors, **numbers)
