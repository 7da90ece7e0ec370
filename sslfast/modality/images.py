"""Images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.augment import Images as Batch
from sslfast.augment import Preset, ViewParams, ViewSampler, apart
from sslfast.data import LUMA, ImageSet, load_images, normalization_of
from sslfast.data.decode import WHITE, from_object, shrunk
from sslfast.modality.base import Modality
from sslfast.models import build_backbone, export_backbone, load_backbone
from sslfast.ops import augment


class Images(Modality):
    """Images (B, C, H, W), which backbones take normalised and of one size."""

    unit = "images"

    @cached_property
    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) of the backbone's channels, for images in [0, 1]."""
        return normalization_of(self.config, gray=self.config.gray)

    def load(
        self,
        split: str,
        *,
        data: str | None = None,
        root: Path | None = None,
        download: bool = False,
        skip_corrupt: bool = False,
    ) -> ImageSet:
        own = self.config.data_root
        root = root or (Path(own) if own and data in (None, self.config.data) else None)
        options = {
            "source_size": self.config.source_side,
            "root": root,
            "download": download,
            "skip_corrupt": skip_corrupt or self.config.skip_corrupt,
        }
        return load_images(data or self.config.data, split, **options)

    def build_backbone(self) -> nn.Module:
        channels = len(self.normalization[0])
        return build_backbone(self.config.backbone, in_channels=channels, image_size=self.config.image_size)

    def inputs(self, source: Batch) -> Tensor:
        mean, std = self.normalization
        return to_inputs(source, size=self.config.image_size, mean=mean, std=std)

    def augmented(self, source: Batch, generator: torch.Generator) -> Tensor:
        """A crop of at least 40 % of the area, and a flip if the run's own preset has one."""
        size, (mean, std) = self.config.image_size, self.normalization
        first, _ = ViewSampler.pair(self.config.preset, size)
        sampler = ViewSampler(Preset(crop_scale=(0.4, 1.0), flip=first.preset.flip, jitter=0.0), size)
        return _normalised(sampler.view(source, generator=generator), mean=mean, std=std)

    def baselines(self) -> dict[str, nn.Module]:
        return {"pixels": RawPixels()}

    def describe(self) -> dict[str, Any]:
        mean, std = self.normalization
        normalization = {"mean": list(mean), "std": list(std)}
        return {"image_size": self.config.image_size, "normalization": normalization}

    def export(self, backbone: nn.Module, folder: Path, *, head: nn.Module | None = None) -> None:
        config, (mean, std) = self.config, self.normalization
        about = {"backbone": config.backbone, "in_channels": len(mean), "image_size": config.image_size}
        about |= {"mean": list(mean), "std": list(std), "features": backbone.num_features}
        about |= {"source_size": config.source_side}
        about |= {"transform": Transform(config.image_size, mean, std).torchvision_code()}
        about |= {"method": config.method, "data": config.data, "epochs": config.epochs, "seed": config.seed}
        export_backbone(backbone, folder, config=about)

    def load_exported(self, folder: Path) -> nn.Module:
        return load_backbone(folder)


def to_inputs(images: Batch, *, size: int | None, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images as a backbone of these channels and this input size takes them, without any augmentation.

    The largest square in the centre is brought to `size` (bicubic, antialiased), and the result normalised. Gray images
    are repeated for a network that takes colour, colour is turned to gray for one that takes gray.

    Args:
        images: (B, C, H, W), as `ops.augment` takes them.
        size: side in pixels; None leaves height and width as they are.
        mean, std: of images in [0, 1], one number a channel of the network.

    Returns:
        (B, len(mean), size, size) float32.

    Raises:
        ValueError: the channels do not fit `mean`, and neither is 1.
    """
    pixels, sizes = apart(images)
    if size is None:
        return _normalised(pixels.float() / WHITE.get(pixels.dtype, 1), mean=mean, std=std)
    if sizes is None:
        sizes = torch.tensor(pixels.shape[-2:], dtype=torch.int32, device=pixels.device).expand(len(pixels), 2)
    side = sizes.amin(dim=1, keepdim=True)
    corner = (sizes - side).div(2, rounding_mode="floor")
    whole = ViewParams.identity(len(pixels), (1, 1), device=pixels.device)
    square = replace(whole, crop=torch.cat([corner, side, side], dim=1), interpolation="bicubic")
    return _normalised(augment(pixels, square, size, sizes=sizes), mean=mean, std=std)


def _normalised(pixels: Tensor, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Images (B, C, H, W) in [0, 1] with the channels and the normalisation of the network."""
    have, want = pixels.shape[1], len(mean)
    if have == 1 and want > 1:
        pixels = pixels.expand(-1, want, -1, -1)
    elif have == 3 and want == 1:
        pixels = torch.einsum("bchw,c->bhw", pixels, pixels.new_tensor(LUMA)).unsqueeze(1)
    elif have != want:
        raise ValueError(f"images have {have} channels, but the network was trained on {want}")
    column = (1, -1, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(column)) / pixels.new_tensor(std).view(column)


class Transform:
    """Single images as a backbone was shown them in evaluation: shrunk as a folder's are, and then see `to_inputs`.

        features = backbone(transform([Image.open("a.jpg"), Image.open("b.jpg")]))

    Args:
        size: side in pixels.
        mean, std: of images in [0, 1], one number a channel of the network.
        source_size: shorter side, in pixels, to which larger images are shrunk first; twice `size` if None.
    """

    def __init__(
        self, size: int, mean: Sequence[float], std: Sequence[float], *, source_size: int | None = None
    ) -> None:
        self.size, self.mean, self.std = size, tuple(mean), tuple(std)
        self.source_size = source_size or 2 * size

    def __call__(self, images: Any) -> Tensor:
        """An image (PIL's, an array, a tensor, a path) -> (C, size, size); a list of them -> (B, C, size, size).

        Raises:
            TypeError, ValueError: see `decode.from_object`; the channels do not fit the network's.
        """
        if isinstance(images, list | tuple):
            return torch.stack([self(image) for image in images])
        image = shrunk(from_object(images), self.source_size)
        return to_inputs(image[None], size=self.size, mean=self.mean, std=self.std)[0]

    def torchvision_code(self) -> str:
        """The same in torchvision's words, for images of as many channels as the network has.

        It is equal up to rounding for images of at most `source_size`; larger ones are resized once instead of twice.
        """
        return (
            f"v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), "
            f"v2.Resize({self.size}, interpolation=v2.InterpolationMode.BICUBIC, antialias=True), "
            f"v2.CenterCrop({self.size}), v2.Normalize({list(self.mean)}, {list(self.std)})])"
        )

    def __repr__(self) -> str:
        return f"Transform({self.size}, mean={self.mean}, std={self.std})"


class RawPixels(nn.Module):
    """The network that learned nothing: pictures (B, C, H, W) -> their pixels (B, C·h·w).

    Pictures larger than `largest` pixels a side are averaged down to it, so that the baseline stays affordable.
    """

    def __init__(self, largest: int = 32) -> None:
        super().__init__()
        self.largest = largest

    def forward(self, images: Tensor) -> Tensor:
        if max(images.shape[-2:]) > self.largest:
            images = F.interpolate(images, (self.largest, self.largest), mode="area")
        return images.flatten(1)
