"""A picture of augmentation: sources, views of them, and what was done to each."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from sslfast._extras import require
from sslfast._files import replacing
from sslfast.augment import Images, ViewParams, apart
from sslfast.ops import augment
from sslfast.report.figures import TEN
from sslfast.report.pictures import shown

WIDTH, LINE = 2.3, 0.125  # inches: a picture, and a line of text below it
LETTERS = 36  # a line
INK = "#1c2126"
STYLE = {
    "font.size": 7.5,
    "text.parse_math": False,
    "svg.fonttype": "none",
    "figure.facecolor": "white",
    "text.color": INK,
}


def draw_views(
    output: Path,
    sources: Images,
    params: Sequence[ViewParams],
    size: int | tuple[int, int],
    *,
    labels: Sequence[str],
    title: str = "",
) -> None:
    """Write a picture with a row for each source: the source, and beside it a view by each of `params`.

        draw_views(Path("views.png"), images, [sampler.sample(len(images), images.shape[-2:])], 224, labels=names)

    Under a view stands what `ViewParams.describe` says; a frame of the view's colour shows its crop in the source.

    Args:
        output: .png, .jpg, .pdf or .svg.
        sources: (N, C, H, W), or images of different sizes.
        params: one for every column of views, N rows each.
        size: (h, w) of the views in pixels, or one number for both.
        labels: N texts, one for each source.
        title: above it all.
    """
    pixels, own = apart(sources)
    views = [augment(pixels, drawn, size, sizes=own) for drawn in params]
    sizes = [tuple(pixels.shape[-2:])] * len(pixels) if own is None else own.tolist()
    texts = [[_wrapped(f"{label}, {height} x {width} px")] for label, (height, width) in zip(labels, sizes)]
    height, width = max(sizes, key=lambda size: size[0] / size[1])
    for k, row in enumerate(texts):
        row += [_wrapped(drawn.describe(k)) for drawn in params]
    lines = max(text.count("\n") + 1 for row in texts for text in row)
    tallest = max(height / width, views[0].shape[2] / views[0].shape[3]) * WIDTH
    inches = (WIDTH * (1 + len(params)), (tallest + LINE * (lines + 1)) * len(sources) + 0.35)
    with require("matplotlib", extra="train").rc_context(STYLE):
        figure = require("matplotlib.figure", extra="train").Figure(figsize=inches, dpi=110)
        grid = figure.subplots(len(sources), 1 + len(params), squeeze=False)
        edge = 0.05 / inches[0]
        figure.subplots_adjust(edge, LINE * (lines + 1) / inches[1], 1 - edge, 1 - 0.35 / inches[1], 0.05)
        figure.subplots_adjust(hspace=LINE * (lines + 1) / tallest)
        figure.suptitle(title, x=2 * edge, y=1 - 0.1 / inches[1], ha="left", va="top", fontsize=9, weight="bold")
        for k, row in enumerate(grid):
            _picture(row[0], pixels[k, :, : sizes[k][0], : sizes[k][1]], texts[k][0])
            for axes, view, drawn, text, colour in zip(row[1:], views, params, texts[k][1:], _colours(len(params))):
                _picture(axes, view[k], text, colour)
                _box(row[0], drawn.crop[k].tolist(), colour)
        with replacing(output) as temporary:
            figure.savefig(temporary, format=output.suffix[1:].lower())


def _wrapped(text: str) -> str:
    """Lines of at most LETTERS, broken behind a comma that is not in parentheses where they can be."""
    lines = [""]
    for part in re.split(r"(?<=,) (?![^(]*\))", text):
        longer = f"{lines[-1]} {part}".strip()
        lines[-1:] = [longer] if len(longer) <= LETTERS or not lines[-1] else [lines[-1], part]
    return "\n".join(short for line in lines for short in textwrap.wrap(line, LETTERS))


def _picture(axes: Any, pixels: Tensor, text: str, colour: str | None = None) -> None:
    """(C, h, w) with its text below and a frame."""
    picture = shown(pixels.cpu()).permute(1, 2, 0).squeeze(2)
    axes.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest" if len(picture) < 128 else "auto")
    axes.set(xticks=[], yticks=[])
    axes.set_anchor("N")
    axes.spines[:].set(color=colour or INK, linewidth=2 if colour else 0)
    axes.set_title(text, y=0, pad=-5, va="top", fontsize=7.5, linespacing=1.15)


def _box(axes: Any, crop: Sequence[int], colour: str) -> None:
    top, left, height, width = crop
    patch = require("matplotlib.patches", extra="train").Rectangle
    axes.add_patch(patch((left - 0.5, top - 0.5), width, height, fill=False, edgecolor=colour, linewidth=1.6))


def _colours(count: int) -> list[str]:
    return [TEN[k % len(TEN)] for k in range(count)]
