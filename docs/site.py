"""What the site changes in the pages: links to files of the repository that are no pages become plain text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s:]+)(#[\w-]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    folder = (DOCS / page.file.src_uri).parent

    def inside(match: re.Match[str]) -> str:
        target = (folder / match[3]).resolve()
        return match[0] if target.is_relative_to(DOCS) and target.is_file() and target.suffix != ".py" else match[2]

    return LINK.sub(inside, markdown)
