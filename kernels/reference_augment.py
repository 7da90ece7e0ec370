"""The mathematics of `ops.augment` in plain PyTorch: a batch at once, every view with its own parameters."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)  # columns of `jitter`, values of `order`
LUMA = (0.2989, 0.587, 0.114)  # ITU-R 601-2 as torchvision rounds it
WHITE = {torch.uint8: 255, torch.uint16: 65535}  # floats are in [0, 1] as they are
PADDING = {"torchvision": "reflect", "simclr": "constant"}  # of the blur
WORKSPACE = {"cpu": 2**23, "cuda": 2**27}  # elements of intermediates alive at once, about


def augment(
    images: Tensor,
    sizes: Tensor | None,
    crop: Tensor,
    flip: Tensor,
    jitter: Tensor,
    order: Tensor,
    grayscale: Tensor,
    blur: Tensor,
    solarize: Tensor,
    *,
    size: tuple[int, int],
    steps: Collection[str],
    bicubic: bool,
    mode: str,
    blur_radius: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    dtype: torch.dtype,
) -> Tensor:
    """(B, C, H, W) -> (B, C, h, w) of `dtype`; the arguments are those of `ops.augment`, documented there."""
    batch, channels, height, width = images.shape
    if sizes is None:
        sizes = crop.new_tensor([height, width]).expand(batch, 2)
    weights = size[0] * height + size[1] * width
    per_image = channels * height * width + 4 * weights + 4 * channels * size[0] * size[1]
    chunk = max(1, WORKSPACE.get(images.device.type, WORKSPACE["cuda"]) // per_image)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    views = images.new_empty((batch, channels, *size), dtype=dtype)
    for first in range(0, batch, chunk):
        rows = slice(first, first + chunk)
        x = images[rows].transpose(0, 1).to(compute, memory_format=torch.contiguous_format)  # (C, B, H, W)
        x = (x / WHITE.get(images.dtype, 1)).clamp_(0, 1)
        x = crop_resize_flip(x, sizes[rows], crop[rows], flip[rows], size, bicubic, antialias=mode == "torchvision")
        x = color_jitter(x, jitter[rows].to(compute), order[rows], steps, mode)
        if channels == 3 and "grayscale" in steps:
            x = torch.where(per_view(grayscale[rows]), luma(x), x)
        if "blur" in steps and blur_radius > 0:
            x = gaussian_blur(x, blur[rows].to(compute), blur_radius, PADDING[mode])
        if "solarize" in steps:
            x = torch.where(x >= per_view(solarize[rows]), 1 - x, x)
        if mean is not None:
            x = torch.stack([(plane - m) / s for plane, m, s in zip(x, mean, std, strict=True)])
        views[rows] = x.transpose(0, 1)
    return views


def per_view(values: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1), to meet planes (…, B, h, w)."""
    return values[:, None, None]


# --- random resized crop: a separable resampling is two small matrices a view ---


def crop_resize_flip(
    x: Tensor, sizes: Tensor, crop: Tensor, flip: Tensor, size: tuple[int, int], bicubic: bool, *, antialias: bool
) -> Tensor:
    """(C, B, H, W) -> (C, B, h, w): the boxes `crop` (top, left, height, width) of images of `sizes`, resized."""
    top, left, height, width = crop.to(x.dtype).unbind(1)
    rows, columns = sizes.to(x.dtype).unbind(1)
    no = torch.zeros_like(flip)
    down = resampling(top, height, rows, no, size[0], x.shape[2], bicubic, antialias)  # (B, h, H)
    across = resampling(left, width, columns, flip, size[1], x.shape[3], bicubic, antialias).mT  # (B, W, w)
    x = torch.stack([down @ (plane @ across) for plane in x])
    return x.clamp_(0, 1) if bicubic else x  # the cubic overshoots at edges


def resampling(
    start: Tensor, length: Tensor, own: Tensor, flip: Tensor, target: int, source: int, bicubic: bool, antialias: bool
) -> Tensor:
    """Weights (B, target, source) that resize `length` pixels from `start` on to `target` pixels.

    With antialiasing the filter is widened by the scale where it shrinks, as Pillow and torchvision do it. It is cut
    and renormalised at the border of the box. A box is first cut to the image's `own` pixels among the `source`.
    """
    own = own.clamp(1, source)
    end = torch.minimum((start + length).clamp_min(1), own)
    start = torch.minimum(start.clamp_min(0), end - 1)
    scale = per_view((end - start) / target)
    i = torch.arange(target, dtype=start.dtype, device=start.device)
    i = torch.where(flip[:, None], target - 1 - i, i)  # (B, target)
    center = per_view(start) + (i[:, :, None] + 0.5) * scale
    j = torch.arange(source, dtype=start.dtype, device=start.device) + 0.5
    distance = (j - center).abs_()
    if antialias:
        distance /= scale.clamp_min(1)
    weights = cubic(distance) if bicubic else (1 - distance).clamp_min_(0)
    weights *= (j > per_view(start)) & (j < per_view(end))
    return weights / weights.sum(dim=2, keepdim=True)


def cubic(x: Tensor, a: float = -0.5) -> Tensor:
    """Keys' cubic convolution kernel at distances x >= 0 (doi:10.1109/TASSP.1981.1163711, a = -0.5)."""
    near, far = x.clamp_max(1), x.clamp(1, 2)  # each polynomial vanishes where the other one rules
    near = (near * (a + 2)).sub_(1).mul_(near).sub_(1).mul_(near - 1)
    return near.add_((far - 1).mul_((far - 2).square_()), alpha=a)


# --- colour ---


def luma(x: Tensor) -> Tensor:
    """Gray planes (B, h, w) of (C, B, h, w); of other than three channels the mean."""
    return x.mean(dim=0) if len(x) != 3 else x[0].mul(LUMA[0]).add_(x[1], alpha=LUMA[1]).add_(x[2], alpha=LUMA[2])


def color_jitter(x: Tensor, jitter: Tensor, order: Tensor, steps: Collection[str], mode: str) -> Tensor:
    """The four adjustments in each view's own order, clamped to [0, 1] after each.

    The three blends share one formula, so all views take the k-th of their order together. Only hue does not fit
    in: it is done once for all, between the blends that come before it and those after it.
    """
    kind = order.long()
    factor = jitter.gather(1, kind)
    if len(x) != 3:
        kind = torch.where(kind == SATURATION, HUE, kind)  # neither is done
    blends = not {"brightness", "contrast", "saturation"}.isdisjoint(steps)
    if len(x) != 3 or "hue" not in steps:
        for k in range(4 if blends else 0):
            x = blend(x, kind[:, k], factor[:, k], mode)
        return x
    hue_at = (kind == HUE).int().argmax(dim=1)
    for k in range(3 if blends else 0):
        x = blend(x, torch.where(k < hue_at, kind[:, k], HUE), factor[:, k], mode)
    x = shift_hue(x, jitter[:, HUE])
    for k in range(1, 4 if blends else 0):
        x = blend(x, torch.where(k > hue_at, kind[:, k], HUE), factor[:, k], mode)
    return x


def blend(x: Tensor, kind: Tensor, factor: Tensor, mode: str) -> Tensor:
    """factor·x + (1 − factor)·(black, mean gray, gray) for brightness, contrast, saturation; x itself for hue.

    "simclr": the mean is the channel's, and the saturation S = chroma / V of HSV becomes min(1, factor·S) at the same
    hue and V, which is a blend with V; its factor ends where S is 1.
    """
    factor = per_view(torch.where(kind == HUE, 1, factor))
    contrast, saturation = per_view(kind == CONTRAST), per_view(kind == SATURATION)
    if mode == "simclr":
        end = x.amax(dim=0)
        mean = x.mean(dim=(2, 3), keepdim=True)
        most = end / (end - x.amin(dim=0)).clamp_min(1e-30)
        factor = torch.where(saturation, torch.minimum(factor, most), factor)
    else:
        end = luma(x)
        mean = end.mean(dim=(1, 2), keepdim=True)
    offset = (1 - factor) * (saturation * end + contrast * mean)
    return torch.addcmul(offset, factor, x).clamp_(0, 1)


def shift_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by `shift` of a full circle, through HSV.

    With the hue in sixths of the circle, red is at 0, green at 2, blue at 4. A channel is at the maximum V within one
    sixth of its place, at the minimum V − chroma from two sixths on, and linear between.
    """
    red, green, blue = x
    value = x.amax(dim=0)
    chroma = value - x.amin(dim=0)
    safe = chroma.clamp_min(1e-30)  # gray has no hue, and any will do
    hue = torch.lerp((red - green) / safe + 4, (blue - red) / safe + 2, (value == green).to(x.dtype))
    hue = torch.lerp(hue, (green - blue) / safe, (value == red).to(x.dtype)) + per_view(6 * shift)
    away = torch.stack([hue, hue - 2, hue - 4])
    away = away.sub_((away / 6).round_(), alpha=6).abs_()  # in [0, 3], the short way round
    return value - chroma * away.sub_(1).clamp_(0, 1)


# --- blur ---


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int, padding: str) -> Tensor:
    """Gaussian window of 2·radius + 1 taps; sigma (B,) in pixels, 0 leaves a view as it is."""
    distance = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    taps = torch.softmax(-0.5 * (distance / sigma.clamp_min(1e-4)[:, None]) ** 2, dim=1)[:, None]  # (B, 1, taps)
    x = F.pad(x, (radius, radius, radius, radius), mode=padding)
    x = F.conv2d(x, taps[:, :, :, None], groups=len(taps))  # views as channels: each has its own window
    return F.conv2d(x, taps[:, :, None, :], groups=len(taps))
