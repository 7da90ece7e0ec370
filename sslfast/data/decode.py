"""Image files to tensors, as they are: 8 or 16 bits or floats, any number of channels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sslfast._extras import require

WHITE = {torch.uint8: 255, torch.uint16: 65535, torch.float32: 1}
LONGEST = 4  # times the shorter side that is asked for: what is longer is shrunk, so that no shape fills the memory


class Unreadable(ValueError):
    """An image file that no decoder can read; `path`, and the `reason` in one line."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"unreadable image {self.path}: {self.reason}; skip_corrupt (--skip-corrupt) goes on without such files"


def read(path: Path, source_size: int | None = None) -> Tensor:
    """An image file as (C, H, W), turned upright as its EXIF says: uint8, uint16, or float32 in [0, 1].

    C is 3, gray being repeated and alpha left out, or as many as a TIFF or an array (.npy, (H, W), (H, W, C) or
    (C, H, W), the channels being the least of the three) has beyond that. 32-bit integers must fit into 16 bits.

    Args:
        source_size: shrink it, antialiased, to a shorter side of so many pixels, or to a longer one of 4 times as many
            if that is less; None, and what is smaller, stays as it is.

    Raises:
        Unreadable: the file is damaged, or its pixels are of another kind; says which.
    """
    image = _reduced(path, source_size) if source_size else None
    if image is None:
        image = _decoded(path)
    return image if source_size is None else shrunk(image, source_size)


def from_object(image: Any) -> Tensor:
    """A picture of Python as `read` gives a file's: PIL's, an array, a tensor, a path, or a dict with its "bytes".

    Raises:
        TypeError: it is something else. ValueError: its shape or its values are not an image's. Unreadable: see `read`.
    """
    if isinstance(image, dict) and (content := image.get("bytes")):
        return from_bytes(content, Path(image.get("path") or "bytes"))
    if isinstance(image, dict) and image.get("path"):
        image = image["path"]
    if isinstance(image, str | Path):
        return read(Path(image))
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
    if isinstance(image, np.ndarray):
        return _from_array(image)
    if hasattr(image, "getexif"):
        return _from_pillow(image)
    raise TypeError(f"an image must be PIL's, an array, a tensor or a path, got {type(image).__name__}")


def from_bytes(content: bytes, path: Path) -> Tensor:
    """The image that a file of this content would be; `path` is what errors call it.

    Raises:
        Unreadable: see `read`.
    """
    pillow = require("PIL.Image", extra="train")
    try:
        if content.startswith(b"\x93NUMPY"):
            return _from_array(np.load(io.BytesIO(content), allow_pickle=False))
        with pillow.open(io.BytesIO(content)) as image:
            return _from_pillow(image)
    except Exception as error:  # decoders raise what they like
        raise Unreadable(path, _line(error)) from error


def shrunk(image: Tensor, source_size: int) -> Tensor:
    """See `read`."""
    height, width = image.shape[1:]
    scale = min(source_size / min(height, width), LONGEST * source_size / max(height, width))
    if scale >= 1:
        return image
    size = [max(1, round(side * scale)) for side in (height, width)]
    if image.dtype == torch.uint8:
        resize = require("torchvision.transforms.v2.functional", extra="train").resize
        return resize(image, size, antialias=True).contiguous()
    small = F.interpolate(image[None].float(), size, mode="bilinear", antialias=True)[0]
    return small.round().to(image.dtype) if image.dtype == torch.uint16 else small


def converted(image: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """The image as the others of its set are, scaled from white to white.

    Raises:
        ValueError: it has another number of channels.
    """
    if len(image) != channels:
        raise ValueError(f"it has {len(image)} channels, and others {channels}")
    if image.dtype == dtype:
        return image
    scaled = image.double() * (WHITE[dtype] / WHITE[image.dtype])
    return scaled.float() if dtype == torch.float32 else scaled.round().to(dtype)


def _decoded(path: Path) -> Tensor:
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return _from_array(np.load(path, allow_pickle=False))
        if suffix in (".tif", ".tiff") and (pixels := _tiff(path)) is not None:
            return _from_array(pixels)
    except Exception as error:  # decoders raise what they like
        raise Unreadable(path, _line(error)) from error
    vision = require("torchvision.io", extra="train")
    try:
        content = vision.read_file(str(path))
        if bytes(content[8:12].tolist()) != b"WEBP":  # which it does not turn upright
            image = vision.decode_image(content, mode=vision.ImageReadMode.RGB, apply_exif_orientation=True)
            if image.dtype == torch.uint8 and image.dim() == 3:
                return image
    except (AttributeError, RuntimeError, UnicodeError):  # torchvision means to give its decoders up
        pass  # Pillow knows more formats, other names, and says what is wrong with a broken file
    pillow = require("PIL.Image", extra="train")
    try:
        with pillow.open(path) as image:
            return _from_pillow(image)
    except Exception as error:  # decoders raise what they like
        raise Unreadable(path, _line(error)) from error


def _from_pillow(image: Any) -> Tensor:
    upright = require("PIL.ImageOps", extra="train").exif_transpose
    if image.mode.startswith(("I", "F")):  # Pillow would cut these off at 255
        return _from_array(np.array(upright(image)))
    return torch.from_numpy(np.array(upright(image.convert("RGB")))).permute(2, 0, 1).contiguous()


def _tiff(path: Path) -> np.ndarray | None:
    """The pixels of a TIFF that Pillow does not show as they are: more than 8 bits, more than three channels, which may
    be a page each."""
    with require("tifffile", extra="train").TiffFile(path) as file:
        page = file.pages[0]
        alpha = set(page.extrasamples) & {1, 2}
        if page.samplesperpixel == 1 and len(file.series[0].pages) > 1:
            return file.series[0].asarray()
        if page.dtype == np.uint8 and (page.samplesperpixel <= 3 or alpha):
            return None
        pixels = page.asarray()
        return pixels if not alpha else pixels[..., : -len(page.extrasamples)]


def _from_array(pixels: np.ndarray) -> Tensor:
    """(H, W), (H, W, C) or (C, H, W) to (C, H, W) in one of the three types, gray three times.

    Raises:
        ValueError: another shape, another type, or values out of range.
    """
    if pixels.ndim == 2:
        pixels = pixels[None]
    if pixels.ndim != 3 or 0 in pixels.shape:
        raise ValueError(f"an image must be (H, W), (H, W, C) or (C, H, W), got {pixels.shape}")
    if pixels.shape[2] < min(pixels.shape[:2]):
        pixels = pixels.transpose(2, 0, 1)
    if pixels.dtype.kind == "f":
        pixels = pixels.astype(np.float32)
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError(f"floats must be in [0, 1], got {pixels.min():.4g} to {pixels.max():.4g}")
    elif pixels.dtype.kind in "iu" and pixels.dtype != np.uint8:
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError(f"integers must be in 0 to 65535, got {pixels.min()} to {pixels.max()}")
        pixels = pixels.astype(np.uint16)
    elif pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be 8 or 16 bits or floats, got {pixels.dtype}")
    image = torch.from_numpy(np.ascontiguousarray(pixels))
    return image.repeat(3, 1, 1) if len(image) == 1 else image


def _reduced(path: Path, least: int) -> Tensor | None:
    """A JPEG decoded at 1/2, 1/4 or 1/8 of its size, its shorter side still `least` or more; None for any other file.

    It leaves out most of the work: coefficients that a smaller picture does not need are never transformed.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg", ".jfif"):
        return None
    pillow = require("PIL.Image", extra="train")
    try:
        with pillow.open(path) as image:
            if image.format != "JPEG" or min(image.size) < 2 * least:
                return None
            image.draft(None, (least, least))
            return _from_pillow(image)
    except Exception:  # decoders raise what they like; `read` finds out what is wrong
        return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
