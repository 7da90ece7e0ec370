"""The section that shows what a method asks of its networks, and what they answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sslfast.data import batches
from sslfast.methods import Method, Panel
from sslfast.report.material import Material, Unavailable
from sslfast.report.pictures import Tile, tile
from sslfast.report.sections import Section

EXAMPLES = 6


@dataclass(frozen=True)
class Word:
    """A word of a running text; `text` is what the network guessed, if it was asked."""

    word: str
    text: str = ""
    mark: str = ""


def illustrations(material: Material) -> Section | None:
    """Some test examples as the trained method sees them: `Method.illustrate`."""
    if material.run.method_class.illustrate is Method.illustrate:
        return None
    try:
        method = material.run.method().to(material.device)
    except FileNotFoundError as error:
        raise Unavailable(str(error)) from error
    indices = material.spread(material.test, torch.arange(len(material.test)), EXAMPLES)
    generator = torch.Generator(material.device).manual_seed(material.config["seed"])
    try:
        _, source, _ = next(iter(batches(material.test, len(indices), device=material.device, order=indices)))
    except (OSError, ValueError) as error:
        raise Unavailable(str(error)) from error
    with torch.no_grad():
        rows = [[_shown(panel) for panel in row] for row in method.illustrate(source, generator)]
    marks = [panel.mark for row in rows for panel in row if panel.mark in ("hit", "miss")]
    text = f"{len(rows)} examples of the test split, which the method was not trained on."
    if marks:
        text += f" {marks.count('hit')} of {len(marks)} guesses are right (green), the others are not (red, dashed)."
    return Section(text, "panels", rows) if rows else None


def _shown(panel: Panel) -> Tile | Word:
    if isinstance(panel.content, str):
        return Word(panel.content, panel.caption, panel.mark)
    return tile(panel.content, panel.caption, panel.mark)
