"""Heads: the small networks between a backbone's features and a loss."""

from __future__ import annotations

from typing import Literal

from torch import nn


class ProjectionHead(nn.Sequential):
    """A multi-layer perceptron: (Linear, BatchNorm, ReLU) repeated, then a last Linear.

    (B, in_features) -> (B, out_features). A Linear that a BatchNorm follows has no bias.

    Args:
        in_features: width of the backbone's features.
        hidden_features: width of the hidden layers.
        out_features: width of the embedding.
        layers: number of Linear layers, at least 1; 1 is a linear head.
        batch_norm: BatchNorm after every hidden Linear.
        output_norm: after the last Linear: "none" (SimCLR v1, BYOL), "affine" for a BatchNorm, "plain" for one
            without scale and shift (SimSiam).

    Raises:
        ValueError: a width or `layers` below 1, or an unknown `output_norm`.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        *,
        layers: int = 2,
        batch_norm: bool = True,
        output_norm: Literal["none", "affine", "plain"] = "none",
    ) -> None:
        sizes = {"in_features": in_features, "hidden_features": hidden_features, "out_features": out_features}
        for argument, value in {**sizes, "layers": layers}.items():
            if value < 1:
                raise ValueError(f"{argument} must be at least 1, got {value}")
        if output_norm not in ("none", "affine", "plain"):
            raise ValueError(f"output_norm must be 'none', 'affine' or 'plain', got {output_norm!r}")
        modules: list[nn.Module] = []
        width = in_features
        for _ in range(layers - 1):
            modules.append(nn.Linear(width, hidden_features, bias=not batch_norm))
            modules += [nn.BatchNorm1d(hidden_features)] if batch_norm else []
            modules.append(nn.ReLU(inplace=True))
            width = hidden_features
        modules.append(nn.Linear(width, out_features, bias=output_norm == "none"))
        if output_norm != "none":
            modules.append(nn.BatchNorm1d(out_features, affine=output_norm == "affine"))
        super().__init__(*modules)
        self.in_features, self.out_features = in_features, out_features
