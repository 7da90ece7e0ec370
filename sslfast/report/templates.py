"""Pages from the templates that come with sslfast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sslfast._extras import require


def render(name: str, **values: Any) -> str:
    """The template of this name, filled in; values are text unless the template says that they are HTML."""
    jinja = require("jinja2", extra="train")
    loader = jinja.FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = jinja.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(name).render(**values)
