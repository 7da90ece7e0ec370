"""In what runs differ, and which differ in their seeds alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sslfast.config import FREE

SHOWN = {"method", "method_class", "backbone", "epochs", "seed"}  # or never of interest


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields that all have and not all alike, besides those that are shown anyway or change no result."""
    common = [name for name in configs[0] if all(name in config for config in configs)]
    names = [name for name in common if name not in SHOWN | FREE]
    return [name for name in names if any(config[name] != configs[0][name] for config in configs)]


def by_seed(configs: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """Groups of two or more runs that differ in their seeds alone, as their places."""
    groups: dict[str, list[int]] = {}
    for place, config in enumerate(configs):
        rest = {name: value for name, value in config.items() if name != "seed" and name not in FREE}
        groups.setdefault(json.dumps(rest, sort_keys=True), []).append(place)
    return [places for places in groups.values() if len({configs[k]["seed"] for k in places}) > 1]


def word(value: Any) -> str:
    """A field's value in a table."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
