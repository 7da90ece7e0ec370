"""Pictures to augment, and what torchvision makes of them."""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as reference
from torch import Tensor
from torchvision.transforms import InterpolationMode

from sslfast.augment import Preset, ViewParams
from sslfast.ops.augment import augment
from sslfast.ops.view_params import STEPS

EVERYTHING = Preset(
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.5,
    grayscale=0.2,
    blur=0.5,
    solarize=0.3,
    interpolation="bicubic",
)


def pictures(batch: int, channels: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Noise at three scales, some flat areas and saturated pixels: not as smooth as a photograph, not mere noise."""
    shape = (batch, channels, height, width)
    coarse = torch.rand(batch, channels, 1 + height // 8, 1 + width // 8, generator=generator)
    images = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") * 1.6 - 0.3
    images += 0.2 * torch.rand(shape, generator=generator) * (torch.rand(batch, 1, 1, 1, generator=generator) < 0.7)
    return (255 * images).clamp(0, 255).to(torch.uint8)


def torchvision_view(image: Tensor, params: ViewParams, i: int, size: tuple[int, int]) -> Tensor:
    """One view in float, as torchvision makes it."""
    mode = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}[params.interpolation]
    x = reference.resized_crop(image.double() / 255, *params.crop[i].tolist(), list(size), mode, antialias=True)
    x = x.clamp(0, 1)
    if params.flip[i]:
        x = reference.horizontal_flip(x)
    factors = params.jitter[i].tolist()
    for k in params.order[i].tolist():
        x = getattr(reference, f"adjust_{STEPS[k]}")(x, factors[k])
    if params.grayscale[i]:
        x = reference.rgb_to_grayscale(x, num_output_channels=x.shape[0])
    if params.blur[i] > 0:
        x = reference.gaussian_blur(x, [2 * params.blur_radius + 1] * 2, [params.blur[i].item()] * 2)
    if params.solarize[i] <= 1:
        x = reference.solarize(x, params.solarize[i].item())
    return x


def assert_like_torchvision(images: Tensor, params: ViewParams, size: tuple[int, int], worst: float = 1e-4) -> None:
    views = augment(images, params, size)
    assert views.shape == (len(images), images.shape[1], *size)
    assert views.dtype == torch.float32
    for i, view in enumerate(views):
        error = (view - torchvision_view(images[i], params, i, size)).abs()
        assert error.max() <= worst, params.describe(i)
        assert error.mean() <= worst / 10, params.describe(i)
