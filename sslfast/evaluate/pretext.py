"""Pretext: how well the whole method does what it was trained for, on examples it has not seen."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sslfast.data import batches
from sslfast.evaluate.features import frozen
from sslfast.evaluate.task import Task
from sslfast.methods import Method


def pretext(method: Method, task: Task) -> dict[str, Any]:
    """The protocol: the means over the test examples of the loss and of every scalar that the method logs.

    A perplexity is the exponential of a mean, so of perplexities the geometric mean is taken.

    In eval mode, on full batches of `task.batch_size` examples in random order, for the loss of a contrastive method
    depends on the batch; a test split smaller than that is one batch. Views are drawn from `task.seed`, the same ones
    for every method.

    Returns:
        "loss"; "accuracy", if the method logs one; "metrics", all of them by name; "examples" they are averaged over,
        and the "batch_size".

    Raises:
        RuntimeError: the method changed a parameter or a buffer, though in eval mode.
    """
    generator = torch.Generator(task.device).manual_seed(task.seed)
    indices = task.indices(task.test)
    order = indices[torch.randperm(len(indices), generator=torch.Generator().manual_seed(task.seed))]
    size = min(task.batch_size, len(order))
    options = {"device": task.device, "order": order, "drop_last": True, "workers": task.workers}
    sums: dict[str, float] = {}
    count = 0
    with frozen(method.to(task.device)):
        for _, source, _ in batches(task.test, size, **options):
            output = method(method.views(source, generator))
            for name, value in output.items():
                if isinstance(value, Tensor) and value.ndim == 0:
                    term = value.log() if name == "perplexity" else value
                    sums[name] = sums.get(name, 0.0) + term.item()
            count += 1
    metrics = {name: value / count for name, value in sums.items()}
    if "perplexity" in metrics:
        metrics["perplexity"] = math.exp(metrics["perplexity"])
    return {
        "loss": metrics["loss"],
        **({"accuracy": metrics["accuracy"]} if "accuracy" in metrics else {}),
        "metrics": metrics,
        "examples": count * size,
        "batch_size": size,
    }
