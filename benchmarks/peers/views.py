"""The views of an image, as torchvision's transforms make them: one image after the other."""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as transforms
from torch import Tensor
from torchvision.transforms import InterpolationMode

from benchmarks.peers.make import Peer
from sslfast import ops
from sslfast.augment import ViewSampler
from sslfast.kernels import reference_augment
from sslfast.ops.view_params import LAYOUT, STEPS, ViewParams


def params(images: Tensor, drawn: tuple[Tensor, ...]) -> ViewParams:
    """The tensors of a case as what `ops.augment` takes."""
    size = images.shape[-1]
    sampled = ViewSampler("simclr", size).sample(1, (size, size))  # for what holds for all views
    return ViewParams(
        **dict(zip(LAYOUT, drawn, strict=True)),
        steps=sampled.steps, interpolation=sampled.interpolation, blur_radius=sampled.blur_radius,
    )  # fmt: skip


def fused(inputs: dict[str, Tensor]) -> Peer:
    images, *drawn = inputs.values()
    views = params(images, tuple(drawn))
    return lambda images, *_: ops.augment(images, views, images.shape[-1])


def torchvision(inputs: dict[str, Tensor]) -> Peer:
    """Its functions are given what its transforms would draw; reading the numbers is not timed."""
    images, *drawn = inputs.values()
    views = params(images, tuple(drawn))
    rows = [{name: getattr(views, name)[i].tolist() for name in LAYOUT} for i in range(len(images))]
    window = [2 * views.blur_radius + 1] * 2

    def view(image: Tensor, row: dict) -> Tensor:
        size = list(image.shape[-2:])
        x = transforms.resized_crop(image / 255, *row["crop"], size, InterpolationMode.BICUBIC, antialias=True)
        x = x.clamp(0, 1)
        if row["flip"]:
            x = transforms.horizontal_flip(x)
        for k in row["order"]:
            x = getattr(transforms, f"adjust_{STEPS[k]}")(x, row["jitter"][k])
        if row["grayscale"]:
            x = transforms.rgb_to_grayscale(x, num_output_channels=3)
        if row["blur"] > 0:
            x = transforms.gaussian_blur(x, window, [row["blur"]] * 2)
        return transforms.solarize(x, row["solarize"]) if row["solarize"] <= 1 else x

    return lambda images, *_: torch.stack([view(image, row) for image, row in zip(images, rows, strict=True)])


def exact(images: Tensor, *drawn: Tensor) -> Tensor:
    views = params(images, tuple(x.float() if x.is_floating_point() else x for x in drawn))
    return reference_augment.augment(
        images,
        **{name: getattr(views, name) for name in LAYOUT},
        size=tuple(images.shape[-2:]),
        steps=views.steps,
        bicubic=views.interpolation == "bicubic",
        blur_radius=views.blur_radius,
        mean=None,
        std=None,
        dtype=torch.float64,
    )


EXACT = {"augment": exact}
PEERS = {"augment": {"eager": torchvision, "sslfast": fused}}
