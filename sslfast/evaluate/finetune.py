"""Fine-tuning: all parameters and a linear head are trained with the labels."""

from __future__ import annotations

import copy
import logging
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslfast._extras import require
from sslfast.data import batches
from sslfast.evaluate.task import Task
from sslfast.schedule import warmup_cosine

LOGGER = logging.getLogger("sslfast")
LAYER_DECAY = 0.75  # of vision transformers, as MAE fine-tunes ViT-B; other networks have none
SILENCE = 10  # seconds at least between two lines about the progress


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How a network is trained with labels; see `finetune`.

    Args:
        epochs: passes over the training examples.
        learning_rate: the peak, as it is, whatever the batch.
        train_batch_size: examples a step.
        weight_decay: not of biases, norms, and what the network exempts.
        layer_decay: in (0, 1]; None is 0.75 for timm's vision transformers and 1 for other networks.
        warmup_epochs: epochs over which the learning rate rises.
        label_smoothing: in [0, 1).

    Raises:
        ValueError: a setting is out of range.
    """

    epochs: int = 20
    learning_rate: float = 1e-3
    train_batch_size: int = 128
    weight_decay: float = 0.05
    layer_decay: float | None = None
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        least = {"epochs": 1, "train_batch_size": 1, "weight_decay": 0, "warmup_epochs": 0}
        for name, bound in least.items():
            if not getattr(self, name) >= bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must be above 0 and at most 1, got {self.layer_decay}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")


def finetune(network: nn.Module, task: Task, **settings: Any) -> dict[str, Any]:
    """The protocol: train a copy of the network with a linear head on all training examples, then test it.

    AdamW; the learning rate rises linearly and falls by half a cosine; layer k of L has learning_rate·layer_decay^(L-k)
    (BEiT, Bao et al. 2021; MAE, He et al. 2021, appendix A.1). Examples are augmented by `task.augmented`. What is
    tested is the last epoch. From random init this is training from scratch.

    Args:
        network: what `task.inputs` returns -> (B, network.num_features); it stays as it is.
        task: the examples; `task.seed` is that of the head, the order, dropout and augmentation.
        settings: fields of `FineTuning`.

    Returns:
        "accuracy" in [0, 1], "train_loss" of the last epoch (nats), the "layer_decay" used, "updates" of the weights,
        "features" F, "predictions" (N_test,).

    Raises:
        TypeError: there is no such setting. ValueError: one is out of range, or the network has no num_features.
        FloatingPointError: the loss is not finite.
    """
    return tune_and_test(network, task, task.indices(task.train), FineTuning(**settings), seed=task.seed)


def tune_and_test(network: nn.Module, task: Task, chosen: Tensor, settings: FineTuning, *, seed: int) -> dict[str, Any]:
    """Fine-tune a copy of the network on the training examples `chosen` (M,), and test it; see `finetune`."""
    if not hasattr(network, "num_features"):
        raise ValueError(f"network must have num_features, which {type(network).__name__} lacks")
    device = torch.device(task.device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        head = nn.Linear(network.num_features, len(task.train.classes))
        model = nn.Sequential(copy.deepcopy(network), head).to(device)
        groups, layer_decay = _groups(model, settings)
        updates, loss = _train(model, groups, task, chosen, settings, seed)
    predictions, accuracy = _test(model, task)
    return {
        "accuracy": accuracy,
        "train_loss": loss,
        "layer_decay": layer_decay,
        "updates": updates,
        "features": network.num_features,
        "predictions": predictions,
    }


def _train(
    model: nn.Module, groups: list[dict[str, Any]], task: Task, chosen: Tensor, settings: FineTuning, seed: int
) -> tuple[int, float]:
    """(optimizer steps, mean loss of the last epoch)"""
    batch = min(settings.train_batch_size, len(chosen))
    steps = len(chosen) // batch
    total = settings.epochs * steps
    warmup = min(total, round(settings.warmup_epochs * steps))
    optimizer = torch.optim.AdamW(groups)
    factor = partial(warmup_cosine, peak=1.0, total=total, warmup=warmup)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    shuffle = torch.Generator().manual_seed(seed)
    generator = torch.Generator(task.device).manual_seed(seed)
    said = time.monotonic()
    model.train()
    for epoch in range(settings.epochs):
        order = chosen[torch.randperm(len(chosen), generator=shuffle)]
        losses = []
        loader = batches(task.train, batch, device=task.device, order=order, drop_last=True, workers=task.workers)
        for _, source, labels in loader:
            inputs = task.augmented(source, generator) if task.augmented else task.inputs(source)
            loss = F.cross_entropy(model(inputs).float(), labels, label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        mean = torch.stack(losses).mean().item()
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss of fine-tuning is {mean} in epoch {epoch + 1}: lower learning_rate")
        if time.monotonic() - said > SILENCE:
            said = time.monotonic()
            LOGGER.info("fine-tuning: epoch %d/%d  loss %.4f", epoch + 1, settings.epochs, mean)
    return total, mean


@torch.no_grad()
def _test(model: nn.Module, task: Task) -> tuple[Tensor, float]:
    """Predictions (N_test,) and the accuracy."""
    model.eval()
    predictions, hits = [], []
    options = {"device": task.device, "order": task.indices(task.test), "workers": task.workers}
    for _, source, labels in batches(task.test, task.batch_size, **options):
        predictions.append(model(task.inputs(source)).argmax(dim=1))
        hits.append(predictions[-1] == labels)
    return torch.cat(predictions).cpu(), torch.cat(hits).double().mean().item()


def _groups(model: nn.Sequential, settings: FineTuning) -> tuple[list[dict[str, Any]], float]:
    """The optimizer's groups with their peak learning rates, and the layer decay used."""
    optim = require("timm.optim", extra="train")
    network, head = model
    layers = hasattr(network, "group_matcher") and hasattr(network, "blocks")
    layer_decay = settings.layer_decay or (LAYER_DECAY if layers else 1.0)
    exempt = getattr(network, "no_weight_decay", set)()
    if layer_decay == 1:
        groups = optim.param_groups_weight_decay(network, settings.weight_decay, no_weight_decay_list=exempt)
    elif layers:
        groups = optim.param_groups_layer_decay(network, settings.weight_decay, exempt, layer_decay=layer_decay)
    else:
        raise ValueError(f"layer_decay must be 1, as the layers of {type(network).__name__} have no order known here")
    groups += optim.param_groups_weight_decay(head, settings.weight_decay)
    return [{**group, "lr": settings.learning_rate * group.get("lr_scale", 1)} for group in groups], layer_decay
