"""The masking of facebookresearch/mae (`MaskedAutoencoderViT.random_masking`), by its name and return values."""

from __future__ import annotations

from torch import Tensor

from sslfast import ops
from sslfast.ops.checks import FLOATS
from sslfast.ops.patches import check_tensor


def random_masking(x: Tensor, mask_ratio: float, *, noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Keep a random part of every sequence; as a method it is `return random_masking(x, mask_ratio)`. It equals

        ids_shuffle = torch.argsort(noise, dim=1)  # noise = torch.rand(N, L) where None is given
        ids_restore = torch.argsort(ids_shuffle, dim=1)
        x_masked = torch.gather(x, 1, ids_shuffle[:, :K, None].repeat(1, 1, D))  # K = int(L * (1 - mask_ratio))
        mask = (ids_restore >= K).float()

    but for other random numbers, which `torch.manual_seed` rules too.

    Args:
        x: (N, L, D) tokens with their positions, L at most 16384.
        mask_ratio: the part to remove, in [0, 1), such that K is at least 1.
        noise: (N, L) float; the K tokens with the least are kept, in rising order, ties by index.

    Returns:
        x_masked (N, K, D); mask (N, L) float32, 0 = keep, 1 = remove; ids_restore (N, L) int64.

    Raises:
        TypeError, ValueError: as `ops.random_patch_mask` and `ops.gather_tokens` do.

    Source: https://github.com/facebookresearch/mae/blob/main/models_mae.py
    """
    check_tensor("random_masking", "x", x, "(N, L, D)", FLOATS, like=x)
    keep, ids_restore, mask = ops.random_patch_mask(x.shape[0], x.shape[1], mask_ratio, noise=noise, device=x.device)
    return ops.gather_tokens(x, keep), mask.float(), ids_restore
