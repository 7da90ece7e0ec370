"""What is measured, as data: the inputs of every op, and the operations and bytes no implementation can do without.

N images, M = 2N views, D features, K keys of a queue, L patches of P·P·C numbers, B images a batch. Masks and indices
are inputs, so that all peers compute the same. A backward cannot know the gradient it will be given: what forward and
backward both need is read twice. A result that is no loss is given one random gradient, the same for all peers.
"""

from __future__ import annotations

import torch

from benchmarks.cases.case import BFLOAT16, FLOAT32, Case
from benchmarks.cases.contrastive import (
    clip_loss,
    info_nce,
    info_nce_hard_negatives,
    info_nce_in_batch,
    negative_cosine_similarity,
    nt_xent,
    nt_xent_views,
    siglip_loss,
    sup_con,
)
from benchmarks.cases.mae import (
    gather_patches,
    gather_tokens,
    masked_patch_loss,
    masking,
    patch_embed,
    random_patch_mask,
    restore_tokens,
)
from benchmarks.cases.momentum import ema
from benchmarks.cases.views import augment


def times_eager(quiet: float, busy: float, floor: float | None = None) -> dict[str, dict[str, float]]:
    """The bars of a case: on a machine of its own, and beside a busy process."""
    fraction = {} if floor is None else {"fraction of floor": floor}
    return {"bars": {"times eager": quiet} | fraction, "beside_busy": {"times eager": busy}}


MEMORY = {"fraction of floor": 0.65}  # of the bandwidth of a large copy
CPU = [
    nt_xent("cpu", 64, 128, **times_eager(1.2, 1)),
    nt_xent("cpu", 256, 128, **times_eager(1.5, 1)),
    nt_xent("cpu", 512, 128, **times_eager(2.2, 2)),
    nt_xent("cpu", 2048, 128, **times_eager(3.8, 4)),
    nt_xent("cpu", 8192, 128, **times_eager(5, 4, floor=0.8)),
    nt_xent("cpu", 8192, 128, BFLOAT16),
    *(nt_xent("cpu", 2048, dim, **times_eager(1.8, 1.8)) for dim in (512, 768, 1024)),
    nt_xent("cpu", 8192, 512, **times_eager(2.5, 1, floor=0.8)),
    nt_xent_views("cpu", 8, 64, 128, **times_eager(1, 1)),
    *(nt_xent_views("cpu", 8, n, 128, **times_eager(2.5, 2)) for n in (256, 1024)),
    info_nce("cpu", 256, 65536, 128, **times_eager(5, 4)),
    info_nce_in_batch("cpu", 4096, 128, **times_eager(2.8, 2.5)),
    *(info_nce_in_batch("cpu", n, d, **times_eager(1.15, 1.15)) for n in (1024, 2048) for d in (256, 512, 768, 1024)),
    *(info_nce_hard_negatives("cpu", n, 384) for n in (64, 1024, 4096)),
    clip_loss("cpu", 256, 256, **times_eager(1.2, 1.2)),
    clip_loss("cpu", 1024, 256, **times_eager(1.5, 1.5)),
    clip_loss("cpu", 4096, 256, **times_eager(2, 2)),
    *(clip_loss("cpu", n, 512, **times_eager(1.6, 1.6)) for n in (256, 1024, 4096, 8192, 16384)),
    clip_loss("cpu", 4096, 512, BFLOAT16),
    *(siglip_loss("cpu", n, 512, **times_eager(bar, 1)) for n, bar in ((256, 1.1), (1024, 1.3), (4096, 1.9))),
    sup_con("cpu", 512, 128, 100, **times_eager(1.3, 1)),
    *(sup_con("cpu", n, 128, 100, **times_eager(3, 2)) for n in (2048, 8192)),
    negative_cosine_similarity("cpu", 4096, 2048, bars={"times eager": 8}),
    ema("cpu", "ResNet-50", FLOAT32, bars={"times _foreach_lerp_": 1} | MEMORY),
    ema("cpu", "ResNet-50", BFLOAT16, bars={"times eager": 1.3} | MEMORY),
    random_patch_mask("cpu", 64, 196),
    random_patch_mask("cpu", 1024, 196),
    masking("cpu", 64, 196, 768, bars={"times eager": 8} | MEMORY),
    gather_tokens("cpu", 64, 196, 768),
    restore_tokens("cpu", 64, 196, 512, bars={"times eager": 8} | MEMORY),
    restore_tokens("cpu", 64, 196, 512, learnt=True),
    masked_patch_loss("cpu", 64, bars={"times eager": 10} | MEMORY),
    masked_patch_loss("cpu", 64, pixels=torch.uint8),
    gather_patches("cpu", 64),
    patch_embed("cpu", 64, 768, bars={"times eager": 2.5}),
    augment("cpu", 64, 256, 224, bars={"times kornia": 8, "times torchvision": 8}),
    augment("cpu", 256, 32, 32, bars={"times kornia": 8}),
]
COPY = {"fraction of floor": 0.8}
PRACTICAL = {"fraction of floor": 0.4}  # half of what 5 M²D take: a backward by rows cannot use the symmetry
CUDA = [
    nt_xent("cuda", 8192, 128, BFLOAT16, bars={"times torch.compile": 3}),
    nt_xent("cuda", 8192, 256, BFLOAT16, bars={"times torch.compile": 3}),
    nt_xent("cuda", 65536, 128, BFLOAT16, bars=PRACTICAL),
    nt_xent("cuda", 65536, 256, BFLOAT16, bars=PRACTICAL),
    nt_xent("cuda", 131072, 128, BFLOAT16, bars=PRACTICAL),
    nt_xent("cuda", 8192, 128),
    nt_xent("cuda", 1 << 20, 128, BFLOAT16, bars=PRACTICAL),
    nt_xent_views("cuda", 8, 1024, 128, BFLOAT16),
    info_nce("cuda", 1024, 65536, 128, BFLOAT16),
    info_nce_in_batch("cuda", 8192, 128, BFLOAT16),
    info_nce_hard_negatives("cuda", 4096, 384, BFLOAT16),
    clip_loss("cuda", 8192, 512, BFLOAT16),
    siglip_loss("cuda", 8192, 512, BFLOAT16),
    sup_con("cuda", 8192, 128, 1000, BFLOAT16),
    negative_cosine_similarity("cuda", 4096, 2048, BFLOAT16),
    ema("cuda", "ResNet-50", FLOAT32, bars=COPY),
    ema("cuda", "ResNet-50", BFLOAT16, bars=COPY),
    ema("cuda", "ViT-L/16", BFLOAT16, bars=COPY),
    random_patch_mask("cuda", 1024, 196),
    masking("cuda", 1024, 196, 768, BFLOAT16, bars=COPY),
    gather_tokens("cuda", 1024, 196, 768, BFLOAT16, bars=COPY),
    restore_tokens("cuda", 1024, 196, 512, BFLOAT16, bars=COPY),
    masked_patch_loss("cuda", 1024, BFLOAT16, torch.uint8, bars=COPY),
    gather_patches("cuda", 1024, bars=COPY),
    patch_embed("cuda", 1024, 768, BFLOAT16),
    augment("cuda", 1024, 256, 224, bars={"milliseconds": 0.512}),  # two million views a second
    augment("cuda", 4096, 32, 32),
]


def tiny(device: str) -> list[Case]:
    """One of every task, so small that a call costs what the host does for it."""
    bars = {"milliseconds": 0.06} if device == "cuda" else {}
    both = {"overhead": True, "bars": bars}
    return [
        nt_xent(device, 32, 16, **both),
        nt_xent_views(device, 3, 10, 16, **both),
        info_nce(device, 16, 64, 16, **both),
        clip_loss(device, 16, 16, **both),
        siglip_loss(device, 16, 16, **both),
        sup_con(device, 32, 16, 4, **both),
        negative_cosine_similarity(device, 16, 16, **both),
        ema(device, "two layers", FLOAT32, **both),
        random_patch_mask(device, 2, 16, **both),
        masking(device, 2, 16, 16, **both),
        gather_tokens(device, 2, 16, 16, **both),
        restore_tokens(device, 2, 16, 16, **both),
        masked_patch_loss(device, 1, image=32, **both),
        gather_patches(device, 1, image=32, **both),
        patch_embed(device, 1, 16, image=32, **both),
        augment(device, 2, 16, 16, overhead=True),
    ]


CASES = CPU + tiny("cpu") + CUDA + tiny("cuda")
OPS = list(dict.fromkeys(case.op for case in CASES))


def cases(op: str, device: str, containing: str = "") -> list[Case]:
    return [case for case in CASES if (case.op, case.device) == (op, device) and containing in case.name]
