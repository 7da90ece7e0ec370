"""Draws the badges of README.md from what pyproject.toml says: `python docs/badges.py`."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
LETTER, MARGIN = 6.6, 6  # px

BADGE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="20" role="img">
<rect width="{width:.0f}" height="20" rx="3" fill="#2b6cb0"/>
<path d="M3 0h{left:.0f}v20H3a3 3 0 0 1-3-3V3a3 3 0 0 1 3-3z" fill="#444"/>
<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">
<text x="{margin}" y="14">{name}</text><text x="{right:.0f}" y="14">{text}</text>
</g>
</svg>
"""


def badges() -> dict[str, str]:
    """The name of a file in docs/images -> its SVG."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    def found(pattern: str) -> list[str]:
        return re.findall(pattern, project, re.MULTILINE)

    said = {
        "Python": " | ".join(found(r"Language :: Python :: (3\.\d+)")),
        "PyTorch": f"{found(r'torch>=([0-9.]+)')[0]} or later",
        "license": found(r'^license = "(.*)"')[0],
    }
    return {f"badge-{name.lower()}.svg": badge(name, text) for name, text in said.items()}


def badge(name: str, text: str) -> str:
    left = LETTER * len(name) + 2 * MARGIN
    width = left + LETTER * len(text) + 2 * MARGIN
    return BADGE.format(name=name, text=text, width=width, left=left - 3, right=left + MARGIN, margin=MARGIN)


if __name__ == "__main__":
    for file, svg in badges().items():
        (IMAGES / file).write_text(svg, encoding="utf-8")
