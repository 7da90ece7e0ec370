"""A batch of uint8 images to a batch of training views."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sslfast.kernels import reference_augment
from sslfast.kernels.cpu import augment as cpu
from sslfast.ops.checks import FLOATS
from sslfast.ops.registry import define_op
from sslfast.ops.view_params import LAYOUT, ViewParams


@torch.no_grad()
def augment(
    images: Tensor,
    params: ViewParams,
    size: int | tuple[int, int],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Crop, resize, flip, colour jitter, grayscale, blur, solarize and normalise, every image by its own parameters.

        views = augment(images, ViewSampler("simclr", 224).sample(len(images), images.shape[-2:]), 224)

    A pure function of its arguments: the random part is drawn by `sslfast.augment.ViewSampler`. On images in [0, 1],
    each step is torchvision's of the same name (crop and antialiased resize; brightness, contrast around the mean
    gray, saturation and hue in the drawn order, clamped after each; rgb_to_grayscale; gaussian_blur with reflected
    borders; solarize), without its rounding to uint8 between steps. Images of one channel have no saturation, hue
    or grayscale.

    Args:
        images: (B, C, H, W) uint8, C = 1 or 3.
        params: B rows, on the device of the images.
        size: (h, w) of the views, or one number for both.
        mean, std: C numbers each, of images in [0, 1]; both or neither.
        dtype: of the views: float32 (default), bfloat16, float16 or float64.

    Returns:
        (B, C, h, w) views; in [0, 1] without mean and std.

    Raises:
        TypeError: images are not uint8, params no ViewParams, size no int or two, or dtype is none of the above.
        ValueError: a shape, a size, a device or a normalisation does not fit; an empty batch.
    """
    if not isinstance(images, Tensor) or images.dtype != torch.uint8:
        raise TypeError(
            f"augment: images must be a tensor of torch.uint8, got {getattr(images, 'dtype', type(images))}"
        )
    if images.dim() != 4 or images.shape[1] not in (1, 3) or 0 in images.shape:
        raise ValueError(f"augment: images must be (B, 1 or 3, H, W) and not empty, got {tuple(images.shape)}")
    if not isinstance(params, ViewParams):
        raise TypeError(f"augment: params must be ViewParams, got {type(params).__name__}")
    if len(params) != len(images):
        raise ValueError(f"augment: params must have one row for each of the {len(images)} images, got {len(params)}")
    if params.device != images.device:
        raise ValueError(f"augment: params must be on {images.device} as the images are, got {params.device}")
    if dtype not in (None, *FLOATS):
        raise TypeError(f"augment: dtype must be one of {', '.join(map(str, FLOATS))}, got {dtype}")
    size = view_size(size)
    if "blur" in params.steps and params.blur_radius >= min(size):
        raise ValueError(
            f"augment: params.blur_radius must be below the size {size} of the views, got {params.blur_radius}"
        )
    mean, std = _normalization(mean, std, images.shape[1])
    return _augment(
        images, *(getattr(params, name) for name in LAYOUT), size, params.steps, params.interpolation == "bicubic",
        params.blur_radius, mean, std, dtype or torch.float32,
    )  # fmt: skip


def view_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(h, w) of a size given as one number or two. Raises TypeError or ValueError unless they are positive ints."""
    pair = (size, size) if isinstance(size, int) else size
    if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(length, int) for length in pair):
        raise TypeError(f"augment: size must be an int or (h, w), got {size!r}")
    height, width = pair
    if height < 1 or width < 1:
        raise ValueError(f"augment: size must be positive, got {size}")
    return height, width


def _normalization(
    mean: Sequence[float] | None, std: Sequence[float] | None, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """As many numbers each as there are channels, or none."""
    if mean is None and std is None:
        return (), ()
    if mean is None or std is None:
        raise ValueError("augment: mean and std go together, got only " + ("mean" if std is None else "std"))
    mean, std = tuple(float(m) for m in mean), tuple(float(s) for s in std)
    if len(mean) != channels or len(std) != channels:
        raise ValueError(
            f"augment: mean and std must have {channels} numbers, one a channel, got {len(mean)} and {len(std)}"
        )
    if not all(s > 0 and math.isfinite(s) for s in std):
        raise ValueError(f"augment: std must be positive, got {std}")
    return mean, std


def _cpu(images, *rest):
    return (_reference if rest[-1] == torch.float64 else cpu.augment)(images, *rest)


_cpu.__module__ = cpu.__name__


def _reference(images, crop, flip, jitter, order, grayscale, blur, solarize, size, steps, bicubic, radius, *rest):
    mean, std, dtype = rest
    return reference_augment.augment(
        images, crop, flip, jitter, order, grayscale, blur, solarize, size=tuple(size), steps=steps, bicubic=bicubic,
        blur_radius=radius, mean=mean or None, std=std or None, dtype=dtype,
    )  # fmt: skip


def _fake(images, crop, flip, jitter, order, grayscale, blur, solarize, size, *_):
    return images.new_empty(*images.shape[:2], *size, dtype=_[-1])


_augment = define_op(
    "augment(Tensor images, Tensor crop, Tensor flip, Tensor jitter, Tensor order, Tensor grayscale, Tensor blur,"
    " Tensor solarize, SymInt[] size, str[] steps, bool bicubic, int blur_radius, float[] mean, float[] std,"
    " ScalarType dtype) -> Tensor",
    fake=_fake,
    reference=_reference,
    cpu=_cpu,
    cuda=_reference,
)
