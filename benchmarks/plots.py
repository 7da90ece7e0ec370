"""Dot plots of all cases: a line a case, a dot a peer."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from benchmarks.report import beside

# sslfast is the one in red, and larger.
COLOURS = {
    "eager": "#777777", "torch.compile": "#4477aa", "lightly": "#228833", "Hugging Face": "#ccbb44",
    "timm": "#66ccee", "_foreach_lerp_": "#aa3377", "ema-pytorch": "#ee7733", "Inf-CL": "#332288", "Liger": "#44aa99",
    "torchvision": "#999933", "kornia": "#882255", "triton-augment": "#117733",
    "sslfast": "#cc3355",
}  # fmt: skip
INK, FAINT = "#222222", "#dddddd"


def plot(rows: list[dict], folder: Path, device: str) -> list[Path]:
    """Speed and memory of the cases, and the overhead of a tiny call."""
    timed = [row for row in rows if row["median_ms"]]
    large = [row for row in timed if "(overhead)" not in row["case"]]
    tiny = [row | {"us": f"{1e3 * float(row['median_ms'])}"} for row in timed if row not in large]
    where = f"{timed[0]['processor']}, {timed[0]['threads']} threads{beside(timed[0])}" if timed else ""
    wanted = [
        ("speed", large, "times_eager", f"Times as fast as eager PyTorch, forward and backward\n{where}"),
        ("memory", large, "peak_mib", f"Peak of memory above the inputs, MiB\n{where}"),
        ("overhead", tiny, "us", f"A tiny call, forward and backward: microseconds\n{where}"),
    ]
    made = []
    for name, chosen, column, title in wanted:
        chosen = [row for row in chosen if row[column] and float(row[column]) > 0]
        if chosen:
            made.append(folder / f"{name}-{device}.png")
            dots(chosen, column, title, made[-1])
    return made


def dots(rows: list[dict], column: str, title: str, path: Path) -> None:
    lines = list(dict.fromkeys((row["op"], row["case"]) for row in rows))
    heights, y = {}, 0.0
    for k, line in enumerate(lines):
        y += 1.0 if k and lines[k - 1][0] == line[0] else 1.9  # an op's name stands above its cases
        heights[line] = y
    with mpl.rc_context({"font.size": 9, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(8.5, 1.5 + 0.235 * y), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xscale("log")
        for (op, case), height in heights.items():
            own = {row["peer"]: float(row[column]) for row in rows if (row["op"], row["case"]) == (op, case)}
            axes.plot([min(own.values()), max(own.values())], [height] * 2, color=FAINT, lw=2, zorder=1)
            for peer, value in own.items():
                look = {"s": 62, "zorder": 3} if peer == "sslfast" else {"s": 34, "zorder": 2}
                axes.scatter(value, height, color=COLOURS.get(peer, INK), edgecolor="white", linewidth=0.8, **look)
            if "sslfast" in own:
                axes.annotate(f"{own['sslfast']:.3g}", (1.01, height), xycoords=("axes fraction", "data"), va="center",
                              color=COLOURS["sslfast"], fontweight="bold")  # fmt: skip
        label(axes, heights)
        axes.annotate("sslfast", (1.01, 0.3), xycoords=("axes fraction", "data"), color=COLOURS["sslfast"])
        if column == "times_eager":
            axes.axvline(1, color=COLOURS["eager"], lw=0.8, zorder=0)
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.grid(True, color=FAINT, lw=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_title(title, loc="left", fontsize=10, color=INK)
        legend(figure, rows)
        figure.savefig(path, dpi=130, metadata={"Software": None})


def label(axes: mpl.axes.Axes, heights: dict[tuple[str, str], float]) -> None:
    """The cases at the left, the name of the op above its first one."""
    axes.set_yticks(list(heights.values()), [case.removesuffix(" (overhead)") for _, case in heights])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(max(heights.values()) + 0.8, 0.3)
    seen = set()
    for (op, _), height in heights.items():
        if op not in seen:
            seen.add(op)
            axes.annotate(op, (-0.008, height - 0.88), xycoords=("axes fraction", "data"), ha="right", va="center",
                          fontweight="bold", color=INK)  # fmt: skip


def legend(figure: Figure, rows: list[dict]) -> None:
    peers = [peer for peer in COLOURS if peer in {row["peer"] for row in rows}]
    handles = [mpl.lines.Line2D([], [], marker="o", ls="", color=COLOURS[peer], label=peer) for peer in peers]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
