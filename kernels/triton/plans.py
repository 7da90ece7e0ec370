"""Launch parameters of the contrastive kernels: tiles by chip, and into how many parts the columns go."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from sslfast.kernels.triton.sizes import cdiv, next_power_of_2

# At most so many partial sums forward where the row blocks alone are too few for the chip.
SPLITS = 128
# Least width of a panel of weights; wider inputs get panels as wide as they are.
PANEL_BYTES = 2048
# Features of the weighted sum that a program owns where it cannot own them all.
OWNED_FEATURES = {"wide": 256, "float32": 128}


class Tile(NamedTuple):
    rows: int
    columns: int
    warps: int
    stages: int


# By architecture, kernel, and width of the inputs: up to 128 and 256 features of 16 bits, more of them, and float32.
# All are free of register spills, and siglip_weights has room for the losses beside them; those of sm_80 also fit the
# 99 KiB of shared memory of the smaller chips.
TILES = {
    80: {
        "sums": {
            "128": Tile(64, 128, 4, 3),
            "256": Tile(64, 128, 8, 2),
            "wide": Tile(128, 128, 8, 3),
            "float32": Tile(64, 128, 8, 3),
        },
        "weighted_sums": {
            "128": Tile(64, 64, 4, 3),
            "256": Tile(64, 64, 8, 2),
            "wide": Tile(64, 64, 8, 2),
            "float32": Tile(64, 32, 8, 2),
        },
        "weighted_rows": {"128": Tile(64, 64, 4, 3), "256": Tile(64, 64, 8, 2)},
        "siglip_losses": {"wide": Tile(128, 128, 8, 3), "float32": Tile(64, 128, 8, 3)},
        "siglip_weights": {"wide": Tile(128, 128, 8, 3), "float32": Tile(64, 128, 8, 3)},
        "panel_weights": {"wide": Tile(128, 128, 8, 3), "float32": Tile(64, 128, 8, 3)},
        "add_panel": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 64, 8, 3)},
    },
    90: {
        "sums": {
            "128": Tile(64, 128, 4, 3),
            "256": Tile(128, 128, 8, 2),
            "wide": Tile(128, 128, 8, 3),
            "float32": Tile(128, 64, 8, 3),
        },
        "weighted_sums": {
            "128": Tile(128, 128, 8, 3),
            "256": Tile(128, 64, 8, 3),
            "wide": Tile(128, 64, 8, 3),
            "float32": Tile(64, 32, 8, 2),
        },
        "weighted_rows": {"128": Tile(128, 128, 8, 3), "256": Tile(128, 64, 8, 3)},
        "siglip_losses": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 64, 8, 3)},
        "siglip_weights": {"wide": Tile(128, 64, 8, 3), "float32": Tile(128, 64, 8, 3)},
        "panel_weights": {"wide": Tile(128, 256, 8, 3), "float32": Tile(128, 64, 8, 3)},
        "add_panel": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 64, 8, 3)},
    },
    100: {
        "sums": {
            "128": Tile(128, 128, 8, 3),
            "256": Tile(128, 64, 8, 2),
            "wide": Tile(128, 128, 8, 3),
            "float32": Tile(128, 128, 8, 3),
        },
        "weighted_sums": {
            "128": Tile(128, 64, 8, 3),
            "256": Tile(128, 64, 8, 2),
            "wide": Tile(128, 64, 8, 2),
            "float32": Tile(64, 64, 8, 2),
        },
        "weighted_rows": {"128": Tile(128, 64, 8, 3), "256": Tile(128, 64, 8, 2)},
        "siglip_losses": {"wide": Tile(128, 64, 8, 3), "float32": Tile(128, 128, 8, 3)},
        "siglip_weights": {"wide": Tile(128, 64, 8, 3), "float32": Tile(128, 64, 8, 3)},
        "panel_weights": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 128, 8, 3)},
        "add_panel": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 128, 8, 3)},
    },
}
# Ranks beside weighted sums: the same but on Hopper, where they, or ids with them, leave registers to half the columns.
TILES[80]["ranked_sums"] = TILES[80]["weighted_sums"]
TILES[90]["ranked_sums"] = TILES[90]["weighted_sums"] | {"128": Tile(128, 64, 8, 3), "256": Tile(128, 32, 8, 3)}
TILES[100]["ranked_sums"] = TILES[100]["weighted_sums"]
# Kernels that take their features a part at a time, whatever the width.
BY_PANELS = ("panel_weights", "add_panel", "siglip_losses", "siglip_weights")


@functools.cache
def chip(device: torch.device) -> tuple[int, int]:
    """The architecture whose tiles to use, and the number of multiprocessors; under the interpreter a small Hopper."""
    if device.type != "cuda":
        return 90, 4
    properties = torch.cuda.get_device_properties(device)
    return {9: 90, 10: 100}.get(properties.major, 80), properties.multi_processor_count


class Plan(NamedTuple):
    """Launch parameters of a kernel: its tile, the features a program owns of the result, whether its products are
    wgmma's, and keyword arguments."""

    rows: int
    columns: int
    owned: int
    wgmma: bool
    options: dict[str, int | bool]


@functools.lru_cache(maxsize=256)
def plan(kernel: str, r: int, c: int, d: int, dtype: torch.dtype, device: torch.device) -> Plan:
    fits = dtype != torch.float32 and d <= 256 and kernel not in BY_PANELS
    width = "float32" if dtype == torch.float32 else "wide" if not fits else "256" if d > 128 else "128"
    architecture, _ = chip(device)
    tile = TILES[architecture][kernel][width]
    block = next_power_of_2(d)
    features = max(16, block) if fits else 32 if dtype == torch.float32 else 64
    owned = features if d <= features else min(OWNED_FEATURES[width], block)
    if kernel == "add_panel":
        options = {"BLOCK_K": features, "MASKED": r < tile.rows or c % features != 0}
    else:
        options = {"BLOCK_D": features, "MASK_ROWS": r < tile.rows, "MASK_COLUMNS": c < tile.columns}
    options |= {"D": d, "BLOCK_M": tile.rows, "BLOCK_N": tile.columns}
    options |= {"num_warps": tile.warps, "num_stages": tile.stages}
    return Plan(tile.rows, tile.columns, owned, architecture == 90, options)


def split_columns(programs: int, c: int, block: int, most: int, device: torch.device) -> int:
    """Width of a split of c columns, in whole blocks, so that `programs` times the splits fill the chip once."""
    blocks = cdiv(c, block)
    splits = min(max(1, chip(device)[1] // programs), most, blocks)
    return block * cdiv(blocks, splits)


def panel_width(rows: Tensor) -> int:
    """Columns of a panel of weights (R, width) of these rows (R, D)."""
    return max(PANEL_BYTES // rows.element_size(), 64 * cdiv(rows.shape[1], 64))
