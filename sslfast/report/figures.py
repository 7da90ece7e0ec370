"""A report's figures: matplotlib in, SVG out that takes the page's font and its light or dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from sslfast._extras import require

# Three colours that the page's style sheet gives their values, so that one figure serves light and dark.
INK, LINE, PAGE = "#010102", "#020203", "#030304"
BLUE, GRAY = "#4a86c5", "#8c95a1"
# Ten that differ for colour-blind readers too, on white and on black (Petroff 2021, https://arxiv.org/abs/2107.02270).
TEN = ("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
STYLE = {
    "figure.figsize": (4.4, 2.8),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
}
DASHES = ("-", "--", ":", "-.")
SLANTED = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
MOST_POINTS = 800  # of a curve; more are averaged


def curve(
    x: Sequence[float],
    y: Sequence[float],
    *,
    label: str,
    levels: dict[str, float] | None = None,
    markers: bool = False,
    zero: bool = False,
    end: float | None = None,
) -> str:
    """A line over epochs 0 to `end`, and named horizontal levels to compare it with; `zero` starts its axis at 0."""
    with _style():
        figure, axes = _axes()
        x, y = _thinned(np.asarray(x, float)), _thinned(np.asarray(y, float))
        axes.plot(x, y, color=BLUE, marker="o" if markers or len(x) == 1 else None, markersize=4)
        for (name, level), dashes in zip((levels or {}).items(), ("--", ":", "-.")):
            axes.axhline(level, color=GRAY, linestyle=dashes, linewidth=1.2, label=name)
        if levels:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(levels), fontsize=8.5)
        if zero:
            axes.set_ylim(0, 1.08 * max(y.max(), np.finfo(float).tiny))
        axes.set_xlim(0, 1.02 * (end or x.max() or 1))
        axes.set(xlabel="epoch", ylabel=label)
        return _svg(figure, f"{label} over epochs")


def curves(
    lines: dict[str, tuple[Sequence[float], Sequence[float]]], *, label: str, strokes: dict[str, tuple[int, int]]
) -> str:
    """Several lines over epochs, by name their (x, y), and by name the number of a colour and of dashes."""
    with _style(**{"figure.figsize": (8.8, max(3.2, 0.5 + 0.19 * len(lines)))}):
        figure, axes = _axes()
        for name, (x, y) in lines.items():
            points = _thinned(np.asarray(x, float)), _thinned(np.asarray(y, float))
            colour, dashes = strokes[name]
            turns, colour = divmod(colour, len(TEN))
            options = {"color": TEN[colour], "linestyle": DASHES[(turns + dashes) % len(DASHES)], "label": name}
            axes.plot(*points, marker="o" if len(points[0]) < 20 else None, markersize=3, **options)
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
        axes.set_xlim(left=0)
        axes.set(xlabel="epoch", ylabel=label)
        return _svg(figure, f"{label} over epochs")


def few_labels(lines: dict[str, tuple[Sequence[int], Sequence[float], Sequence[float]]]) -> str:
    """Accuracies in per cent over labels a class: by name the (n, means, standard deviations)."""
    with _style():
        figure, axes = _axes()
        for (name, (n, means, stds)), dashes in zip(lines.items(), DASHES):
            colour = BLUE if dashes == "-" else GRAY
            options = {"color": colour, "ecolor": colour, "linestyle": dashes, "marker": "o", "markersize": 4}
            axes.errorbar(n, means, stds, label=name, capsize=3, **options)
        axes.set_xscale("log")
        axes.set_xticks(n, [str(count) for count in n])
        axes.minorticks_off()
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.16), ncols=len(lines), fontsize=8.5)
        axes.set(xlabel="labels a class", ylabel="accuracy (%)")
        return _svg(figure, "accuracy over labels a class")


def scatter(points: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> str:
    """A map (N, 2) with a colour for each class, and a legend of up to 20."""
    with _style(**{"figure.figsize": (5.6, 5.2), "axes.grid": False}):
        figure, axes = _axes()
        colours = _colours(len(classes) or 1)
        for k, name in enumerate(classes or [""]):
            chosen = points[labels == k]
            axes.scatter(chosen[:, 0], chosen[:, 1], s=11, color=colours[k], alpha=0.85, linewidths=0, label=name)
            if len(classes) <= 20 and len(chosen):
                halo = require("matplotlib.patheffects", extra="train").withStroke(linewidth=3, foreground=PAGE)
                axes.text(*np.median(chosen, axis=0), name, ha="center", weight="bold", path_effects=[halo])
        axes.set(xticks=[], yticks=[], xlabel="t-SNE, first dimension", ylabel="t-SNE, second dimension")
        if 0 < len(classes) <= 20:
            legend = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.06), "ncols": 5, "markerscale": 1.8}
            axes.legend(**legend, handletextpad=0.1, columnspacing=1.2)
        return _svg(figure, f"t-SNE map of {len(points)} features, coloured by {len(classes)} classes")


def confusion(counts: np.ndarray, classes: Sequence[str]) -> str:
    """A confusion matrix: rows are true classes, columns predicted; shaded by the share of the row."""
    size = len(classes)
    with _style(**{"figure.figsize": (5.6, 5.2), "axes.grid": False}):
        figure, axes = _axes()
        share = counts / counts.sum(axis=1, keepdims=True).clip(1)
        patch = require("matplotlib.patches", extra="train").Rectangle
        for row, column in np.argwhere(counts > 0):
            shade = 0.08 + 0.72 * share[row, column]
            axes.add_patch(patch((column - 0.5, row - 0.5), 1, 1, facecolor=BLUE, alpha=shade, linewidth=0))
            axes.text(column, row, str(counts[row, column]), ha="center", va="center", fontsize=8 if size <= 12 else 6)
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.set_xticks(range(size), classes, **({} if max(map(len, classes)) <= 2 else SLANTED))
        axes.set_yticks(range(size), classes)
        axes.tick_params(length=0)
        return _svg(figure, f"confusion matrix of {size} classes")


def _style(**more: Any) -> Any:
    return require("matplotlib", extra="train").rc_context({**STYLE, **more})


def _axes() -> tuple[Any, Any]:
    """A figure and its axes; without pyplot, so that no state is left behind and no window is asked for."""
    figure = require("matplotlib.figure", extra="train").Figure(layout="constrained")
    return figure, figure.subplots()


def _svg(figure: Any, title: str) -> str:
    """The figure as an <svg> element for an HTML page, with its title for those who cannot see it."""
    buffer = io.StringIO()
    with require("matplotlib", extra="train").rc_context({"svg.hashsalt": title}):  # no random names in it
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"""font: ((?:\w+ )*[\d.]+px) [^;"]*""", r"font: \1 var(--font)", svg)
    svg = re.sub(r"""font-family: [^;"]*""", "font-family: var(--font)", svg)
    svg = svg.replace(INK, "var(--ink)").replace(LINE, "var(--line)").replace(PAGE, "var(--page)")
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()
    opening = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}">'
    return opening + svg[svg.index(">") + 1 :]


def _thinned(values: np.ndarray) -> np.ndarray:
    """At most MOST_POINTS means of neighbours."""
    return np.array([part.mean() for part in np.array_split(values, min(len(values), MOST_POINTS))])


def _colours(classes: int) -> Sequence[Any]:
    if classes <= 10:
        return TEN
    colormaps = require("matplotlib", extra="train").colormaps
    return colormaps["tab20"].colors if classes <= 20 else colormaps["hsv"](np.linspace(0, 1, classes, endpoint=False))
