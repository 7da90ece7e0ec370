"""BatchNorm over parts of a batch: what several GPUs do to it, on one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SplitBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d that, in training, normalises each of `splits` parts of the batch by its own statistics.

    (N, C, H, W) -> (N, C, H, W); N must be a multiple of `splits`. The running statistics follow the mean of
    the parts'. Made by `split_batch_norm`; in eval mode and as a file it is a BatchNorm2d.

    Source: He et al., https://github.com/facebookresearch/moco, the CIFAR-10 Colab
    """

    splits: int

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if len(x) % self.splits:
            raise ValueError(f"SplitBatchNorm2d: the batch must be a multiple of {self.splits}, got {len(x)}")
        means, variances = (stat.repeat(self.splits, 1) for stat in (self.running_mean, self.running_var))  # (S, C)
        # Parts one by one: as more channels of fewer images they would have to leave channels_last.
        parts = [
            F.batch_norm(part, mean, variance, self.weight, self.bias, True, self.momentum, self.eps)
            for part, mean, variance in zip(x.chunk(self.splits), means, variances)
        ]
        self.running_mean.copy_(means.mean(dim=0))
        self.running_var.copy_(variances.mean(dim=0))
        self.num_batches_tracked.add_(1)
        return torch.cat(parts)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, splits={self.splits}"


def split_batch_norm(network: nn.Module, splits: int) -> None:
    """Turn, in place, every BatchNorm2d of `network` into one that sees `splits` parts of a batch apart.

    Parameters and buffers stay what they are, and so do the names of both.

    Raises:
        ValueError: splits is below 1, or the network has no BatchNorm2d, or one that cannot be split: of another class,
            or without running statistics that follow at a fixed rate.
    """
    if splits < 1:
        raise ValueError(f"splits must be at least 1, got {splits}")
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        raise ValueError(f"network must have BatchNorm2d layers to split, {type(network).__name__} has none")
    for norm in norms:
        if type(norm) is not nn.BatchNorm2d or norm.running_mean is None or norm.momentum is None:
            raise ValueError(f"network must have plain BatchNorm2d layers only to be split, got {norm}")
    for norm in norms:
        norm.__class__, norm.splits = SplitBatchNorm2d, splits
