"""Named augmentations: how strongly and how often a view may differ from its source."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import Any

from sslfast._outside import is_outside, outside
from sslfast._words import nearest
from sslfast.ops.view_params import INTERPOLATIONS, MODES, STEPS, Interpolation, Mode


@dataclass(frozen=True)
class Preset:
    """The distribution from which the parameters of a view are drawn, independently for every image.

    Args:
        crop_scale: area of the crop as a fraction of the source's, uniform in (low, high), 0 < low <= high <= 1.
        crop_ratio: width / height of the crop, log-uniform in (low, high).
        flip: probability of a horizontal flip.
        jitter: probability of the colour jitter, of all four together.
        brightness, contrast, saturation: the factor is uniform in [max(0, 1 − x), 1 + x].
        hue: the shift is uniform in [−x, x], in fractions of the circle, x <= 0.5.
        grayscale: probability.
        blur: probability.
        blur_sigma: σ is uniform in (low, high), in pixels of the view.
        blur_window: width of the blur's window as a fraction of the view's height.
        solarize: probability; pixels >= 0.5 are inverted.
        interpolation: "bilinear" or "bicubic".
        mode: "torchvision" or "simclr", see `ops.augment`.

    Raises:
        ValueError: a value outside of its range.
    """

    crop_scale: tuple[float, float] = (0.08, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_window: float = 0.1
    solarize: float = 0.0
    interpolation: Interpolation = "bicubic"
    mode: Mode = "torchvision"

    def __post_init__(self) -> None:
        for name in ("flip", "jitter", "grayscale", "blur", "solarize"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability in [0, 1], got {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"hue must be in [0, 0.5], got {self.hue}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale must be 0 < low <= high <= 1, got {self.crop_scale}")
        for name in ("crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be 0 < low <= high, got {(low, high)}")
        if not 0 < self.blur_window <= 1:
            raise ValueError(f"blur_window must be in (0, 1], got {self.blur_window}")
        if self.interpolation not in INTERPOLATIONS:
            raise ValueError(f"interpolation must be one of {', '.join(INTERPOLATIONS)}, got {self.interpolation!r}")
        if self.mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {self.mode!r}")

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that a view may need."""
        chance = dict.fromkeys(STEPS[:4], self.jitter) | dict.fromkeys(STEPS[4:], 1)
        return tuple(name for name in STEPS if chance[name] > 0 and getattr(self, name) > 0)

    def __str__(self) -> str:
        """What `preset` reads: JSON of the values that are not the defaults."""
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({name: value for name, value in own.items() if value != getattr(Preset(), name)})

    def scaled(self, strength: float) -> Preset:
        """The same with its jitter and its crop made weaker (< 1) or stronger (> 1).

        The ranges of brightness, contrast, saturation and hue are multiplied by `strength` (hue ends at 0.5), and so is
        the area that a crop may leave out at most, 1 − crop_scale[0] (the smallest crop ends at 1% of the area). At 0
        nothing but flips, grayscale, blur and solarization is left: probabilities, aspect and blur stay as they are.

        Raises:
            ValueError: strength is negative.
        """
        if not strength >= 0:
            raise ValueError(f"strength must be >= 0, got {strength}")
        low, high = (max(0.01, 1 - strength * (1 - bound)) for bound in self.crop_scale)
        return replace(
            self,
            crop_scale=(low, high),
            brightness=strength * self.brightness,
            contrast=strength * self.contrast,
            saturation=strength * self.saturation,
            hue=min(0.5, strength * self.hue),
        )


# Against SimCLR: smaller jitter, crops of at least a fifth, and torchvision's bilinear resize. Their
# blur, Pillow's, has no window; SimCLR's stands in for it.
_MOCO_V2 = Preset(
    crop_scale=(0.2, 1.0), brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2, blur=0.5,
    blur_sigma=(0.1, 2.0), interpolation="bilinear",
)  # fmt: skip
_BYOL = Preset(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, grayscale=0.2, blur_sigma=(0.1, 2.0))
_SIMCLR = Preset(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, grayscale=0.2, blur=0.5, blur_sigma=(0.1, 2.0))

PRESETS: dict[str, Preset] = {
    # Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A, and google-research/simclr, data_util.py:
    # jitter strength 1.0, blur window of a tenth of the height.
    "simclr": _SIMCLR,
    # The same with the steps of the TensorFlow code instead of torchvision's.
    "simclr-tf": replace(_SIMCLR, mode="simclr"),
    # The same paper, appendix B.9, CIFAR-10: jitter strength 0.5 and no blur.
    "simclr-cifar": Preset(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grayscale=0.2),
    # He et al. 2019, https://arxiv.org/abs/1911.05722, and facebookresearch/moco, main_moco.py, which makes images gray
    # before it jitters them.
    "moco-v1": replace(_MOCO_V2, jitter=1.0, hue=0.4, blur=0.0),
    # Chen et al. 2020, https://arxiv.org/abs/2003.04297, and facebookresearch/moco, main_moco.py with --aug-plus.
    "moco-v2": _MOCO_V2,
    # Chen and He 2020, https://arxiv.org/abs/2011.10566, section 3, and facebookresearch/simsiam, main_simsiam.py.
    "simsiam": _MOCO_V2,
    # Grill et al. 2020, https://arxiv.org/abs/2006.07733, appendix B, table 6: the first and the second view.
    "byol-1": replace(_BYOL, blur=1.0),
    "byol-2": replace(_BYOL, blur=0.1, solarize=0.2),
    # He et al. 2021, https://arxiv.org/abs/2111.06377, appendix A.1, and facebookresearch/mae, main_pretrain.py.
    "mae": Preset(crop_scale=(0.2, 1.0), jitter=0.0),
    # Digits and other glyphs (ours): a mirrored digit is another glyph, and most of it must stay in view.
    "mnist-like": Preset(
        crop_scale=(0.4, 1.0), flip=0.0, brightness=0.4, contrast=0.4, blur=0.5, blur_sigma=(0.1, 1.0)
    ),
}
PAIRS: dict[str, tuple[str, str]] = {"byol": ("byol-1", "byol-2")}
"""Presets whose two views are drawn from two distributions."""


def preset(name: str | Preset) -> Preset:
    """The preset of that name: in `PRESETS`, an import path or an entry point; or of its values, as `str(preset)` has.

        preset('{"crop_scale": [0.5, 1.0], "blur": 0.2}')

    Raises:
        ValueError: there is none of that name, or a value is out of its range. TypeError: it has no such value.
    """
    found: Any = name
    if isinstance(name, str):
        if name in PAIRS:
            pair = " and ".join(PAIRS[name])
            raise ValueError(f"preset {name!r} is a pair, {pair}: ViewSampler.pair makes both views")
        if name in PRESETS:
            return PRESETS[name]
        if name.startswith("{"):
            return _from_json(name)
        if not is_outside("presets", name):
            hint = nearest(name, [*PRESETS, *PAIRS])
            raise ValueError(f"preset must be one of {', '.join([*PRESETS, *PAIRS])}, got {name!r}{hint}")
        found = outside("presets", name)
    if not isinstance(found, Preset):
        raise TypeError(f"preset must be a name or a Preset, got {type(found).__name__}")
    return found


def _from_json(text: str) -> Preset:
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ValueError(f"preset {text!r} is no JSON: {error}") from error
    known = {field.name for field in fields(Preset)}
    if unknown := [name for name in values if name not in known]:
        raise TypeError(f"preset has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    given: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in values.items()}
    return Preset(**given)
