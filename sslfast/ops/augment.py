"""A batch of images to a batch of training views."""

from __future__ import annotations

import torch
from torch import Tensor

from sslfast.kernels import reference_augment
from sslfast.kernels.cpu import augment as cpu
from sslfast.ops.checks import FLOATS, Statistics, as_int, check_dense, check_statistics
from sslfast.ops.layout import require
from sslfast.ops.registry import define_op, lazily
from sslfast.ops.view_params import LAYOUT, MODES, ViewParams


@torch.no_grad()
def augment(
    images: Tensor,
    params: ViewParams,
    size: int | tuple[int, int],
    *,
    sizes: Tensor | None = None,
    mean: Statistics | None = None,
    std: Statistics | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Crop, resize, flip, colour jitter, grayscale, blur, solarize and normalise, every image by its own parameters.

        views = augment(images, ViewSampler("simclr", 224).sample(len(images), images.shape[-2:]), 224)

    A pure function of its arguments: the random part is drawn by `sslfast.augment.ViewSampler`. On images in [0, 1],
    each step is torchvision's of the same name (crop and antialiased resize; brightness, contrast around the mean
    gray, saturation and hue in the drawn order, clamped after each; rgb_to_grayscale; gaussian_blur with reflected
    borders; solarize), without its rounding to uint8 between steps. Images of other than three channels have no
    saturation, hue or grayscale; the gray around whose mean their contrast is, is the mean of the channels.

    With `params.mode` "simclr", the steps are those of SimCLR's TensorFlow code (google-research/simclr,
    tf2/data_util.py) where they differ: the resize is not antialiased (tf.image.resize: half-pixel centres), contrast
    is around the mean of each channel, saturation scales S of HSV up to 1, and the blur sees black beyond the
    borders. Two details are not taken over: the overshoot of the cubic is clamped before the first adjustment and not
    after it, and TensorFlow rounds the phase of its cubic to 1/1024 pixel.

    Args:
        images: (B, C, H, W), C >= 1: uint8, uint16, of which 65535 is white, or floats in [0, 1]; what is outside is
            cut to that range, NaN stays. On CUDA, what is neither uint8 of one nor of three channels is left to the
            reference.
        params: B rows, on the device of the images.
        size: (h, w) of the views, or one number for both.
        sizes: (B, 2) int32, heights and widths of differently sized images in a padded batch, each in the top left
            corner; boxes are cut to the image's own size. None if all are (H, W).
        mean, std: a number, or C of them, one a channel, of images in [0, 1]; both or neither.
        dtype: of the views: float32 (default), bfloat16, float16 or float64.

    Returns:
        (B, C, h, w) views; in [0, 1] without mean and std.

    Raises:
        TypeError: images are of another type, params no ViewParams, size no int or two, or dtype is none of the above.
        ValueError: a shape, a size, a device or a normalisation does not fit; an empty batch.
    """
    check_dense("augment", "images", images, " of pixels")
    if images.dtype not in (torch.uint8, torch.uint16, *FLOATS):
        raise TypeError(f"augment: images must be uint8, uint16 or floats in [0, 1], got {images.dtype}")
    if images.dim() != 4 or 0 in images.shape:
        raise ValueError(f"augment: images must be (B, C, H, W) and not empty, got {tuple(images.shape)}")
    if not isinstance(params, ViewParams):
        raise TypeError(f"augment: params must be ViewParams, got {type(params).__name__}")
    batch, rows = images.shape[0], params.crop.shape[0]  # len() would fix the batch of an exported program
    if rows != batch:
        raise ValueError(f"augment: params must have one row for each of the {batch} images, got {rows}")
    if params.device != images.device:
        raise ValueError(f"augment: params must be on {images.device} as the images are, got {params.device}")
    if sizes is not None:
        _check_sizes(sizes, images)
    if dtype not in (None, *FLOATS):
        raise TypeError(f"augment: dtype must be one of {', '.join(map(str, FLOATS))}, got {dtype}")
    size = view_size(size)
    if "blur" in params.steps and params.blur_radius >= min(size):
        raise ValueError(
            f"augment: params.blur_radius must be below the size {size} of the views, got {params.blur_radius}"
        )
    mean, std = check_statistics("augment", mean, std, images.shape[1])
    fields, bicubic = (getattr(params, name) for name in LAYOUT), params.interpolation == "bicubic"
    steps = params.steps, bicubic, params.mode, params.blur_radius
    return _augment(images, sizes, *fields, size, *steps, mean, std, dtype or torch.float32)


def view_size(size: int | tuple[int, int]) -> tuple[int, int]:
    """(h, w) of a size given as one number or two. Raises TypeError or ValueError unless they are positive ints."""
    pair = size if isinstance(size, (tuple, list)) else (size, size)
    if len(pair) != 2:
        raise TypeError(f"augment: size must be an int or (h, w), got {size!r}")
    height, width = (as_int("augment", "size", length, "an int or (h, w)") for length in pair)
    if height < 1 or width < 1:
        raise ValueError(f"augment: size must be positive, got {size}")
    return height, width


def _check_sizes(sizes: Tensor, images: Tensor) -> None:
    check_dense("augment", "sizes", sizes, " of torch.int32")
    if sizes.dtype != torch.int32:
        raise TypeError(f"augment: sizes must be a tensor of torch.int32, got {sizes.dtype}")
    if sizes.shape != (images.shape[0], 2):
        raise ValueError(f"augment: sizes must be ({images.shape[0]}, 2) for as many images, got {tuple(sizes.shape)}")
    if sizes.device != images.device:
        raise ValueError(f"augment: sizes must be on {images.device} as the images are, got {sizes.device}")


def _require(images, sizes, crop, flip, jitter, order, grayscale, blur, solarize, size, *rest):
    steps, _, mode, radius, mean, std, dtype = rest
    channels = images.shape[1]
    require(
        "augment",
        "images",
        "(B, C, H, W) and not empty",
        0 not in images.shape,
        images.shape,
    )
    require("augment", "size", "two positive numbers", len(size) == 2 and min(size) >= 1, size)
    radius = radius if "blur" in steps else 0
    require("augment", "blur_radius", f"in [0, {min(size)})", 0 <= radius < min(size), radius)
    numbers = {len(mean), len(std)}
    require("augment", "mean and std", f"{channels} numbers each or none", numbers in ({0}, {channels}), numbers)
    if order.device.type == "cpu":
        good = order.sort(dim=1).values.eq(torch.arange(4, dtype=torch.int32, device=order.device)).all()
        require("augment", "order", "a permutation of 0..3 in each row", bool(good), order.tolist()[:4])
    require("augment", "mode", " or ".join(MODES), mode in MODES, mode)
    require("augment", "dtype", "one of " + ", ".join(map(str, FLOATS)), dtype in FLOATS, dtype)


def _unless_double(kernel, *, ordinary=False):
    """Views in float64 are the reference's, as float64 inputs are in other ops; with `ordinary` all but uint8, gray or
    of three channels."""

    def run(images, *rest):
        served = not ordinary or (images.dtype == torch.uint8 and images.shape[1] in (1, 3))
        return (kernel if served and rest[-1] != torch.float64 else _reference)(images, *rest)

    run.__module__ = kernel.__module__
    return run


def _reference(images, sizes, crop, flip, jitter, order, grayscale, blur, solarize, *rest):
    size, steps, bicubic, mode, radius, mean, std, dtype = rest
    rows = crop, flip, jitter, order, grayscale, blur, solarize
    how = {"size": tuple(size), "steps": steps, "bicubic": bicubic, "mode": mode, "blur_radius": radius}
    return reference_augment.augment(images, sizes, *rows, **how, mean=mean or None, std=std or None, dtype=dtype)


def _fake(images, sizes, crop, flip, jitter, order, grayscale, blur, solarize, size, *rest):
    return images.new_empty(*images.shape[:2], *size, dtype=rest[-1])


_augment = define_op(
    "augment(Tensor images, Tensor? sizes, Tensor crop, Tensor flip, Tensor jitter, Tensor order, Tensor grayscale,"
    " Tensor blur, Tensor solarize, SymInt[] size, str[] steps, bool bicubic, str mode, int blur_radius,"
    " float[] mean, float[] std, ScalarType dtype) -> Tensor",
    fake=_fake,
    reference=_reference,
    cpu=_unless_double(cpu.augment),
    cuda=_unless_double(lazily("sslfast.kernels.triton.augment", "augment"), ordinary=True),
    layout={"images": "B C H W: picture", "sizes": "B 2: int32"}
    | {
        name: f"B {' '.join(map(str, columns))}: {str(dtype).removeprefix('torch.')}"
        for name, (columns, dtype) in LAYOUT.items()
    },
    requires=_require,
)
