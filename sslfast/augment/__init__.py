"""Random views of images: presets, their strength, and the drawing of parameters; `ops.augment` moves the pixels."""

from sslfast.augment.padded import Images, PaddedImages, apart, stacked
from sslfast.augment.presets import PAIRS, PRESETS, Preset, preset
from sslfast.augment.sampler import ViewSampler
from sslfast.ops.view_params import ViewParams

__all__ = [
    "PAIRS",
    "PRESETS",
    "Images",
    "PaddedImages",
    "Preset",
    "ViewParams",
    "ViewSampler",
    "apart",
    "preset",
    "stacked",
]
