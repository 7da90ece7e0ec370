"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math

from sslfast.config import Scaling


def scaled_learning_rate(learning_rate: float, batch: int, scaling: Scaling) -> float:
    """The peak learning rate of an effective batch of `batch` images.

    linear: learning_rate·batch/256 (Goyal et al. 2017); sqrt: learning_rate·√batch (SimCLR, appendix B.1, with 0.075);
    none: learning_rate.
    """
    factors = {"linear": batch / 256, "sqrt": math.sqrt(batch), "none": 1.0}
    if scaling not in factors:
        raise ValueError(f"scaling must be one of {', '.join(factors)}, got {scaling!r}")
    return learning_rate * factors[scaling]


def warmup_cosine(step: int, *, peak: float, total: int, warmup: int) -> float:
    """The learning rate of optimizer step `step` of `total`, counted from 0.

    peak·(step+1)/warmup over the first `warmup` steps; after them half a cosine from `peak` down to 0, which it would
    reach at step `total` (Loshchilov & Hutter 2017, without restarts).
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
