"""Optimizers, and which parameters weight decay and LARS leave alone."""

from __future__ import annotations

from typing import Any

import torch

from sslfast._extras import require
from sslfast.config import PretrainConfig
from sslfast.methods import Method

LARS_TRUST = 0.001  # η of SimCLR's code


def parameter_groups(method: Method, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters of `method` in up to four optimizer groups.

    Excluded from weight decay and from LARS's adaptation: biases, everything with fewer than two dimensions (scales and
    shifts of norms, a learnable temperature), and what the backbone itself exempts (timm's `no_weight_decay()`:
    position embeddings and class tokens).

    Returns:
        Groups with `params`, `names`, `weight_decay`, `excluded` (bool) and `constant_lr` (bool, see
        `Method.constant_lr`); a parameter is in exactly one of them, frozen ones in none.
    """
    exempt = {f"backbone.{name}" for name in getattr(method.backbone, "no_weight_decay", set)()}
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            continue
        excluded = parameter.ndim < 2 or name.endswith(".bias") or name in exempt
        constant = name.startswith(method.constant_lr)
        options = {"weight_decay": 0.0 if excluded else weight_decay, "excluded": excluded, "constant_lr": constant}
        group = groups.setdefault((excluded, constant), {"params": [], "names": [], **options})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())


def weights_to_bfloat16(method: Method) -> None:
    """Turn the trained parameters of two dimensions and more, in place, to bfloat16.

    Biases, norms, a learnable temperature, moving averages and statistics stay in float32: of these too many updates
    would be rounded away, and they hardly take memory. Autocast brings the two together.
    """
    for parameter in method.parameters():
        if parameter.requires_grad and parameter.ndim >= 2:
            parameter.data = parameter.data.bfloat16()


def build_optimizer(method: Method, config: PretrainConfig, *, fused: bool | None = None) -> torch.optim.Optimizer:
    """The optimizer of `config`, over `parameter_groups`; the loop sets every group's `lr` before each step.

    Args:
        fused: one kernel for all parameters of a group, for SGD and AdamW; None leaves it to torch.
    """
    groups = parameter_groups(method, config.weight_decay)
    if config.optimizer == "lars":
        # timm adapts a group without weight decay only when told to.
        for group in groups:
            group["always_adapt"] = not group["excluded"]
        lars = require("timm.optim", extra="train").Lars
        return lars(groups, lr=0.0, momentum=config.momentum, trust_coeff=LARS_TRUST)
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=fused)
    raise ValueError(f"optimizer must be lars, sgd or adamw, got {config.optimizer!r}")


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float, peak: float) -> None:
    """Set the learning rate of all groups: `peak` where `constant_lr`, else `learning_rate`."""
    for group in optimizer.param_groups:
        group["lr"] = peak if group["constant_lr"] else learning_rate
