from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
HEADINGS = [
    "Formula",
    "Minimal implementation",
    "Recipes",
    "What people get wrong",
    "Departures from the paper",
    "Measured",
    "Paper",
]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/methods/*.md")), ids=lambda page: page.stem)
def test_pages_of_methods_have_the_same_headings(page: Path) -> None:
    found = re.findall(r"^## (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS


def test_pictures_are_shown_and_light() -> None:
    pictures = list((ROOT / "docs" / "images").iterdir())
    shown = {(page.parent / link).resolve() for page in PAGES for link in LINK.findall(page.read_text())}
    assert pictures
    assert not [picture.name for picture in pictures if picture not in shown]
    assert not [picture.name for picture in pictures if picture.stat().st_size > 300_000]
    assert sum(picture.stat().st_size for picture in pictures) < 1_500_000
