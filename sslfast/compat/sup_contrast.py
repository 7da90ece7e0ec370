"""SupContrast's loss (https://github.com/HobbitLong/SupContrast, losses.py), by its name and signature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslfast import ops
from sslfast.compat.unit_rows import unit_rows
from sslfast.ops.checks import as_number, check_dense, check_temperature, is_readable


class SupConLoss(nn.Module):
    """Supervised contrastive loss of several views, of unit length; without labels SimCLR's.

    The gradient to the features lacks the part along them, which the normalisation in front of it removes. The result
    is float32 also for bfloat16 and float16.

    Args:
        temperature, base_temperature: the loss is temperature / base_temperature times the mean over all views.
        contrast_mode: "all"; "one", whose anchors are the first views only, is refused.

    Raises:
        TypeError, ValueError: a temperature is not a positive number; what is refused is asked; in the call: features
            are not (B, V, ...) with rows of unit length (on the CPU; on CUDA the loss is NaN), or labels not (B,).
    """

    def __init__(self, temperature: float = 0.07, contrast_mode: str = "all", base_temperature: float = 0.07) -> None:
        super().__init__()
        check_temperature("SupConLoss", temperature, torch.device("cpu"))
        if not as_number("SupConLoss", "base_temperature", base_temperature) > 0:
            raise ValueError(f"SupConLoss: base_temperature must be positive, got {base_temperature}")
        if contrast_mode != "all":
            raise ValueError(
                f'SupConLoss: contrast_mode must be "all", got {contrast_mode!r}; use SupContrast\'s own for "one"'
            )
        self.temperature, self.contrast_mode, self.base_temperature = temperature, contrast_mode, base_temperature

    def forward(self, features: Tensor, labels: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Supervised by labels or by a mask, or by neither: then every image is a class of its own.

        Args:
            features: (B, V, ...) of unit length.
            labels: (B,) integers.
            mask: (B, B), not zero where two images are of one class, so that it could be made from labels; else the
                call raises on the CPU, and the loss is NaN on CUDA.
        """
        if labels is not None and mask is not None:
            raise ValueError("SupConLoss: labels and mask must not both be given")
        check_dense("SupConLoss", "features", features, " (B, V, ...)")
        if features.dim() < 3:
            raise ValueError(f"SupConLoss: features must be (B, V, ...), got shape {tuple(features.shape)}")
        features = features.flatten(2)
        if mask is not None:
            features, labels = _by_mask(features, mask)
        elif labels is None:
            labels = torch.arange(features.shape[0], device=features.device)
        check_dense("SupConLoss", "labels", labels, " (B,)")
        labels = labels.reshape(-1)
        if labels.shape[0] != features.shape[0]:
            raise ValueError(f"SupConLoss: labels must be ({features.shape[0]},), one an image, got {labels.shape[0]}")
        rows = unit_rows("SupConLoss", "features", features).flatten(0, 1)
        losses = ops.sup_con(rows, labels.repeat_interleave(features.shape[1]), self.temperature, reduction="none")
        return self.temperature / self.base_temperature * losses.mean()


def _by_mask(features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The features, NaN where the mask is none of labels and the host must not wait; and the labels."""
    check_dense("SupConLoss", "mask", mask, " (B, B)")
    count = features.shape[0]
    if mask.shape != (count, count):
        raise ValueError(f"SupConLoss: mask must be ({count}, {count}), got {tuple(mask.shape)}")
    alike = mask.to(features.device) != 0
    labels = alike.byte().argmax(dim=1)  # the first image of the class
    good = (alike == (labels[:, None] == labels)).all()
    if not is_readable(features):
        return torch.where(good, features, float("nan")), labels
    if not good:
        raise ValueError("SupConLoss: mask must be that of labels: alike is who shares a class")
    return features, labels
