"""Odd calls: none crashes, none is answered wrongly, and what is refused is refused by name."""

from __future__ import annotations

import pytest
from run import OUTCOMES, fuzz, verdict


def test_odd_calls(record_property):
    count, faults = fuzz(seconds=0, seed=1)
    record_property("outcomes", dict(count))
    assert not faults, "\n".join([str(dict(count)), *faults])
    assert count["answered"] > 20
    assert count["refused by name"] > 20


@pytest.mark.parametrize(
    ("actual", "expected", "outcome"),
    [
        ({"values": [[1.0, float("nan")]]}, {"values": [[1.0, float("nan")]]}, "answered"),
        ({"values": [[1.0]]}, {"values": [[2.0]]}, "silent wrong"),
        ({"values": [[1.0]]}, {"values": [[float("nan")]]}, "silent wrong"),
        ({"values": [[1.0]]}, {"error": "ValueError", "message": "op: no"}, "silent wrong"),
        ({"error": "TypeError", "message": "op: x must be a tensor"}, {}, "refused by name"),
        ({"error": "TypeError", "message": "unsupported operand"}, {}, "internal error"),
        ({"error": "AttributeError", "message": "op: x"}, {}, "internal error"),
        ({"words": "op"}, {"values": []}, "crash"),
    ],
)
def test_what_counts_as_a_fault(actual, expected, outcome):
    assert verdict(actual, expected) == outcome
    assert outcome in OUTCOMES
