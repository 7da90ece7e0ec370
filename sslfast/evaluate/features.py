"""Features of a frozen backbone, and the proof that it was frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast.data import LUMA, ImageSet, batches


def extract_features(
    backbone: nn.Module,
    images: ImageSet,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    size: int | None = None,
    indices: Tensor | None = None,
    workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """The features of images, from a backbone in eval mode whose parameters and buffers stay the same to the bit.

    The backbone is moved to `device` and stays there; every module gets back the mode (train or eval) it was in.

    Args:
        backbone: (B, C, H, W) normalised float32 -> (B, F); C is the length of `mean`.
        images: N images.
        mean, std: of the images in [0, 1], one number a channel, as in training.
        device: where the backbone computes.
        batch_size: images a forward pass.
        size: side of the pictures the backbone sees, in pixels, see `to_inputs`; None leaves them as they are.
        indices: (M,) int64, the images to take and their order; None for all.
        workers: processes that decode images which are not in memory.

    Returns:
        features (N or M, F) float32 and labels (N or M,) int64, both on the CPU.

    Raises:
        RuntimeError: the forward pass changed a parameter or a buffer; the message names it.
        ValueError: the backbone's output is not (B, F), or the images have another number of channels than `mean`.
    """
    backbone.to(device)
    features, labels = [], []
    with frozen(backbone):
        for _, pixels, label in batches(images, batch_size, device=device, order=indices, workers=workers):
            output = backbone(to_inputs(pixels, size=size, mean=mean, std=std))
            if output.dim() != 2 or len(output) != len(pixels):
                raise ValueError(f"backbone must return ({len(pixels)}, F) features, got {tuple(output.shape)}")
            features.append(output.float().cpu())
            labels.append(label.cpu())
    if not features:
        raise ValueError("images is empty: there is nothing to evaluate")
    return torch.cat(features), torch.cat(labels)


def to_inputs(images: Tensor, *, size: int | None, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 images as a backbone of these channels and this input size takes them, without any augmentation.

    The shorter side is brought to `size` (bicubic, antialiased), the centre cut out, and the result normalised. Gray
    images are repeated for a network that takes colour, colour is turned to gray for one that takes gray.

    Args:
        images: (B, C, H, W) uint8.
        size: side in pixels; None leaves height and width as they are.
        mean, std: of images in [0, 1], one number a channel of the network.

    Returns:
        (B, len(mean), size, size) float32.

    Raises:
        ValueError: the channels do not fit `mean`, and neither is 1.
    """
    pixels = images.float() / 255
    have, want = images.shape[1], len(mean)
    if have == 1 and want > 1:
        pixels = pixels.expand(-1, want, -1, -1)
    elif have == 3 and want == 1:
        pixels = torch.einsum("bchw,c->bhw", pixels, pixels.new_tensor(LUMA)).unsqueeze(1)
    elif have != want:
        raise ValueError(f"images have {have} channels, but the network was trained on {want}")
    if size is not None:
        height, width = pixels.shape[-2:]
        if min(height, width) != size:
            scaled = [max(size, round(side * size / min(height, width))) for side in (height, width)]
            pixels = F.interpolate(pixels, scaled, mode="bicubic", antialias=True).clamp(0, 1)
        top, left = ((side - size) // 2 for side in pixels.shape[-2:])
        pixels = pixels[..., top : top + size, left : left + size]
    column = (1, -1, 1, 1)
    return (pixels - pixels.new_tensor(mean).view(column)) / pixels.new_tensor(std).view(column)


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


@contextmanager
def frozen(network: nn.Module) -> Iterator[nn.Module]:
    """Inside, `network` is in eval mode and no gradient is recorded; afterwards every module has its mode back.

    Raises:
        RuntimeError: a parameter or a buffer is not bit for bit what it was before; the message names it.
    """
    modes = [(module, module.training) for module in network.modules()]
    before = fingerprints(network)
    network.eval()
    try:
        with torch.no_grad():
            yield network
    finally:
        for module, training in modes:
            module.training = training
    after = fingerprints(network)
    changed = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    if changed:
        raise RuntimeError(f"the backbone was to stay frozen, but evaluating it changed {', '.join(changed)}")


def fingerprints(network: nn.Module) -> dict[str, str]:
    """The SHA-256 of every parameter and buffer, by name."""
    tensors = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    return {name: _digest(tensor) for name, tensor in tensors.items()}


def fingerprint(network: nn.Module) -> str:
    """One SHA-256 for all parameters and buffers together, which says what weights a result belongs to."""
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(fingerprints(network).items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def _digest(tensor: Tensor) -> str:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + raw.numpy().tobytes()).hexdigest()
