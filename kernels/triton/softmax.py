"""Launches of the streaming softmax: tiles by chip, splits of the columns, and which variants of a kernel."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from sslfast.kernels.triton import softmax_kernels as kernels
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2
from sslfast.kernels.triton.tiles import PLAIN_FROM

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
# All are free of register spills; those of sm_80 also fit the 99 KiB of shared memory of the smaller chips.
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
        "ranked_sums": {
            "128": Tile(64, 64, 4, 3),
            "256": Tile(64, 64, 8, 2),
            "wide": Tile(64, 64, 8, 2),
            "float32": Tile(64, 32, 8, 2),
        },
        "weighted_rows": {"128": Tile(64, 64, 4, 3), "256": Tile(64, 64, 8, 2)},
        "sigmoid_tiles": {"wide": Tile(128, 128, 8, 3), "float32": Tile(64, 128, 8, 3)},
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
        "ranked_sums": {
            "128": Tile(128, 64, 8, 3),
            "256": Tile(128, 64, 8, 3),
            "wide": Tile(128, 64, 8, 3),
            "float32": Tile(64, 32, 8, 2),
        },
        "weighted_rows": {"128": Tile(128, 128, 8, 3), "256": Tile(128, 64, 8, 3)},
        "sigmoid_tiles": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 64, 8, 3)},
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
        "ranked_sums": {
            "128": Tile(128, 64, 8, 3),
            "256": Tile(128, 64, 8, 2),
            "wide": Tile(128, 64, 8, 2),
            "float32": Tile(64, 64, 8, 2),
        },
        "weighted_rows": {"128": Tile(128, 64, 8, 3), "256": Tile(128, 64, 8, 2)},
        "sigmoid_tiles": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 128, 8, 3)},
        "panel_weights": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 128, 8, 3)},
        "add_panel": {"wide": Tile(128, 128, 8, 3), "float32": Tile(128, 128, 8, 3)},
    },
}
# Kernels that take their features a part at a time, whatever the width.
BY_PANELS = ("panel_weights", "add_panel", "sigmoid_tiles")


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


def regimes(temperature: float, tau: Tensor | None, plain_from: float = PLAIN_FROM.value) -> tuple[bool, ...]:
    """Which variants to launch: plain (False) or guarded (True) exponentials; with a tensor both, and one returns."""
    if plain_from == math.inf:
        return (True,)
    return (False, True) if tau is not None else (not temperature >= plain_from,)


def split_columns(programs: int, c: int, block: int, most: int, device: torch.device) -> int:
    """Width of a split of c columns, in whole blocks, so that `programs` times the splits fill the chip once."""
    blocks = cdiv(c, block)
    splits = min(max(1, chip(device)[1] // programs), most, blocks)
    return block * cdiv(blocks, splits)


class Sums(NamedTuple):
    """Of splits of the columns, for combine: partial (2, splits, R), the sums and what they are relative to, or plain
    ones (1, splits, R); weighted (splits, R, D) or None; the temperature from which they are plain."""

    partial: Tensor
    weighted: Tensor | None
    plain_from: float
    closer: Tensor | None = None  # (splits, R) int32, if wanted

    @property
    def rank(self) -> Tensor:
        """How many columns are closer, int64 (R,), or (0,) if not wanted."""
        return self.partial.new_empty(0, dtype=torch.int64) if self.closer is None else self.closer.sum(dim=0)


def streaming_sums(
    rows: Tensor,
    columns: Tensor,
    skip: str,
    temperature: float,
    tau: Tensor | None,
    with_weighted: bool,
    ids: tuple[Tensor | None, Tensor | None] = (None, None),
    plain_from: float = PLAIN_FROM.value,
    positive: Tensor | None = None,
) -> Sums:
    """Sums of exponentials, and of columns weighted by them, over splits of the columns; but of pairs of one id.

    plain_from: infinite for products that are no cosines. positive (R,): count the columns that are closer than that.
    """
    (r, d), c = rows.shape, len(columns)
    kernel = "sums" if not with_weighted else "weighted_sums" if positive is None else "ranked_sums"
    schedule = plan(kernel, r, c, d, rows.dtype, rows.device)
    owned = schedule.owned if with_weighted else d
    row_blocks, feature_blocks = cdiv(r, schedule.rows), cdiv(d, owned)
    width = split_columns(row_blocks * feature_blocks, c, schedule.columns, SPLITS, rows.device)
    splits = cdiv(c, width)
    # float16 cannot hold the weights exp(s) at any temperature, only those relative to the highest.
    plain_from = math.inf if with_weighted and rows.dtype == torch.float16 else plain_from
    variants = regimes(temperature, tau, plain_from)
    partial = torch.empty(2 if True in variants else 1, splits, r, dtype=torch.float32, device=rows.device)
    weighted = partial.new_empty(splits, r, d) if with_weighted else None
    closer = None if positive is None else partial.new_empty(splits, r, dtype=torch.int32)
    for guarded in variants:
        kernels.streaming_sums[(row_blocks, splits, feature_blocks)](
            rows, columns, *ids, partial, weighted, positive, closer, r, c, width, temperature, tau, plain_from,
            SKIP=skip, GUARDED=guarded, WGMMA=schedule.wgmma, BLOCK_F=schedule.owned, **schedule.options,
        )  # fmt: skip
    return Sums(partial, weighted, plain_from, closer)


def combine(
    sums: Sums, positive: Tensor | None, temperature: float, tau: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor, Tensor | None]:
    """(losses, shift, inverse sum, mean) with the cosines of positive pairs, else (None, shift, sum, weighted sum)."""
    partial, weighted, plain_from, _ = sums
    _, splits, r = partial.shape
    losses = None if positive is None else partial.new_empty(r)
    shift, total = partial.new_empty(r), partial.new_empty(r)
    n = r if positive is None else len(positive)
    mean, d, block, chunk, rows = None, 1, 1, 1, 32
    if weighted is not None:
        d = weighted.shape[2]
        mean = partial.new_empty(r, d)
        block = next_power_of_2(d)
        chunk = min(next_power_of_2(splits), 16, max(1, 2048 // block))  # splits in flight at once
        rows = min(32, max(1, 2048 // (chunk * block)))
    kernels.combine_splits[(cdiv(r, rows),)](
        partial, weighted, positive, losses, shift, total, mean, r, n, splits, temperature, tau, plain_from,
        D=d, SPLITS=next_power_of_2(splits), CHUNK=chunk, ROWS=rows, BLOCK_D=block,
    )  # fmt: skip
    return losses, shift, total, mean


class Factors(NamedTuple):
    """Of W_ij = exp((c_ij − row_shift_i)/τ)·row_i + exp((c_ij − column_shift_j)/τ)·column_j; a part may be None."""

    row: Tensor | None
    row_shift: Tensor | None
    column: Tensor | None
    column_shift: Tensor | None
    row_ids: Tensor | None = None  # pairs of the same id have no weight
    column_ids: Tensor | None = None


def relative_factors(
    grad: Tensor,
    shift: Tensor,
    inverse_sum: Tensor | None,
    largest: Tensor | None,
    temperature: float,
    tau: Tensor | None,
    plain_from: float = PLAIN_FROM.value,
) -> Tensor:
    """grad (M,), times inverse_sum, as weighted_sums takes it; largest: a bound of its size, for float16."""
    factors = torch.empty_like(shift)
    kernels.relative_factors[(cdiv(len(shift), 256),)](
        grad, grad.stride(0), shift, inverse_sum, largest, factors, len(shift), temperature, tau, plain_from, ROWS=256
    )
    return factors


def weighted_sums(
    factors: Factors,
    rows: Tensor,
    columns: Tensor,
    skip: str,
    temperature: float,
    tau: Tensor | None,
    most: int,
    plain_from: float = PLAIN_FROM.value,
) -> Tensor:
    """W·columns as (splits, R, D) to be added, at most so many splits."""
    by_panels = rows.dtype == torch.float32 or rows.shape[1] > 256
    if by_panels:
        return _sums_by_panels(factors, rows, columns, skip, temperature, tau, plain_from)
    return _sums_by_rows(factors, rows, columns, skip, temperature, tau, most, plain_from)


def _sums_by_rows(
    factors: Factors,
    rows: Tensor,
    columns: Tensor,
    skip: str,
    temperature: float,
    tau: Tensor | None,
    most: int,
    plain_from: float,
) -> Tensor:
    """Rows in registers, and their columns split until they fill the chip."""
    (r, d), c = rows.shape, len(columns)
    schedule = plan("weighted_rows", r, c, d, rows.dtype, rows.device)
    row_blocks = cdiv(r, schedule.rows)
    width = split_columns(row_blocks, c, schedule.columns, most, rows.device)
    du = torch.empty(cdiv(c, width), r, d, dtype=torch.float32, device=rows.device)
    for guarded in regimes(temperature, tau, plain_from):
        kernels.weighted_rows[(row_blocks, len(du))](
            *factors, rows, columns, du, r, c, width, temperature, tau, plain_from,
            SKIP=skip, GUARDED=guarded, WGMMA=schedule.wgmma, **schedule.options,
        )  # fmt: skip
    return du


def _sums_by_panels(
    factors: Factors,
    rows: Tensor,
    columns: Tensor,
    skip: str,
    temperature: float,
    tau: Tensor | None,
    plain_from: float,
) -> Tensor:
    """Where the rows do not fit in registers: W in panels of its columns."""
    (r, d), c = rows.shape, len(columns)
    schedule = plan("panel_weights", r, c, d, rows.dtype, rows.device)
    product = plan("add_panel", r, c, d, rows.dtype, rows.device)
    width = max(PANEL_BYTES // rows.element_size(), 64 * cdiv(d, 64))
    weights = rows.new_empty(r, width)
    du = torch.empty(1, r, d, dtype=torch.float32, device=rows.device)
    for panel in range(0, c, width):
        grid = (cdiv(min(width, c - panel), schedule.columns), cdiv(r, schedule.rows))
        for guarded in regimes(temperature, tau, plain_from):
            kernels.panel_weights[grid](
                *factors, rows, columns, weights, panel, r, c, temperature, tau, plain_from,
                WIDTH=width, SKIP=skip, GUARDED=guarded, **schedule.options,
            )  # fmt: skip
        grid = (cdiv(r, product.rows), cdiv(d, product.columns))
        kernels.add_panel[grid](weights, columns, du, panel, r, c, WIDTH=width, **product.options)
    return du


def temperature_gradient(radial: Tensor | None, share: float, tau: Tensor | None, device: torch.device) -> Tensor:
    """−share·Σ radial / τ, 0-dim; of a plain number, to which there is no gradient, undefined and nothing launched."""
    dtau = torch.empty((), dtype=torch.float32, device=device)
    if tau is not None:
        kernels.temperature_gradient[(1,)](radial, dtau, radial.numel(), share, tau, BLOCK=1024)
    return dtau
