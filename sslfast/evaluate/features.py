"""Features of a frozen backbone, and the proof that it was frozen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sslfast.data import ExampleSet, batches


def extract_features(
    backbone: nn.Module,
    examples: ExampleSet,
    *,
    inputs: Callable[[Any], Tensor],
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    indices: Tensor | None = None,
    workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """The features of examples, from a backbone in eval mode whose parameters and buffers stay the same to the bit.

    The backbone is moved to `device` and stays there; every module gets back the mode (train or eval) it was in.

    Args:
        backbone: what `inputs` returns -> (B, F).
        examples: N images or texts.
        inputs: a batch of them, as `data.batches` yields it, to the backbone's input; see `Modality.inputs`.
        device: where the backbone computes.
        batch_size: examples a forward pass.
        indices: (M,) int64, the examples to take and their order; None for all.
        workers: processes that decode images which are not in memory.

    Returns:
        features (N or M, F) float32 and labels (N or M,) int64, both on `device`.

    Raises:
        RuntimeError: the forward pass changed a parameter or a buffer; the message names it.
        ValueError: the backbone's output is not (B, F), or `inputs` refuses the examples.
    """
    backbone.to(device)
    features, labels = [], []
    with frozen(backbone):
        for _, source, label in batches(examples, batch_size, device=device, order=indices, workers=workers):
            output = backbone(inputs(source))
            if output.dim() != 2 or len(output) != len(label):
                raise ValueError(f"backbone must return ({len(label)}, F) features, got {tuple(output.shape)}")
            features.append(output.float())
            labels.append(label)
    if not features:
        raise ValueError("examples is empty: there is nothing to evaluate")
    return torch.cat(features), torch.cat(labels)


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
        raise RuntimeError(f"the network was to stay frozen, but evaluating it changed {', '.join(changed)}")


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
