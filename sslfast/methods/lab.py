"""CIE Lab, and colours as classes: Zhang et al. 2016 (https://arxiv.org/abs/1603.08511), sections 2.1 to 2.3."""

from __future__ import annotations

import torch
from torch import Tensor

# sRGB (IEC 61966-2-1) and the white point D65, 2 degrees: what scikit-image takes too.
XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)
STEP = 10  # of the grid of colours, in units of a and b
# The grid points that the paper counts as in gamut: a, and the first and last b.
GAMUT = (
    (-90, 50, 90), (-80, 20, 90), (-70, 0, 90), (-60, -20, 90), (-50, -30, 100), (-40, -40, 100), (-30, -50, 100),
    (-20, -50, 100), (-10, -60, 100), (0, -70, 100), (10, -80, 90), (20, -80, 90), (30, -90, 90), (40, -100, 90),
    (50, -100, 80), (60, -110, 80), (70, -110, 80), (80, -110, 70), (90, -110, 70), (100, -90, 0),
)  # fmt: skip


def xyz_matrix() -> Tensor:
    """(3, 3) float64: from linear sRGB to XYZ in units of the white point."""
    return torch.tensor(XYZ, dtype=torch.float64) / torch.tensor(WHITE, dtype=torch.float64)[:, None]


def rgb_to_lab(rgb: Tensor, matrix: Tensor | None = None) -> Tensor:
    """sRGB in [0, 1] to Lab, (B, 3, H, W) both: L in [0, 100], a and b in about [−110, 100].

    Args:
        rgb: the images.
        matrix: `xyz_matrix()`, in the images' dtype and on their device; without it one is copied there.
    """
    matrix = xyz_matrix().to(rgb) if matrix is None else matrix
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = torch.einsum("dc,bchw->bdhw", matrix, linear)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp_min(0) ** (1 / 3), 7.787 * xyz + 16 / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Lab to sRGB, (B, 3, H, W) both; colours outside of [0, 1] are clamped."""
    light, a, b = lab.unbind(1)
    y = (light + 16) / 116
    f = torch.stack([y + a / 500, y, (y - b / 200).clamp_min(0)], dim=1)
    xyz = torch.where(f > 0.2068966, f**3, (f - 16 / 116) / 7.787)
    inverse = torch.linalg.inv(xyz_matrix()).to(lab)
    linear = torch.einsum("dc,bchw->bdhw", inverse, xyz).clamp(0, 1)
    return torch.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear).clamp(0, 1)


def colour_bins() -> Tensor:
    """The paper's 313 colours (313, 2): the points (a, b) of a grid of step 10 that are in gamut, or next to it."""
    return torch.tensor([(a, b) for a, low, high in GAMUT for b in range(low, high + 1, STEP)], dtype=torch.float32)


def soft_encode(ab: Tensor, bins: Tensor, *, neighbours: int = 5, sigma: float = 5.0) -> tuple[Tensor, Tensor]:
    """Every colour as shares of its nearest bins: the share of q is ∝ exp(−‖ab − q‖² / 2σ²).

    Args:
        ab: (..., 2).
        bins: (Q, 2).
        neighbours: bins with a share.
        sigma: width of the Gaussian, in units of a and b.

    Returns:
        nearest (..., neighbours) int64, indices of bins, the nearest first; share (..., neighbours), of sum 1.
    """
    distance = torch.cdist(ab, bins, compute_mode="donot_use_mm_for_euclid_dist")  # (..., Q)
    found, nearest = distance.topk(neighbours, dim=-1, largest=False)
    return nearest, torch.softmax(-found.square() / (2 * sigma**2), dim=-1)


def rebalancing(prior: Tensor, gamma: float) -> Tensor:
    """Weights (Q,) by which rare colours count more: w ∝ ((1 − γ)·p + γ/Q)^−1, Σ p·w = 1, of frequencies p (Q,)."""
    weight = 1 / ((1 - gamma) * prior + gamma / len(prior))
    return weight / (prior * weight).sum()


def annealed_mean(logits: Tensor, bins: Tensor, temperature: float) -> Tensor:
    """The colours (..., 2) of logits (..., Q): the mean of the bins under softmax(logits / T).

    T → 0 is the mode, vivid but patchy; 1 the mean, smooth but gray; the paper takes 0.38.
    """
    return torch.softmax(logits / temperature, dim=-1) @ bins
