"""The badges say what pyproject.toml says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BADGES = runpy.run_path(str(ROOT / "docs" / "badges.py"))["badges"]()


@pytest.mark.parametrize(("file", "said"), list(zip(BADGES, ["3.10 | 3.11", "2.9 or later", "Apache-2.0"])))
def test_a_badge_is_what_the_project_says(file: str, said: str) -> None:
    assert said in BADGES[file]
    assert (ROOT / "docs" / "images" / file).read_text(encoding="utf-8") == BADGES[file]
