"""Drawing the parameters of views."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sslfast.augment import presets
from sslfast.augment.padded import Images, apart
from sslfast.augment.presets import Preset
from sslfast.ops.augment import augment, view_size
from sslfast.ops.checks import as_int
from sslfast.ops.view_params import ViewParams

TRIES = 10  # crops that do not fit are drawn again, as in torchvision
CHANCES = ("flip", "jitter", "grayscale", "blur", "solarize")


class ViewSampler:
    """Draws the parameters of views, for every image its own, from one generator and in one go on its device.

        views = [augment(images, sampler.sample(256, (256, 256)), 224) for sampler in ViewSampler.pair("byol", 224)]

    Args:
        preset: a name in `PRESETS` or a `Preset`.
        size: (h, w) of the views, or one number for both.
        strength: scales jitter and crop, see `Preset.scaled`; 1 is the preset itself.

    Raises:
        TypeError: a preset or a size of another type.
        ValueError: an unknown preset, a size that is not positive, a negative strength.
    """

    def __init__(self, preset: str | Preset, size: int | tuple[int, int], *, strength: float = 1.0) -> None:
        self.preset = presets.preset(preset).scaled(strength)
        self.size = view_size(size)
        self.steps = self.preset.steps
        window = int(self.preset.blur_window * self.size[0])
        self.blur_radius = min(max(1, window // 2), min(self.size) - 1) if "blur" in self.steps else 0

    @classmethod
    def pair(
        cls, preset: str | Preset, size: int | tuple[int, int], *, strength: float = 1.0
    ) -> tuple[ViewSampler, ViewSampler]:
        """The samplers of the two views of an image: of a name in `PAIRS` two different ones, else twice the same."""
        if isinstance(preset, str) and preset in presets.PAIRS:
            first, second = (cls(name, size, strength=strength) for name in presets.PAIRS[preset])
            return first, second
        sampler = cls(preset, size, strength=strength)
        return sampler, sampler

    def draw(self, images: Images, *, generator: torch.Generator | None = None) -> ViewParams:
        """The parameters of a view of each image, on their device; see `sample`."""
        pixels, sizes = apart(images)
        height, width = pixels.shape[-2:]
        source_size = (height, width) if sizes is None else sizes
        return self.sample(images.shape[0], source_size, generator=generator, device=images.device)

    def view(self, images: Images, *, generator: torch.Generator | None = None, **options: Any) -> Tensor:
        """A view of each image, (B, C, h, w); `options` are `mean`, `std` and `dtype` of `ops.augment`."""
        pixels, sizes = apart(images)
        return augment(pixels, self.draw(images, generator=generator), self.size, sizes=sizes, **options)

    def sample(
        self,
        batch: int,
        source_size: tuple[int, int] | Tensor,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> ViewParams:
        """Draw the parameters of `batch` views; the same state of the generator gives the same parameters.

        Every call takes the same amount from the generator, whatever the preset.

        Args:
            batch: number of views.
            source_size: (H, W) of all sources, or a tensor (batch, 2) with the sizes of each.
            generator: torch's default one of `device` if None.
            device: where the parameters shall be; the generator's if None.

        Raises:
            TypeError, ValueError: batch is no int or < 1, or sizes of another type, of another shape or below 1 pixel.
        """
        batch = as_int("ViewSampler", "batch", batch)
        if batch < 1:
            raise ValueError(f"ViewSampler: batch must be at least 1, got {batch}")
        drawn_on = generator.device if generator is not None else torch.device(device or "cpu")
        height, width = _source_size(source_size, batch, drawn_on)
        # A compiled graph takes no None for a generator.
        drawn_by: dict[str, Any] = {} if generator is None else {"generator": generator}
        draws = torch.rand(batch, 2 * TRIES + 16, dtype=torch.float32, device=drawn_on, **drawn_by)
        area, ratio, offset, factor, order, chance, sigma = draws.split([TRIES, TRIES, 2, 4, 4, 5, 1], dim=1)
        flip, jitter, grayscale, blur, solarize = (
            chance[:, k] < getattr(self.preset, name) for k, name in enumerate(CHANCES)
        )
        params = ViewParams(
            crop=self._crop(area, ratio, offset, height, width),
            flip=flip,
            jitter=self._jitter(factor, jitter),
            order=order.argsort(dim=1).int(),
            grayscale=grayscale,
            blur=torch.where(blur, between(*self.preset.blur_sigma, sigma[:, 0]), 0),
            solarize=torch.where(solarize, 0.5, torch.full_like(sigma[:, 0], torch.inf)),
            steps=self.steps,
            interpolation=self.preset.interpolation,
            mode=self.preset.mode,
            blur_radius=self.blur_radius,
        )
        return params if device is None else params.to(device)

    def _crop(self, area: Tensor, ratio: Tensor, offset: Tensor, height: Tensor, width: Tensor) -> Tensor:
        """Boxes (B, 4) of random area and aspect: the first of the tries that fits, else the largest centred one."""
        narrow, wide = self.preset.crop_ratio
        area = between(*self.preset.crop_scale, area) * (height * width)
        ratio = torch.exp(between(math.log(narrow), math.log(wide), ratio))
        tries = torch.stack([torch.sqrt(area / ratio), torch.sqrt(area * ratio)]).round()  # (2, B, TRIES)
        fits = (tries[0] >= 1) & (tries[0] <= height) & (tries[1] >= 1) & (tries[1] <= width)
        first = fits.int().argmax(dim=1, keepdim=True)  # (B, 1)
        h, w = tries.gather(2, first.expand(2, -1, -1))
        any_fits = fits.any(dim=1, keepdim=True)
        h = torch.where(any_fits, h, torch.minimum(height, (width / narrow).round().clamp_min(1)))
        w = torch.where(any_fits, w, torch.minimum(width, (height * wide).round().clamp_min(1)))
        top = torch.where(any_fits, offset[:, :1] * (height - h + 1), (height - h) / 2).floor()
        left = torch.where(any_fits, offset[:, 1:] * (width - w + 1), (width - w) / 2).floor()
        return torch.cat([top, left, h, w], dim=1).int()

    def _jitter(self, factor: Tensor, applied: Tensor) -> Tensor:
        """Factors (B, 4), those that change nothing where the jitter is not applied."""
        p = self.preset
        bounds = [(max(0, 1 - x), 1 + x) for x in (p.brightness, p.contrast, p.saturation)] + [(-p.hue, p.hue)]
        columns = zip(bounds, (1, 1, 1, 0), factor.unbind(1))
        return torch.stack([torch.where(applied, between(*bound, u), none) for bound, none, u in columns], dim=1)


def between(low: float, high: float, u: Tensor) -> Tensor:
    """u in [0, 1) stretched to [low, high)."""
    return low + (high - low) * u


def _source_size(source_size: tuple[int, int] | Tensor, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Heights and widths as (1, 1) or (batch, 1) float32."""
    if isinstance(source_size, Tensor):
        if source_size.shape != (batch, 2):
            raise ValueError(
                f"ViewSampler: source_size must be (H, W) or a tensor ({batch}, 2), got {tuple(source_size.shape)}"
            )
        height, width = source_size.to(device, torch.float32).split(1, dim=1)
        return height, width
    if not isinstance(source_size, (tuple, list)):
        raise TypeError(f"ViewSampler: source_size must be (H, W) or a tensor, got {type(source_size).__name__}")
    sides = [as_int("ViewSampler", "source_size", length, "of ints") for length in source_size]
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"ViewSampler: source_size must be (H, W), at least 1 pixel each, got {tuple(sides)}")
    height, width = (torch.full((1, 1), length, dtype=torch.float32, device=device) for length in sides)
    return height, width
