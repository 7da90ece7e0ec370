"""The mathematics of the masked-autoencoder ops in plain PyTorch (He et al. 2021, https://arxiv.org/abs/2111.06377).

Every forward is differentiable as it stands; the backward functions spell out what the kernels compute.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.kernels.reference_ema import philox

EPS = 1e-6  # added to the variance of a patch


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """(B, C, H, W) -> (B, L, P·P·C), patches in row-major order, elements in (row, column, channel) order."""
    x = images.unflatten(3, (-1, patch_size)).unflatten(2, (-1, patch_size))  # (B, C, H/P, P, W/P, P)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def unpatchify(patches: Tensor, channels: int, height: int, width: int, patch_size: int) -> Tensor:
    """The inverse of `patchify`."""
    x = patches.unflatten(2, (patch_size, patch_size, channels))
    x = x.unflatten(1, (height // patch_size, width // patch_size))  # (B, H/P, W/P, P, P, C)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, height, width)


def scaled(patches: Tensor, scale: list[float], offset: list[float]) -> Tensor:
    """x·scale + offset, one of each a channel; x itself where there are none."""
    if not scale:
        return patches
    x = patches.unflatten(2, (-1, len(scale)))
    return (x * patches.new_tensor(scale) + patches.new_tensor(offset)).flatten(2)


# --- random_patch_mask ---


def random_patch_mask_from_noise(noise: Tensor, num_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    """The K patches of least noise: keep (B, K) in rising order; restore (B, L), the inverse; mask, True = masked."""
    order = torch.argsort(noise.contiguous(), dim=1, stable=True)
    restore = torch.argsort(order, dim=1)
    return order[:, :num_keep].contiguous(), restore, restore >= num_keep


def random_patch_mask_from_seed(
    seed: Tensor, batch: int, num_patches: int, num_keep: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise of patch l of image b: word (l mod 4) of Philox at counter (l // 4, b, 0, 0), keyed by the 64-bit seed."""
    image, group = torch.meshgrid(
        torch.arange(batch, device=seed.device), torch.arange((num_patches + 3) // 4, device=seed.device), indexing="ij"
    )
    words = philox((group, image, torch.zeros_like(group), torch.zeros_like(group)), seed)
    noise = torch.stack(words, dim=2).flatten(1)[:, :num_patches]
    return random_patch_mask_from_noise(noise, num_keep)


# --- gather_tokens ---


def gather_tokens_forward(tokens: Tensor, keep: Tensor) -> Tensor:
    """(B, L, D), (B, K) -> (B, K, D)."""
    return torch.gather(tokens, 1, keep[:, :, None].expand(-1, -1, tokens.shape[2]))


def gather_tokens_backward(grad: Tensor, keep: Tensor, num_tokens: int) -> Tensor:
    """(B, K, D) -> (B, L, D), zero at the tokens that were not kept; of one kept several times the sum."""
    exact = grad.to(torch.promote_types(grad.dtype, torch.float32))
    tokens = exact.new_zeros(len(grad), num_tokens, grad.shape[2])
    return tokens.scatter_add_(1, keep[:, :, None].expand_as(grad), exact).to(grad.dtype)


# --- gather_patches ---


def gather_patches_forward(
    images: Tensor, keep: Tensor, patch_size: int, scale: list[float], offset: list[float], dtype: torch.dtype
) -> Tensor:
    """(B, C, H, W), (B, K) -> (B, K, P·P·C) of `dtype`, computed in float32 or better."""
    patches = gather_tokens_forward(patchify(images, patch_size), keep)
    return scaled(patches.to(torch.promote_types(images.dtype, torch.float32)), scale, offset).to(dtype)


def gather_patches_backward(
    grad: Tensor,
    keep: Tensor,
    channels: int,
    height: int,
    width: int,
    patch_size: int,
    scale: list[float],
    dtype: torch.dtype,
) -> Tensor:
    """(B, K, P·P·C) -> (B, C, H, W) of `dtype`, zero at the patches that were not kept."""
    exact = grad.to(torch.promote_types(torch.promote_types(grad.dtype, dtype), torch.float32))
    num_patches = (height // patch_size) * (width // patch_size)
    patches = gather_tokens_backward(scaled(exact, scale, [0.0] * len(scale)), keep, num_patches).to(dtype)
    return unpatchify(patches, channels, height, width, patch_size).contiguous()


# --- restore_tokens ---


def restore_tokens_forward(visible: Tensor, restore: Tensor, mask_token: Tensor, pos_embed: Tensor | None) -> Tensor:
    """(B, K, D) -> (B, L, D): visible[restore] where restore < K, else the mask token (D,); positions (L, D) added."""
    batch, num_keep, dim = visible.shape
    filled = torch.cat([visible, mask_token.expand(batch, restore.shape[1] - num_keep, dim)], dim=1)
    tokens = gather_tokens_forward(filled.to(torch.promote_types(visible.dtype, torch.float32)), restore)
    return (tokens if pos_embed is None else tokens + pos_embed).to(visible.dtype)


def restore_tokens_backward(
    grad: Tensor, restore: Tensor, num_visible: int, with_pos: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients to visible (B, K, D), mask token (D,) and positions (L, D), or (0, D); both sums float32 or better."""
    exact = grad.to(torch.promote_types(grad.dtype, torch.float32))
    shuffled = gather_tokens_backward(exact, restore, restore.shape[1])
    dpos = exact.sum(dim=0) if with_pos else exact.new_empty(0, grad.shape[2])
    return shuffled[:, :num_visible].to(grad.dtype, copy=True), shuffled[:, num_visible:].sum(dim=(0, 1)), dpos


# --- masked_patch_loss ---


def masked_patch_loss_forward(
    pred: Tensor,
    images: Tensor,
    mask: Tensor,
    patch_size: int,
    norm_pix: bool,
    scale: list[float],
    offset: list[float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean squared error over the masked patches; mean and rstd of their targets; how many they are.

    mean and rstd are (B, L), zero where nothing is masked, or (0, 0) without norm_pix. loss, mean, rstd and count are
    float32 or better. Without any masked patch the loss is NaN.
    """
    target = scaled(patchify(images, patch_size).to(torch.promote_types(pred.dtype, torch.float32)), scale, offset)
    mean = rstd = target.new_empty(0, 0)
    if norm_pix:
        mean, rstd = target.mean(dim=2), (target.var(dim=2) + EPS) ** -0.5
        target = (target - mean[:, :, None]) * rstd[:, :, None]
        mean, rstd = torch.where(mask, mean, 0), torch.where(mask, rstd, 0)
    losses = (pred.to(target.dtype) - target).square().mean(dim=2)
    count = mask.sum().to(target.dtype)
    return torch.where(mask, losses, 0).sum() / count, mean, rstd.clone(), count


def masked_patch_loss_backward(
    grad: Tensor,
    pred: Tensor,
    images: Tensor,
    mask: Tensor,
    mean: Tensor,
    rstd: Tensor,
    count: Tensor,
    patch_size: int,
    norm_pix: bool,
    scale: list[float],
    offset: list[float],
) -> Tensor:
    """grad·2(pred − target)/(P·P·C·count) where masked, else zero; (B, L, P·P·C) in the dtype of pred."""
    target = scaled(patchify(images, patch_size).to(grad.dtype), scale, offset)
    if norm_pix:
        target = (target - mean[:, :, None]) * rstd[:, :, None]
    dpred = grad * 2 / (pred.shape[2] * count) * (pred.to(grad.dtype) - target)
    return torch.where(mask[:, :, None], dpred, 0).to(pred.dtype).contiguous()
