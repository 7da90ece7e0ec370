"""Whether a run is better than what learned nothing, in one sentence."""

from __future__ import annotations

import math
from typing import Any

from sslfast.report.names import BASELINES, PROTOCOL_NAMES


def verdict(result: dict[str, Any]) -> str | None:
    """A result's accuracy beside its baselines and the points between them; None of a protocol without accuracies.

    Better and worse are differences of more than two standard errors: of both accuracies by the number of test
    examples, and of random init by its seeds.
    """
    baselines = result.get("baselines")
    if result.get("metric", "accuracy") != "accuracy" or not baselines:
        return None
    accuracy, examples = result["accuracy"], result.get("examples", result["test_examples"])
    spreads = {key: spread_of(result, key) for key in baselines}
    points, found = [], {"worse than": [], "not clearly better than": []}
    for key, value in sorted(baselines.items(), key=lambda pair: -pair[1]):
        variance = (accuracy * (1 - accuracy) + value * (1 - value)) / examples + (spreads[key] or 0) ** 2
        margin, name = accuracy - value, BASELINES.get(key, key)
        spread = "" if spreads[key] is None else f" ± {100 * spreads[key]:.1f}"
        where = "above" if margin >= 0 else "below"
        points.append(f"{100 * abs(margin):.1f} points {where} {name} ({100 * value:.1f}{spread} %)")
        if margin <= 2 * math.sqrt(variance):
            found["worse than" if margin < -2 * math.sqrt(variance) else "not clearly better than"].append(name)
    beaten = "better than both baselines" if len(baselines) > 1 else "better than its baseline"
    said = next((f"{how} {' and '.join(names)}" for how, names in found.items() if names), beaten)
    protocol = PROTOCOL_NAMES.get(result["protocol"], result["protocol"])
    data = f" on {result['data']}" if result.get("data") else ""
    return f"{protocol}{data}: {100 * accuracy:.1f} %, {said}: {', '.join(points)}"


def spread_of(result: dict[str, Any], baseline: str) -> float | None:
    """The standard deviation of a baseline's accuracy over its seeds; None if there is one only."""
    return result.get("baseline_details", {}).get(baseline, {}).get("inits", {}).get("std")
