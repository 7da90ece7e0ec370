"""Views of images for contrastive learning, every image by its own random numbers; a call draws and applies them.

sslfast, its reference (eager) and torchvision draw the same numbers from one seed and pass the gate like any other op.
kornia and triton-augment draw their own, and their steps differ in detail: no view of theirs can equal ours, and the
gate asks of them only finite views of the right shape.
"""

from __future__ import annotations

import torch
import torchvision.transforms.v2.functional as transforms
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode

from benchmarks.peers.make import Peer, drawing
from sslfast import ops
from sslfast.augment import PRESETS, ViewParams, ViewSampler
from sslfast.kernels import reference_augment
from sslfast.ops.view_params import LAYOUT, STEPS


def preset(view: Tensor) -> str:
    """SimCLR's augmentation; that for CIFAR does not blur."""
    return "simclr" if len(view) > 64 else "simclr-cifar"


def draw(images: Tensor, view: Tensor) -> ViewParams:
    generator = torch.Generator(images.device).manual_seed(0)
    return ViewSampler(preset(view), len(view)).sample(len(images), images.shape[-2:], generator=generator)


def fused(inputs: dict[str, Tensor]) -> Peer:
    return lambda images, view: ops.augment(images, draw(images, view), len(view))


def reference(images: Tensor, view: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    params = draw(images, view)
    return reference_augment.augment(
        images, None, **{name: getattr(params, name) for name in LAYOUT}, size=tuple(view.shape), steps=params.steps,
        bicubic=params.interpolation == "bicubic", mode=params.mode, blur_radius=params.blur_radius,
        mean=None, std=None, dtype=dtype,
    )  # fmt: skip


def torchvision(inputs: dict[str, Tensor]) -> Peer:
    """One image after the other, as a data loader's transforms do it; the numbers are drawn for all at once."""

    def peer(images: Tensor, view: Tensor) -> Tensor:
        params, size = draw(images, view), list(view.shape)
        rows = zip(images, *(getattr(params, name).tolist() for name in LAYOUT), strict=True)
        window = [2 * params.blur_radius + 1] * 2
        return torch.stack([one(*row, size=size, window=window) for row in rows])

    def one(image, crop, flip, jitter, order, gray, sigma, threshold, *, size: list[int], window: list[int]) -> Tensor:
        x = transforms.resized_crop(image / 255, *crop, size, InterpolationMode.BICUBIC, antialias=True).clamp(0, 1)
        if flip:
            x = transforms.horizontal_flip(x)
        for k in order if jitter != [1, 1, 1, 0] else ():
            x = getattr(transforms, f"adjust_{STEPS[k]}")(x, jitter[k])
        if gray:
            x = transforms.rgb_to_grayscale(x, num_output_channels=3)
        return transforms.gaussian_blur(x, window, [sigma, sigma]) if sigma > 0 else x

    return peer


def kornia(inputs: dict[str, Tensor]) -> Peer:
    """The same chain; one order of the jitter for the whole batch."""
    import kornia.augmentation as K

    size = tuple(inputs["view"].shape)
    p = PRESETS[preset(inputs["view"])]
    steps = [
        K.RandomResizedCrop(size, p.crop_scale, p.crop_ratio, resample="BICUBIC"),
        K.RandomHorizontalFlip(p=p.flip),
        K.ColorJitter(p.brightness, p.contrast, p.saturation, p.hue, p=p.jitter),
        K.RandomGrayscale(p=p.grayscale),
    ]
    if p.blur:
        window = 2 * ViewSampler(p, size).blur_radius + 1
        steps.append(K.RandomGaussianBlur((window, window), p.blur_sigma, p=p.blur))
    chain = nn.Sequential(*steps)
    return drawing(lambda images, view: chain(images / 255).clamp(0, 1))


def triton_augment(inputs: dict[str, Tensor]) -> Peer | None:
    """What it has of the chain: a crop without resizing, and no hue, no order and no blur. On CUDA only."""
    if not inputs["images"].is_cuda:
        return None
    from triton_augment import TritonFusedAugment

    p = PRESETS[preset(inputs["view"])]
    chain = TritonFusedAugment(
        crop_size=tuple(inputs["view"].shape), horizontal_flip_p=p.flip, brightness=p.brightness, contrast=p.contrast,
        saturation=p.saturation, grayscale_p=p.grayscale, mean=None, std=None, same_on_batch=False,
    )  # fmt: skip
    return drawing(lambda images, view: chain(images / 255))


EXACT = {"augment": lambda images, view: reference(images, view, torch.float64)}
PEERS = {
    "augment": {
        "eager": lambda inputs: reference,
        "torchvision": torchvision,
        "kornia": kornia,
        "triton-augment": triton_augment,
        "sslfast": fused,
    }
}
