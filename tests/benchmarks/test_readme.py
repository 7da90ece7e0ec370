"""The README shows what was measured."""

from __future__ import annotations

from benchmarks.readme import ROOT, with_tables


def test_tables_of_speed_are_those_of_the_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_tables(text) == text
