"""The random choice of patches that a masked autoencoder sees."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslfast import _C
from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu import random_patch_mask as cpu
from sslfast.ops.checks import FLOATS, as_int, as_number
from sslfast.ops.layout import require
from sslfast.ops.patches import check_tensor
from sslfast.ops.registry import define_op, lazily

OP = "random_patch_mask"
MOST_PATCHES = 16384  # what one block of a GPU sorts


class PatchMask(NamedTuple):
    """Which patches of every image are visible: what `random_patch_mask` returns."""

    keep: Tensor  # (B, K) int64: the visible patches, in rising order of their noise
    restore: Tensor  # (B, L) int64: place of each patch in the order of noise; below K it is visible
    mask: Tensor  # (B, L) bool: True = masked

    @property
    def masked(self) -> Tensor:
        """(B, L - K) int64: the masked patches, in rising order of their noise."""
        patches = torch.arange(self.restore.shape[1], device=self.restore.device).expand_as(self.restore)
        return torch.empty_like(self.restore).scatter_(1, self.restore, patches)[:, self.keep.shape[1] :]


def random_patch_mask(
    batch: int,
    num_patches: int,
    mask_ratio: float | None = None,
    *,
    num_keep: int | None = None,
    noise: Tensor | None = None,
    seed: int | Tensor | None = None,
    device: torch.device | str | None = None,
) -> PatchMask:
    """Keep K of the L patches of every image, those with the least noise. It equals

        order = torch.argsort(noise, dim=1, stable=True)
        restore = torch.argsort(order, dim=1)
        PatchMask(order[:, :K], restore, restore >= K)

    With a seed the noise is drawn inside, and the result is the same on every device.

    Args:
        batch: number of images B.
        num_patches: patches of an image L, at most 16384.
        mask_ratio: the part to hide, in [0, 1), such that K = int(L * (1 - mask_ratio)) is at least 1; 0.75 where
            num_keep is not given either. It is cut off as computed: of 196 patches, 1 - 50/196 keeps 49.
        num_keep: K itself, from 1 to L, instead of the ratio.
        noise: (B, L) float tensor to sort, instead of drawing it.
        seed: int from 0 on, or a 0-dim int64 tensor, whose value a CUDA graph reads anew at every replay. Without seed
            and noise, PyTorch's generator of the device draws the seed, so `torch.manual_seed` rules it.
        device: of the result; by default that of noise or of a seed tensor, else PyTorch's default device.

    Raises:
        TypeError, ValueError: an argument has the wrong type, shape, dtype, device or range, or both noise and seed,
            or both mask_ratio and num_keep, are given.

    Source: He et al. 2021, "Masked Autoencoders Are Scalable Vision Learners", https://arxiv.org/abs/2111.06377;
    numbers by Philox 4x32-10, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"
    """
    batch, num_patches, num_keep = _check_sizes(batch, num_patches, mask_ratio, num_keep)
    if noise is not None:
        if seed is not None:
            raise ValueError("random_patch_mask: noise and seed exclude each other, got both")
        return PatchMask(*_from_noise(_check_noise(noise, batch, num_patches, device), num_keep))
    return PatchMask(*_from_seed(_seed_tensor(seed, device), batch, num_patches, num_keep))


def _check_sizes(batch: int, num_patches: int, mask_ratio: float | None, num_keep: int | None) -> tuple[int, int, int]:
    """Batch, L and K."""
    batch, num_patches = as_int(OP, "batch", batch), as_int(OP, "num_patches", num_patches)
    for name, value in (("batch", batch), ("num_patches", num_patches)):
        if value < 1:
            raise ValueError(f"random_patch_mask: {name} must be at least 1, got {value}")
    if num_patches > MOST_PATCHES:
        raise ValueError(f"random_patch_mask: num_patches must be at most {MOST_PATCHES}, got {num_patches}")
    if num_keep is not None:
        if mask_ratio is not None:
            raise ValueError("random_patch_mask: mask_ratio and num_keep exclude each other, got both")
        num_keep = as_int(OP, "num_keep", num_keep)
        if not 1 <= num_keep <= num_patches:
            raise ValueError(f"random_patch_mask: num_keep must be from 1 to {num_patches}, got {num_keep}")
        return batch, num_patches, num_keep
    mask_ratio = 0.75 if mask_ratio is None else as_number(OP, "mask_ratio", mask_ratio)
    if not 0 <= mask_ratio < 1:
        raise ValueError(f"random_patch_mask: mask_ratio must be in [0, 1), got {mask_ratio}")
    num_keep = int(num_patches * (1 - mask_ratio))
    if num_keep < 1:
        raise ValueError(
            f"random_patch_mask: mask_ratio must leave at least one of {num_patches} patches visible, got {mask_ratio}"
        )
    return batch, num_patches, num_keep


def _check_noise(noise: Tensor, batch: int, num_patches: int, device: torch.device | str | None) -> Tensor:
    check_tensor("random_patch_mask", "noise", noise, "(B, L)", FLOATS, like=noise)
    if noise.shape != (batch, num_patches):
        raise ValueError(f"random_patch_mask: noise must have shape ({batch}, {num_patches}), got {tuple(noise.shape)}")
    _check_device("noise", noise, device)
    return noise.detach()


def _seed_tensor(seed: int | Tensor | None, device: torch.device | str | None) -> Tensor:
    if seed is None:
        return torch.randint(2**63 - 1, (), device=device)
    if isinstance(seed, Tensor):
        if seed.dim() != 0 or seed.dtype != torch.int64:
            raise ValueError(
                "random_patch_mask: seed must be an int or a 0-dim int64 tensor, "
                f"got shape {tuple(seed.shape)} of {seed.dtype}"
            )
        _check_device("seed", seed, device)
        return seed
    seed = as_int(OP, "seed", seed, "an int or a 0-dim int64 tensor")
    if not 0 <= seed < 2**63:
        raise ValueError(f"random_patch_mask: seed must be at least 0 and below 2^63, got {seed}")
    return torch.full((), seed, dtype=torch.int64, device=device)


def _check_device(name: str, x: Tensor, device: torch.device | str | None) -> None:
    wanted = x.device if device is None else torch.device(device)
    if x.device.type != wanted.type or wanted.index not in (None, x.device.index):
        raise ValueError(f"random_patch_mask: {name} must be on {wanted}, as device says, got {x.device}")


def _fake(like: Tensor, batch: int, num_patches: int, num_keep: int) -> tuple[Tensor, Tensor, Tensor]:
    keep, restore = (like.new_empty(batch, size, dtype=torch.int64) for size in (num_keep, num_patches))
    return keep, restore, like.new_empty(batch, num_patches, dtype=torch.bool)


def _require(like: Tensor, batch: int, num_patches: int, num_keep: int) -> None:
    most = min(num_patches, MOST_PATCHES)
    require(OP, "batch", "at least 0", batch >= 0, batch)
    require(OP, "num_patches", f"at most {MOST_PATCHES}", num_patches <= MOST_PATCHES, num_patches)
    require(OP, "num_keep", f"in [0, {most}]", 0 <= num_keep <= most, num_keep)


_from_seed = define_op(
    "random_patch_mask_from_seed(Tensor seed, SymInt batch, SymInt num_patches, SymInt num_keep)"
    " -> (Tensor keep, Tensor restore, Tensor mask)",
    fake=_fake,
    reference=reference.random_patch_mask_from_seed,
    cpu=cpu.from_seed,
    cuda=lazily("sslfast.kernels.cuda.random_patch_mask", "from_seed")
    if _C.has_cuda
    else reference.random_patch_mask_from_seed,
    layout={"seed": ": int64"},
    requires=_require,
)
_from_noise = define_op(
    "random_patch_mask_from_noise(Tensor noise, SymInt num_keep) -> (Tensor keep, Tensor restore, Tensor mask)",
    fake=lambda noise, num_keep: _fake(noise, noise.shape[0], noise.shape[1], num_keep),
    reference=reference.random_patch_mask_from_noise,
    cpu=cpu.from_noise,
    cuda=lazily("sslfast.kernels.cuda.random_patch_mask", "from_noise")
    if _C.has_cuda
    else reference.random_patch_mask_from_noise,
    layout={"noise": "B L: float"},
    requires=lambda noise, num_keep: _require(noise, noise.shape[0], noise.shape[1], num_keep),
)
