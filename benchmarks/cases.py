"""What is measured, as data: the inputs of every op, and the operations and bytes no implementation can do without.

N images, M = 2N views, D features, K keys of a queue, L patches of P·P·C numbers, B images a batch. Masks and indices
are inputs, so that all peers compute the same. A backward cannot know the gradient it will be given: what forward and
backward both need is read twice. A result that is no loss is given one random gradient, the same for all peers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

FLOAT32, BFLOAT16 = torch.float32, torch.bfloat16
KEEP = 0.25  # of the patches, MAE's
IMAGE, PATCH = 224, 16
ELEMENTS = PATCH * PATCH * 3  # of a patch


@dataclass(frozen=True)
class Case:
    """One task at one size: forward and backward together, if it has one."""

    op: str  # the task: a function of sslfast.ops, or a step that several of them make up
    name: str
    device: str
    flops: float  # of matrix products, at least
    bytes: float  # read and written, at least
    make: Callable[[], dict[str, Tensor]]  # on the default device
    dtype: torch.dtype = FLOAT32
    covers: tuple[str, ...] = ()  # the functions of sslfast.ops in it, if not `op`
    gate: Callable[[], dict[str, Tensor]] | None = None  # smaller inputs where float64 would not fit
    bars: dict[str, float] = field(default_factory=dict)  # what sslfast is held to, see report.verdict
    beside_busy: dict[str, float] = field(default_factory=lambda: {"times eager": 1})  # the bars on a busy machine
    overhead: bool = False  # tiny, to see what a call costs the host

    def inputs(self, device: str, *, gate: bool = False) -> dict[str, Tensor]:
        """Fresh inputs, made on the device, the same at every call."""
        torch.manual_seed(0)
        with torch.device(device):
            return (self.gate or self.make)() if gate else self.make()


def title(text: str, dtype: torch.dtype) -> str:
    return text if dtype == FLOAT32 else f"{text} {str(dtype).removeprefix('torch.')}"


def leaf(x: Tensor, dtype: torch.dtype = FLOAT32) -> Tensor:
    return x.to(dtype).requires_grad_()


def pair(n: int, d: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Embeddings (N, D) of two views of N images: alike, not equal."""
    base = torch.randn(n, d)
    return leaf(base + torch.randn(n, d), dtype), leaf(base + torch.randn(n, d), dtype)


# --- contrastive losses ---


def nt_xent(device: str, views: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """By symmetry M²D to see each pair once, again for the gradient since (M, M) is not kept, and 2 M²D for it."""

    def make(m: int = views) -> dict[str, Tensor]:
        z1, z2 = pair(m // 2, dim, dtype)
        return {"z1": z1, "z2": z2}

    name, moved = title(f"M={views} D={dim}", dtype), 2 * views * dim * dtype.itemsize
    gate = (lambda: make(8192)) if views > 8192 else None
    return Case("nt_xent", name, device, 4 * views**2 * dim, moved, make, dtype, gate=gate, **more)


def nt_xent_views(device: str, views: int, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """As nt_xent with all V·N views; the pairs of views of one image are little beside these."""

    def make() -> dict[str, Tensor]:
        return {"z": leaf(torch.randn(n, dim) + torch.randn(views, n, dim), dtype)}

    name, moved = title(f"V={views} N={n} D={dim}", dtype), 2 * views * n * dim * dtype.itemsize
    return Case("nt_xent_views", name, device, 4 * (views * n) ** 2 * dim, moved, make, dtype, **more)


def info_nce(device: str, n: int, keys: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """MoCo: a product for the similarities with the queue, one for the gradient to the query, which alone has one."""

    def make() -> dict[str, Tensor]:
        query, key = pair(n, dim, dtype)
        queue = torch.nn.functional.normalize(torch.randn(keys, dim)).to(dtype)
        return {"query": query, "key": key.detach(), "queue": queue}

    moved = (keys + 3 * n) * dim * dtype.itemsize
    return Case(
        "info_nce", title(f"N={n} K={keys} D={dim}", dtype), device, 4 * n * keys * dim, moved, make, dtype, **more
    )


def info_nce_in_batch(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Similarities twice, since (N, N) is not kept, and a product for the gradient of query and key each."""

    def make() -> dict[str, Tensor]:
        query, key = pair(n, dim, dtype)
        return {"query": query, "key": key}

    moved = 4 * n * dim * dtype.itemsize
    return Case(
        "info_nce", title(f"N={n} D={dim} in-batch", dtype), device, 8 * n * n * dim, moved, make, dtype, **more
    )


def info_nce_hard_negatives(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """As in the batch, with a hard negative more for each query."""

    def make() -> dict[str, Tensor]:
        query, key = pair(n, dim, dtype)
        return {"query": query, "key": leaf(torch.cat([key.detach(), torch.randn(n, dim)]), dtype)}

    moved = 6 * n * dim * dtype.itemsize
    what = title(f"N={n} D={dim} hard negatives", dtype)
    return Case("info_nce", what, device, 16 * n * n * dim, moved, make, dtype, **more)


def clip_loss(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Similarities once for both directions, again since (N, N) is not kept, and a product for each gradient."""

    def make() -> dict[str, Tensor]:
        image, text = pair(n, dim, dtype)
        return {"image": image, "text": text}

    moved = 4 * n * dim * dtype.itemsize
    return Case("clip_loss", title(f"N={n} D={dim}", dtype), device, 8 * n * n * dim, moved, make, dtype, **more)


def siglip_loss(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Similarities once, and from them a product for each gradient."""

    def make() -> dict[str, Tensor]:
        image, text = pair(n, dim, dtype)
        return {
            "image": image,
            "text": text,
            "logit_scale": leaf(torch.tensor(10.0)),
            "logit_bias": leaf(torch.tensor(-10.0)),
        }

    moved = 4 * n * dim * dtype.itemsize
    return Case("siglip_loss", title(f"N={n} D={dim}", dtype), device, 6 * n * n * dim, moved, make, dtype, **more)


def sup_con(device: str, rows: int, dim: int, classes: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """As nt_xent: every pair once forward, once again and twice for its gradient backward."""

    def make() -> dict[str, Tensor]:
        labels = torch.randperm(rows) % classes  # all have a positive: what else would count in the mean differs
        return {"z": leaf(torch.randn(classes, dim)[labels] + torch.randn(rows, dim), dtype), "labels": labels}

    name, moved = title(f"N={rows} D={dim} C={classes}", dtype), 2 * rows * dim * dtype.itemsize
    return Case("sup_con", name, device, 4 * rows**2 * dim, moved, make, dtype, **more)


def negative_cosine_similarity(device: str, n: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Both read by forward and by backward, both gradients written."""

    def make() -> dict[str, Tensor]:
        p, z = pair(n, dim, dtype)
        return {"p": p, "z": z}

    moved = 6 * n * dim * dtype.itemsize
    return Case("negative_cosine_similarity", title(f"N={n} D={dim}", dtype), device, 0, moved, make, dtype, **more)


# --- momentum ---


def ema(device: str, model: str, source: torch.dtype, **more) -> Case:
    """The parameters of a model, averaged in float32: targets read and written, sources read."""
    parameters = {"ResNet-50": 25_557_032, "ViT-L/16": 303_301_632, "two layers": 4_160}[model]

    def make() -> dict[str, Tensor]:
        shapes = parameter_shapes(model)
        inputs = {f"target{k}": torch.randn(shape) for k, shape in enumerate(shapes)}
        return inputs | {f"source{k}": torch.randn(shape).to(source) for k, shape in enumerate(shapes)}

    return Case("ema_update_", title(model, source), device, 0, (8 + source.itemsize) * parameters, make, **more)


def parameter_shapes(model: str) -> list[torch.Size]:
    if model == "two layers":
        return [torch.Size(shape) for shape in ((64, 32), (32,), (32, 64), (32,))]
    with torch.device("meta"):
        if model == "ResNet-50":
            from torchvision.models import resnet50

            network = resnet50()
        else:
            from timm import create_model

            network = create_model("vit_large_patch16_224", num_classes=0)
    return [parameter.shape for parameter in network.parameters()]


# --- masked autoencoder ---


def noise(batch: int, patches: int) -> Tensor:
    """(B, L) without ties, which the two-argsort formulation would leave to chance."""
    return torch.rand(batch, patches).argsort(dim=1) / patches


def shuffle(batch: int, patches: int) -> tuple[Tensor, Tensor, Tensor]:
    """keep (B, K), restore (B, L) and mask (B, L) of random patches; True = masked."""
    order = noise(batch, patches).argsort(dim=1)
    restore, kept = order.argsort(dim=1), int(patches * KEEP)
    return order[:, :kept].contiguous(), restore, restore >= kept


def random_patch_mask(device: str, batch: int, patches: int, **more) -> Case:
    """Noise read, keep, restore (int64) and mask (bool) written."""
    moved = batch * patches * (4 + 8 * KEEP + 8 + 1)
    name = f"B={batch} L={patches}"
    return Case("random_patch_mask", name, device, 0, moved, lambda: {"noise": noise(batch, patches)}, **more)


def masking(device: str, batch: int, patches: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """MAE's random masking of tokens: the mask from noise, and the visible tokens read, written, and scattered back."""

    def make() -> dict[str, Tensor]:
        return {"tokens": leaf(torch.randn(batch, patches, dim), dtype), "noise": noise(batch, patches)}

    moved = batch * patches * (13 + 8 * KEEP + dim * dtype.itemsize * (3 * KEEP + 1))
    covers, name = ("random_patch_mask", "gather_tokens"), title(f"B={batch} L={patches} D={dim}", dtype)
    return Case("masking", name, device, 0, moved, make, dtype, covers=covers, **more)


def gather_tokens(device: str, batch: int, patches: int, dim: int, dtype: torch.dtype = FLOAT32, **more) -> Case:
    """Visible tokens read and written; backward reads their gradient and writes that of all tokens."""

    def make() -> dict[str, Tensor]:
        return {"tokens": leaf(torch.randn(batch, patches, dim), dtype), "keep": shuffle(batch, patches)[0]}

    moved = batch * patches * (2 * 8 * KEEP + dim * dtype.itemsize * (3 * KEEP + 1))
    return Case("gather_tokens", title(f"B={batch} L={patches} D={dim}", dtype), device, 0, moved, make, dtype, **more)


def restore_tokens(
    device: str, batch: int, patches: int, dim: int, dtype: torch.dtype = FLOAT32, learnt: bool = False, **more
) -> Case:
    """Visible tokens read, all written; backward reads the gradient of all and writes that of the visible ones.

    MAE's positions are fixed sines; `learnt` ones get a gradient.
    """

    def make() -> dict[str, Tensor]:
        keep, restore, _ = shuffle(batch, patches)
        visible = leaf(torch.randn(batch, keep.shape[1], dim), dtype)
        positions = torch.randn(patches, dim).to(dtype).requires_grad_(learnt)
        return {"visible": visible, "restore": restore, "keep": keep, "mask_token": leaf(torch.randn(dim), dtype),
                "pos_embed": positions}  # fmt: skip

    size = dtype.itemsize
    moved = batch * patches * (2 * 8 + 2 * dim * size * (1 + KEEP)) + (2 if learnt else 1) * patches * dim * size
    name = title(f"B={batch} L={patches} D={dim}{' learnt positions' if learnt else ''}", dtype)
    return Case("restore_tokens", name, device, 0, moved, make, dtype, **more)


def masked_patch_loss(
    device: str, batch: int, dtype: torch.dtype = FLOAT32, pixels: torch.dtype = FLOAT32, image: int = IMAGE, **more
) -> Case:
    """Masked patches of prediction and image read by forward and by backward; the gradient of all patches written."""
    patches = (image // PATCH) ** 2

    def make() -> dict[str, Tensor]:
        keep, restore, mask = shuffle(batch, patches)
        masked = restore.argsort(dim=1)[:, keep.shape[1] :].contiguous()
        return {"pred": leaf(torch.randn(batch, patches, ELEMENTS), dtype), "images": images(batch, pixels, image),
                "mask": mask, "masked": masked}  # fmt: skip

    moved = batch * patches * ELEMENTS * (2 * (1 - KEEP) * (dtype.itemsize + pixels.itemsize) + dtype.itemsize)
    name = title(f"B={batch} {image} px" + (" of uint8" if pixels == torch.uint8 else ""), dtype)
    return Case("masked_patch_loss", name, device, 0, moved, make, dtype, **more)


def images(batch: int, pixels: torch.dtype, size: int = IMAGE) -> Tensor:
    values = torch.randint(256, (batch, 3, size, size), dtype=torch.uint8)
    return values if pixels == torch.uint8 else (values / 255).to(pixels)


def gather_patches(device: str, batch: int, image: int = IMAGE, **more) -> Case:
    """The visible patches of uint8 images read, normalised, and written as float32."""
    patches = (image // PATCH) ** 2

    def make() -> dict[str, Tensor]:
        return {"images": images(batch, torch.uint8, image), "keep": shuffle(batch, patches)[0]}

    moved = batch * patches * KEEP * (8 + 5 * ELEMENTS)
    return Case("gather_patches", f"B={batch} {image} px of uint8", device, 0, moved, make, **more)


def patch_embed(device: str, batch: int, dim: int, dtype: torch.dtype = FLOAT32, image: int = IMAGE, **more) -> Case:
    """Embeddings of the visible patches, and the gradient of weight and bias: a product each over those patches."""
    patches = (image // PATCH) ** 2

    def make() -> dict[str, Tensor]:
        return {
            "images": images(batch, dtype, image),
            "keep": shuffle(batch, patches)[0],
            "weight": leaf(torch.randn(dim, 3, PATCH, PATCH) * 0.02, dtype),
            "bias": leaf(torch.randn(dim) * 0.02, dtype),
        }

    visible = batch * patches * KEEP
    moved = visible * dtype.itemsize * 2 * (ELEMENTS + dim) + 2 * dim * ELEMENTS * dtype.itemsize
    name = title(f"B={batch} {image} px D={dim}", dtype)
    return Case("patch_embed", name, device, 4 * visible * ELEMENTS * dim, moved, make, dtype,
                covers=("gather_patches",), **more)  # fmt: skip


# --- augmentation ---


def augment(device: str, batch: int, source: int, size: int, **more) -> Case:
    """SimCLR's views, one an image, their drawing included: uint8 sources read, float32 views written.

    Smooth pictures, so that the jumps of the hue and the clamps leave float32 beside float64. `view` is but a size.
    """

    def make() -> dict[str, Tensor]:
        small = torch.rand(batch, 3, max(2, source // 16), max(2, source // 16))
        smooth = torch.nn.functional.interpolate(small, (source, source), mode="bicubic").clamp(0, 1)
        return {"images": (255 * smooth).to(torch.uint8), "view": torch.zeros(size, size, dtype=torch.uint8)}

    moved = batch * 3 * (source**2 + 4 * size**2)
    return Case("augment", f"B={batch} {source} to {size} px SimCLR", device, 0, moved, make, **more)


# --- which sizes ---


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
    *(info_nce_hard_negatives("cpu", n, 384, **times_eager(1.15, 1.15)) for n in (64, 1024, 4096)),
    clip_loss("cpu", 256, 256, **times_eager(1.2, 1.2)),
    clip_loss("cpu", 1024, 256, **times_eager(1.5, 1.5)),
    clip_loss("cpu", 4096, 256, **times_eager(2, 2)),
    *(clip_loss("cpu", n, 512, **times_eager(1.6, 1.6)) for n in (256, 1024, 4096)),
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
