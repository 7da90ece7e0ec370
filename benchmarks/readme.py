"""The figures of speed in README.md, from benchmarks/results: `python benchmarks/readme.py` writes them anew."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.append(str(ROOT))
from benchmarks.report import read  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"

# What the table calls a case -> (op, case).
CASES = {
    "`nt_xent`, 512 views": ("nt_xent", "M=512 D=128"),
    "`nt_xent`, 2048 views": ("nt_xent", "M=2048 D=128"),
    "`nt_xent`, 8192 views": ("nt_xent", "M=8192 D=128"),
    "`nt_xent`, 8192 views in bfloat16": ("nt_xent", "M=8192 D=128 bfloat16"),
    "`info_nce`, 256 queries, a queue of 65536": ("info_nce", "N=256 K=65536 D=128"),
    "`info_nce`, 4096 in the batch": ("info_nce", "N=4096 D=128 in-batch"),
    "`clip_loss`, 4096 pairs of width 512": ("clip_loss", "N=4096 D=512"),
    "`siglip_loss`, 4096 pairs of width 512": ("siglip_loss", "N=4096 D=512"),
    "`negative_cosine_similarity`, 4096 x 2048": ("negative_cosine_similarity", "N=4096 D=2048"),
    "`ema_update_`, ResNet-50": ("ema_update", "ResNet-50"),
    "the same from a bfloat16 model": ("ema_update", "ResNet-50 bfloat16"),
    "random mask and `gather_tokens`, 64 x 196 x 768": ("masking", "B=64 L=196 D=768"),
    "`restore_tokens`, 64 x 196 x 512": ("restore_tokens", "B=64 L=196 D=512"),
    "`masked_patch_loss`, 64 images of 224 px": ("masked_patch_loss", "B=64 224 px"),
    "`gather_patches` and a linear layer, against embedding all patches": ("patch_embed", "B=64 224 px D=768"),
    "`augment`, SimCLR, 64 images of 256 to 224 px": ("augment", "B=64 256 to 224 px SimCLR"),
    "`augment`, SimCLR for CIFAR, 256 images of 32 px": ("augment", "B=256 32 to 32 px SimCLR"),
}
FIRST = [
    "`nt_xent`, 8192 views",
    "`masked_patch_loss`, 64 images of 224 px",
    "`augment`, SimCLR, 64 images of 256 to 224 px",
]  # of the short table
HEAD, MAE, SIMCLR = (
    "NT-Xent, a head of two layers on 2 x 4096 features of 512",
    "MAE, vit_micro_patch16, 64 images of 256 to 224 px",
    "SimCLR, resnet20, 256 images of 32 px",
)  # the steps of train_speed.py
OWN = ("eager", "torch.compile", "sslfast")


def measured(title: str) -> dict[str, dict[str, str]]:
    """peer -> its row, of the peers that got a time."""
    op, case = CASES[title]
    rows = read(RESULTS / f"{op}-cpu.csv")
    return {row["peer"]: row for row in rows if row["case"] == case and row["median_ms"]}


def machine() -> str:
    row = measured(FIRST[0])["sslfast"]
    return f"{row['threads']} threads of an {row['processor']}"


def figure(number: str) -> str:
    """Three digits."""
    value = float(number)
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def short_table() -> str:
    lines = [
        f"| {machine()}, forward and backward, float32 | eager PyTorch | sslfast | times faster "
        "| memory, eager | sslfast |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for title in FIRST:
        peers = measured(title)
        eager, own = peers["eager"], peers["sslfast"]
        lines.append(
            f"| {title} | {figure(eager['median_ms'])} ms | **{figure(own['median_ms'])} ms** "
            f"| {figure(own['times_eager'])} | {figure(eager['peak_mib'])} MiB | {figure(own['peak_mib'])} MiB |"
        )
    return "\n".join(lines)


def full_table() -> str:
    lines = [
        f"| {machine()}, float32 | eager | torch.compile | best library | sslfast | times eager "
        "| MiB: eager | sslfast |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for title in CASES:
        peers = measured(title)
        eager, own = peers["eager"], peers["sslfast"]
        compiled = f"{figure(peers['torch.compile']['median_ms'])} ms" if "torch.compile" in peers else ""
        libraries = {name: row for name, row in peers.items() if name not in OWN}
        best = min(libraries, key=lambda name: float(libraries[name]["median_ms"]), default=None)
        library = f"{figure(libraries[best]['median_ms'])} ms {best}" if best else ""
        lines.append(
            f"| {title} | {figure(eager['median_ms'])} ms | {compiled} | {library} | **{figure(own['median_ms'])} ms** "
            f"| {figure(own['times_eager'])} | {figure(eager['peak_mib'])} | {figure(own['peak_mib'])} |"
        )
    return "\n".join(lines)


def steps() -> str:
    """What whole training steps take, in one line."""
    rows = {(row["case"], row["peer"]): float(row["median_ms"]) for row in read(RESULTS / "train_speed-cpu.csv")}

    def of(case: str) -> str:
        return f"{rows[case, 'eager'] / 1e3:.2f} to {rows[case, 'sslfast'] / 1e3:.2f} s"

    return (
        f"**A whole training step** goes from {of(HEAD)} with a loss over 8192 embeddings, from {of(MAE)} with a "
        f"small MAE, but only from {of(SIMCLR)} where the network takes the time "
        "([steps](benchmarks/README.md#whole-steps))."
    )


def with_tables(text: str) -> str:
    """The README with both tables and the line of steps as the results have them, between their marks."""
    for name, found in (("short", f"{short_table()}\n\n{steps()}"), ("full", full_table())):
        marks = re.compile(rf"(<!-- speed: {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        text, count = marks.subn(lambda match, found=found: match[1] + found + match[2], text)
        if count != 1:
            raise ValueError(f"README.md must have the marks of the table {name!r} once, has them {count} times")
    return text


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
