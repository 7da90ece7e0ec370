"""A run's page: curves and pictures in one self-contained HTML file."""

from __future__ import annotations

from sslfast.report.page import build
from sslfast.report.sections import SECTIONS, Section

__all__ = ["SECTIONS", "Section", "build"]
