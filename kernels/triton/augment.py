"""Augmentation on the GPU: a program takes blocks of rows of the views, all steps of which stay in its registers.

Up to three launches, of which each passes over the views that do not need it: sums of what the contrast takes as its
gray, made from the source up to that step; the views without blur; those with blur. No view is stored but finished.
Device memory: the crop read once, or twice with contrast, and the view written once. A resampling is separable: rows
of the source are added up to a strip, from which a pixel takes columns; cubic and not shrinking, C channels, that is
4·C multiplications for each column of the crop and 4·C a pixel. A block of a blurred view is made with the rows that
the blur needs around it, blurred across as it is made and then downwards, 2·C·(2·radius + 1) multiplications a pixel.
What goes from thread to thread goes through a scratch of the program's own: its size depends on the chip and the
shapes, not on the batch. In it a strip lies column by column, and a thread loads four of its rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sslfast.kernels.triton.augment_steps import CONTRAST, adjust, clamp01, cut, luma, resampling
from sslfast.kernels.triton.patches import compact
from sslfast.kernels.triton.sizes import cdiv, next_power_of_2

JITTERS = ("brightness", "contrast", "saturation", "hue")  # the first two of them without colours
REACH = tl.constexpr(6.4)  # in σ: taps of the blur from there on are below 2e-9 of the first
PIXELS = 2048  # of a view at a time
THREAD = 8  # of them in a thread
BLOCK = 64  # rows of a view at most that a program makes with one set of weights
PROGRAMS = 2  # on a multiprocessor


# Before 3.7 Triton takes more invariants out of the loop over rows than registers hold.
SPILLS_INVARIANTS = tl.constexpr(tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7))


@triton.jit
def _load(pointers, mask, plane, C: tl.constexpr):
    """The three planes, the first at the pointers; a view of one channel is its own green and blue."""
    red = tl.load(pointers, mask=mask).to(tl.float32)
    if C == 1:
        return red, red, red
    else:
        green, blue = tl.load(pointers + plane, mask=mask), tl.load(pointers + 2 * plane, mask=mask)
        return red, green.to(tl.float32), blue.to(tl.float32)


@triton.jit
def _store(pointers, mask, plane, red, green, blue, C: tl.constexpr):
    tl.store(pointers, red.to(pointers.dtype.element_ty), mask=mask)
    if C == 3:
        tl.store(pointers + plane, green.to(pointers.dtype.element_ty), mask=mask)
        tl.store(pointers + 2 * plane, blue.to(pointers.dtype.element_ty), mask=mask)


@triton.jit
def _resample(
    image, plane_stride, row_stride, column_stride, width, top, left, box_height, box_width,
    down, row_count, across, column_count, strip, row,
    C: tl.constexpr, BICUBIC: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, DOWN: tl.constexpr,
    STRIDE: tl.constexpr,
):  # fmt: skip
    """ROWS rows of a view, (ROWS, LANES) each plane, from the one on whose taps are in column `row` of `down`."""
    lanes = tl.arange(0, LANES)
    rows = tl.arange(0, ROWS)
    first_row = tl.load(down + row + rows).to(tl.int32)
    start = left // 16 * 16  # aligned, so that neighbouring bytes are loaded together
    for column in range(start, left + box_width, LANES):
        columns = column + lanes
        mask = ((columns < (left + box_width + 15) // 16 * 16) & (columns < width))[None, :]
        red = tl.zeros((ROWS, LANES), tl.float32)
        green, blue = red, red
        for t in range(row_count):
            weight = tl.load(down + (1 + t) * DOWN + row + rows)[:, None]
            source_row = top + tl.minimum(tl.maximum(first_row + t, 0), box_height - 1)
            pointers = image + (source_row * row_stride)[:, None] + (columns * column_stride)[None, :]
            r, g, b = _load(pointers, mask, plane_stride, C)
            red, green, blue = red + weight * r, green + weight * g, blue + weight * b
        pointers = strip + rows[:, None] + ((columns - start) * ROWS)[None, :]
        _store(pointers, mask, ROWS * STRIDE, red, green, blue, C)
    tl.debug_barrier()
    first_column = tl.load(across + lanes).to(tl.int32)
    red = tl.zeros((ROWS, LANES), tl.float32)
    green, blue = red, red
    for t in range(column_count):
        weight = tl.load(across + (1 + t) * LANES + lanes)[None, :]
        taken = left - start + tl.minimum(tl.maximum(first_column + t, 0), box_width - 1)
        r, g, b = _load(strip + rows[:, None] + (taken * ROWS)[None, :], None, ROWS * STRIDE, C)
        red, green, blue = red + weight * r, green + weight * g, blue + weight * b
    tl.debug_barrier()
    if BICUBIC:  # the cubic overshoots at edges
        red, green, blue = clamp01(red), clamp01(green), clamp01(blue)
    return red, green, blue


@triton.jit
def _blur(
    planes, mask, plane, i, step, length: tl.constexpr, j, taps, radius,
    C: tl.constexpr, ZEROS: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Σ_t taps[|t|]·x[i + t] of lines `length` long, elements `step` apart; j tells the lines."""
    red = tl.zeros((ROWS, LANES), tl.float32)
    green, blue = red, red
    for t in range(-radius, radius + 1):
        tap = tl.load(taps + tl.abs(t))
        at = tl.abs(i + t)
        at = tl.minimum(at, 2 * (length - 1) - at)  # reflected
        if ZEROS:
            tap = tl.where((i + t >= 0) & (i + t < length), tap, 0.0)
        r, g, b = _load(planes + at * step + j, mask, plane, C)
        red, green, blue = red + tap * r, green + tap * g, blue + tap * b
    return red, green, blue


@triton.jit
def _finish(
    view, y, stop, red, green, blue, solarize, red_scale, green_scale, blue_scale, red_shift, green_shift, blue_shift,
    h: tl.constexpr, w: tl.constexpr, C: tl.constexpr, SOLARIZE: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    """Solarizes, normalises and stores rows y to `stop`."""
    if SOLARIZE:
        threshold = tl.load(solarize)
        red = tl.where(red >= threshold, 1.0 - red, red)
        green = tl.where(green >= threshold, 1.0 - green, green)
        blue = tl.where(blue >= threshold, 1.0 - blue, blue)
    rows, lanes = y + tl.arange(0, ROWS)[:, None], tl.arange(0, LANES)[None, :]
    mask = (rows < stop) & (lanes < w)
    red, green, blue = red_scale * red + red_shift, green_scale * green + green_shift, blue_scale * blue + blue_shift
    _store(view + rows * w + lanes, mask, h * w, red, green, blue, C)


@triton.jit
def _mean(sums, BLOCKS: tl.constexpr, PIXELS: tl.constexpr, PARTS: tl.constexpr):
    parts = tl.arange(0, PARTS)
    return tl.sum(tl.load(sums + parts, mask=parts < BLOCKS, other=0.0)) / PIXELS


@triton.jit
def _views(
    images, image_stride, plane_stride, row_stride, column_stride, height, width,
    sizes, crop, flip, jitter, order, grayscale, blur, solarize,
    red_scale, green_scale, blue_scale, red_shift, green_shift, blue_shift,
    views, sums, scratch, scratch_stride, items,
    h: tl.constexpr, w: tl.constexpr, C: tl.constexpr, JITTERS: tl.constexpr, GRAYSCALE: tl.constexpr,
    SOLARIZE: tl.constexpr, BICUBIC: tl.constexpr, SIMCLR: tl.constexpr, RADIUS: tl.constexpr, BLOCK: tl.constexpr,
    ROWS: tl.constexpr, LANES: tl.constexpr, DOWN: tl.constexpr, STRIDE: tl.constexpr, ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr, TAPS: tl.constexpr, PARTS: tl.constexpr, SUM: tl.constexpr,
    BLURRED: tl.constexpr,
):  # fmt: skip
    """Block after block of rows: of the views, or with SUM the sums of what their contrast gets."""
    BLOCKS: tl.constexpr = (h + BLOCK - 1) // BLOCK
    MEANS: tl.constexpr = C if SIMCLR else 1
    across = scratch + tl.program_id(0).to(tl.int64) * scratch_stride  # (1 + COLUMN_TAPS, LANES)
    down = across + (1 + COLUMN_TAPS) * LANES  # (1 + ROW_TAPS, DOWN)
    strip = down + (1 + ROW_TAPS) * DOWN  # (C, ROWS, STRIDE)
    taps = strip + C * ROWS * STRIDE  # (TAPS)
    blurred = taps + TAPS  # (C, BLOCK + 2 · RADIUS, w)
    PLANE: tl.constexpr = (BLOCK + 2 * RADIUS) * w
    lanes = tl.arange(0, LANES)
    x = tl.minimum(lanes, w - 1)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        i, block = item // BLOCKS, item % BLOCKS
        jitters, orders = jitter + 4 * i, order + 4 * i
        has_contrast = (JITTERS & 2 != 0) & (tl.load(jitters + CONTRAST) != 1.0)
        radius = 0
        if RADIUS > 0:
            sigma = tl.load(blur + i)
            reach = REACH * sigma
            radius = tl.where(sigma <= 0.0, 0, tl.where(reach < RADIUS, reach, RADIUS).to(tl.int32))
        if SUM:
            wanted = has_contrast
        else:
            wanted = (radius > 0) == BLURRED
        if wanted:
            own_height, own_width = height, width
            if sizes is not None:
                own_height = tl.minimum(tl.maximum(tl.load(sizes + 2 * i), 1), height)
                own_width = tl.minimum(tl.maximum(tl.load(sizes + 2 * i + 1), 1), width)
            top, box_height = cut(tl.load(crop + 4 * i), tl.load(crop + 4 * i + 2), own_height)
            left, box_width = cut(tl.load(crop + 4 * i + 1), tl.load(crop + 4 * i + 3), own_width)
            image = images + tl.cast(i, tl.int64) * image_stride

            y0 = block * BLOCK
            y1 = tl.minimum(y0 + BLOCK, h)
            low, high = y0, y1
            if BLURRED:
                low, high = tl.maximum(y0 - radius, 0), tl.minimum(y1 + radius, h)
                t = tl.arange(0, TAPS)
                distance = t.to(tl.float32) / sigma
                tap = tl.where(t <= RADIUS, tl.exp(-0.5 * distance * distance), 0.0)
                tl.store(taps + t, tap / (2.0 * tl.sum(tap) - 1.0))

            row_count = resampling(
                down, tl.minimum(low + tl.arange(0, DOWN), h - 1), box_height, h, 255.0, DOWN, BICUBIC, not SIMCLR
            )
            mirrored = tl.where(tl.load(flip + i), w - 1 - x, x)
            column_count = resampling(across, mirrored, box_width, w, 1.0, LANES, BICUBIC, not SIMCLR)
            tl.debug_barrier()

            count, red_mean, green_mean, blue_mean = 4, 0.0, 0.0, 0.0
            if SUM:
                k = tl.arange(0, 4)
                count = tl.sum(tl.where(tl.load(orders + k) == CONTRAST, k, 0))
            elif has_contrast:
                red_mean = _mean(sums + i * MEANS * BLOCKS, BLOCKS, h * w, PARTS)
                green_mean, blue_mean = red_mean, red_mean
                if MEANS == 3:
                    green_mean = _mean(sums + (i * MEANS + 1) * BLOCKS, BLOCKS, h * w, PARTS)
                    blue_mean = _mean(sums + (i * MEANS + 2) * BLOCKS, BLOCKS, h * w, PARTS)
            red_sum = tl.zeros((ROWS, LANES), tl.float32)
            green_sum, blue_sum = red_sum, red_sum
            view = views + tl.cast(i, tl.int64) * (C * h * w)

            for y in tl.range(low, high, ROWS, disable_licm=SPILLS_INVARIANTS):
                red, green, blue = _resample(
                    image, plane_stride, row_stride, column_stride, width, top, left, box_height, box_width,
                    down, row_count, across, column_count, strip, y - low,
                    C, BICUBIC, ROWS, LANES, DOWN, STRIDE,
                )  # fmt: skip
                red, green, blue = adjust(
                    red, green, blue, jitters, orders, count, red_mean, green_mean, blue_mean, C, JITTERS, SIMCLR
                )
                rows = y + tl.arange(0, ROWS)[:, None]
                mask = (rows < high) & (lanes < w)[None, :]
                if SUM:
                    if MEANS == 1:
                        red_sum += tl.where(mask, luma(red, green, blue, C), 0.0)
                    else:
                        red_sum += tl.where(mask, red, 0.0)
                        green_sum += tl.where(mask, green, 0.0)
                        blue_sum += tl.where(mask, blue, 0.0)
                else:
                    if GRAYSCALE and C == 3:
                        gray, is_gray = luma(red, green, blue, C), tl.load(grayscale + i)
                        red, green = tl.where(is_gray, gray, red), tl.where(is_gray, gray, green)
                        blue = tl.where(is_gray, gray, blue)
                    if BLURRED:
                        lines = tl.arange(0, ROWS)[:, None]
                        _store(strip + lines + lanes[None, :] * ROWS, mask, ROWS * STRIDE, red, green, blue, C)
                        tl.debug_barrier()
                        red, green, blue = _blur(
                            strip, None, ROWS * STRIDE, x[None, :], ROWS, w, lines, taps, radius,
                            C, SIMCLR, ROWS, LANES,
                        )  # fmt: skip
                        tl.debug_barrier()
                        _store(blurred + (rows - low) * w + lanes[None, :], mask, PLANE, red, green, blue, C)
                    else:
                        _finish(
                            view, y, y1, red, green, blue, solarize + i,
                            red_scale, green_scale, blue_scale, red_shift, green_shift, blue_shift,
                            h, w, C, SOLARIZE, ROWS, LANES,
                        )  # fmt: skip

            if SUM:
                tl.store(sums + i * MEANS * BLOCKS + block, tl.sum(red_sum))
                if MEANS == 3:
                    tl.store(sums + (i * MEANS + 1) * BLOCKS + block, tl.sum(green_sum))
                    tl.store(sums + (i * MEANS + 2) * BLOCKS + block, tl.sum(blue_sum))
            if BLURRED:
                tl.debug_barrier()
                for y in range(y0, y1, ROWS):
                    rows = tl.minimum(y + tl.arange(0, ROWS), y1 - 1)[:, None]
                    red, green, blue = _blur(
                        blurred - low * w, lanes[None, :] < w, PLANE, rows, w, h, lanes[None, :], taps, radius,
                        C, SIMCLR, ROWS, LANES,
                    )  # fmt: skip
                    _finish(
                        view, y, y1, red, green, blue, solarize + i,
                        red_scale, green_scale, blue_scale, red_shift, green_shift, blue_shift,
                        h, w, C, SOLARIZE, ROWS, LANES,
                    )  # fmt: skip
                tl.debug_barrier()


def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _taps(source: int, target: int, bicubic: bool, antialias: bool) -> int:
    """So many pixels of the source, or a few less, go into one of the target; rounded up, for fewer compilations."""
    taps = (4 if bicubic else 2) * (max(1, source / target) if antialias else 1)
    return 4 * cdiv(int(taps) + 2, 4)


def augment(
    images: Tensor,
    sizes: Tensor | None,
    crop: Tensor,
    flip: Tensor,
    jitter: Tensor,
    order: Tensor,
    grayscale: Tensor,
    blur: Tensor,
    solarize: Tensor,
    size: Sequence[int],
    steps: Sequence[str],
    bicubic: bool,
    mode: str,
    blur_radius: int,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype,
) -> Tensor:
    images = compact(images)
    batch, channels, height, width = images.shape
    h, w = size
    simclr, radius = mode == "simclr", blur_radius if "blur" in steps else 0
    blocks = cdiv(h, BLOCK)
    block = cdiv(h, blocks)
    lanes = max(16, next_power_of_2(w))
    rows = min(max(1, PIXELS // lanes), next_power_of_2(block))
    down = max(16, next_power_of_2(block + 2 * radius))
    stride = max(256 * cdiv(width, 256) + 32, lanes)  # the widths of padded batches share their compilations
    row_taps, column_taps = _taps(height, h, bicubic, not simclr), _taps(width, w, bicubic, not simclr)
    room = (1 + column_taps) * lanes + (1 + row_taps) * down + channels * rows * stride
    taps = max(16, next_power_of_2(radius + 1))
    room += taps + channels * (block + 2 * radius) * w if radius else 0
    room = 16 * cdiv(room, 16)
    warps = max(1, min(32, rows * lanes // THREAD // 32))
    programs = min(batch * blocks, PROGRAMS * _multiprocessors(images.device))

    scratch = torch.empty(programs, room, dtype=torch.float32, device=images.device)
    sums = torch.empty(batch, channels if simclr else 1, blocks, dtype=torch.float32, device=images.device)
    views = torch.empty(batch, channels, h, w, dtype=dtype, device=images.device)
    params = [x if x is None else x.contiguous() for x in (sizes, crop, flip, jitter, order, grayscale, blur, solarize)]
    scale = [1 / s for s in std] or [1.0]
    shift = [-m / s for m, s in zip(mean, std)] or [0.0]
    constants = {
        "JITTERS": sum(1 << k for k, name in enumerate(JITTERS[: channels + 1]) if name in steps),
        "GRAYSCALE": "grayscale" in steps, "SOLARIZE": "solarize" in steps, "BICUBIC": bicubic, "SIMCLR": simclr,
        "RADIUS": radius, "BLOCK": block, "ROWS": rows, "LANES": lanes, "DOWN": down, "STRIDE": stride,
        "ROW_TAPS": row_taps, "COLUMN_TAPS": column_taps, "TAPS": taps, "PARTS": next_power_of_2(blocks),
        "num_warps": warps, "maxnreg": 65536 // max(512, 32 * warps),
    }  # fmt: skip
    passes = [(False, False)]  # SUM, BLURRED
    if "contrast" in steps:
        passes.insert(0, (True, False))
    if radius:
        passes.append((False, True))
    with torch.cuda.device_of(images):
        for summing, blurred in passes:
            _views[(programs,)](
                images, *images.stride(), height, width, *params, *(scale * 3)[:3], *(shift * 3)[:3],
                views, sums, scratch, room, batch * blocks, h=h, w=w, C=channels, SUM=summing, BLURRED=blurred,
                **constants,
            )  # fmt: skip
    return views
