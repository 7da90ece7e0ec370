"""The steps of a masked autoencoder."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.cases.case import FLOAT32, Case, leaf, title

KEEP = 0.25  # of the patches, MAE's
IMAGE, PATCH = 224, 16
ELEMENTS = PATCH * PATCH * 3  # of a patch


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
