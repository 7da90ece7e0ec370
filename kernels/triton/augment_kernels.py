"""The kernels of the augmentation: blocks of rows of the views, all steps of which stay in registers.

A pixel of a view is never stored but finished. What goes from thread to thread goes through a scratch of the program's
own, in which a strip lies column by column, and a thread loads four of its rows at once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from sslfast.kernels.triton.augment_filters import (
    blur_lines,
    blur_radius,
    box_of,
    resample,
    store_gaussian,
    store_planes,
    store_taps,
)
from sslfast.kernels.triton.augment_steps import CONTRAST, adjust, luma, solarized, to_gray

# Before 3.7 Triton takes more invariants out of the loop over rows than registers hold.
SPILLS_INVARIANTS = tl.constexpr(tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7))


@triton.jit
def _scratch_of_program(
    scratch,
    scratch_stride,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    DOWN: tl.constexpr,
    STRIDE: tl.constexpr,
    ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr,
):
    """across (1 + COLUMN_TAPS, LANES), down (1 + ROW_TAPS, DOWN), the strip (C, ROWS, STRIDE), and the rest."""
    across = scratch + tl.program_id(0).to(tl.int64) * scratch_stride
    down = across + (1 + COLUMN_TAPS) * LANES
    strip = down + (1 + ROW_TAPS) * DOWN
    return across, down, strip, strip + C * ROWS * STRIDE


@triton.jit
def _changes_contrast(jitters, JITTERS: tl.constexpr):
    return (JITTERS & 2 != 0) & (tl.load(jitters + CONTRAST) != 1.0)


@triton.jit
def _mean(sums, BLOCKS: tl.constexpr, PIXELS: tl.constexpr, PARTS: tl.constexpr):
    parts = tl.arange(0, PARTS)
    return tl.sum(tl.load(sums + parts, mask=parts < BLOCKS, other=0.0)) / PIXELS


@triton.jit
def _means(
    sums,
    i,
    wanted,
    SIMCLR: tl.constexpr,
    C: tl.constexpr,
    BLOCKS: tl.constexpr,
    PIXELS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """What the contrast of view i takes as its gray, one a plane; 0 unless wanted."""
    MEANS: tl.constexpr = C if SIMCLR else 1
    red, green, blue = 0.0, 0.0, 0.0
    if wanted:
        red = _mean(sums + i * MEANS * BLOCKS, BLOCKS, PIXELS, PARTS)
        green, blue = red, red
        if MEANS == 3:
            green = _mean(sums + (i * MEANS + 1) * BLOCKS, BLOCKS, PIXELS, PARTS)
            blue = _mean(sums + (i * MEANS + 2) * BLOCKS, BLOCKS, PIXELS, PARTS)
    return red, green, blue


@triton.jit
def _finish(
    view,
    y,
    stop,
    red,
    green,
    blue,
    solarize,
    SCALE: tl.constexpr,
    OFFSET: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    C: tl.constexpr,
    SOLARIZE: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Solarizes, normalises and stores rows y to `stop`."""
    if SOLARIZE:
        threshold = tl.load(solarize)
        red, green, blue = solarized(red, threshold), solarized(green, threshold), solarized(blue, threshold)
    rows, lanes = y + tl.arange(0, ROWS)[:, None], tl.arange(0, LANES)[None, :]
    mask = (rows < stop) & (lanes < w)
    red, green, blue = SCALE[0] * red + OFFSET[0], SCALE[1] * green + OFFSET[1], SCALE[2] * blue + OFFSET[2]
    store_planes(view + rows * w + lanes, mask, h * w, red, green, blue, C)


@triton.jit
def augment_mean_kernel(
    images,
    image_stride,
    plane_stride,
    row_stride,
    column_stride,
    height,
    width,
    sizes,
    crop,
    flip,
    jitter,
    order,
    sums,
    scratch,
    scratch_stride,
    items,
    h: tl.constexpr,
    w: tl.constexpr,
    C: tl.constexpr,
    JITTERS: tl.constexpr,
    BICUBIC: tl.constexpr,
    SIMCLR: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    DOWN: tl.constexpr,
    STRIDE: tl.constexpr,
    ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr,
):
    """sums (views, 1 or C, blocks): over the pixels of a block of what the contrast of its view gets."""
    BLOCKS: tl.constexpr = (h + BLOCK - 1) // BLOCK
    MEANS: tl.constexpr = C if SIMCLR else 1
    strides = (plane_stride, row_stride, column_stride)
    across, down, strip, _ = _scratch_of_program(
        scratch, scratch_stride, C, ROWS, LANES, DOWN, STRIDE, ROW_TAPS, COLUMN_TAPS
    )
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        i, block = item // BLOCKS, item % BLOCKS
        jitters, orders = jitter + 4 * i, order + 4 * i
        if _changes_contrast(jitters, JITTERS):
            image = images + tl.cast(i, tl.int64) * image_stride
            box = box_of(sizes, crop, i, height, width)
            low, high = block * BLOCK, tl.minimum(block * BLOCK + BLOCK, h)
            filters = store_taps(down, across, low, box, tl.load(flip + i), h, w, BICUBIC, SIMCLR, LANES, DOWN)
            k = tl.arange(0, 4)
            before = tl.sum(tl.where(tl.load(orders + k) == CONTRAST, k, 0))
            red_sum = tl.zeros((ROWS, LANES), tl.float32)
            green_sum, blue_sum = red_sum, red_sum
            for y in tl.range(low, high, ROWS, disable_licm=SPILLS_INVARIANTS):
                red, green, blue = resample(
                    image, strides, width, box, filters, strip, y - low, C, BICUBIC, ROWS, LANES, DOWN, STRIDE
                )
                red, green, blue = adjust(
                    red, green, blue, jitters, orders, before, (0.0, 0.0, 0.0), C, JITTERS, SIMCLR
                )
                mask = (y + tl.arange(0, ROWS)[:, None] < high) & (tl.arange(0, LANES) < w)[None, :]
                if MEANS == 1:
                    red_sum += tl.where(mask, luma(red, green, blue, C), 0.0)
                else:
                    red_sum += tl.where(mask, red, 0.0)
                    green_sum += tl.where(mask, green, 0.0)
                    blue_sum += tl.where(mask, blue, 0.0)
            tl.store(sums + i * MEANS * BLOCKS + block, tl.sum(red_sum))
            if MEANS == 3:
                tl.store(sums + (i * MEANS + 1) * BLOCKS + block, tl.sum(green_sum))
                tl.store(sums + (i * MEANS + 2) * BLOCKS + block, tl.sum(blue_sum))


@triton.jit
def augment_sharp_kernel(
    images,
    image_stride,
    plane_stride,
    row_stride,
    column_stride,
    height,
    width,
    sizes,
    crop,
    flip,
    jitter,
    order,
    grayscale,
    blur,
    solarize,
    views,
    sums,
    scratch,
    scratch_stride,
    items,
    SCALE: tl.constexpr,
    OFFSET: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    C: tl.constexpr,
    JITTERS: tl.constexpr,
    GRAYSCALE: tl.constexpr,
    SOLARIZE: tl.constexpr,
    BICUBIC: tl.constexpr,
    SIMCLR: tl.constexpr,
    RADIUS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    DOWN: tl.constexpr,
    STRIDE: tl.constexpr,
    ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Blocks of the views without blur."""
    BLOCKS: tl.constexpr = (h + BLOCK - 1) // BLOCK
    strides = (plane_stride, row_stride, column_stride)
    across, down, strip, _ = _scratch_of_program(
        scratch, scratch_stride, C, ROWS, LANES, DOWN, STRIDE, ROW_TAPS, COLUMN_TAPS
    )
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        i, block = item // BLOCKS, item % BLOCKS
        radius = 0
        if RADIUS > 0:
            radius = blur_radius(tl.load(blur + i), RADIUS)
        if radius == 0:
            jitters, orders = jitter + 4 * i, order + 4 * i
            image = images + tl.cast(i, tl.int64) * image_stride
            view = views + tl.cast(i, tl.int64) * (C * h * w)
            box = box_of(sizes, crop, i, height, width)
            low, high = block * BLOCK, tl.minimum(block * BLOCK + BLOCK, h)
            filters = store_taps(down, across, low, box, tl.load(flip + i), h, w, BICUBIC, SIMCLR, LANES, DOWN)
            means = _means(sums, i, _changes_contrast(jitters, JITTERS), SIMCLR, C, BLOCKS, h * w, PARTS)
            for y in tl.range(low, high, ROWS, disable_licm=SPILLS_INVARIANTS):
                red, green, blue = resample(
                    image, strides, width, box, filters, strip, y - low, C, BICUBIC, ROWS, LANES, DOWN, STRIDE
                )
                red, green, blue = adjust(red, green, blue, jitters, orders, 4, means, C, JITTERS, SIMCLR)
                if GRAYSCALE and C == 3:
                    red, green, blue = to_gray(red, green, blue, tl.load(grayscale + i))
                _finish(view, y, high, red, green, blue, solarize + i, SCALE, OFFSET, h, w, C, SOLARIZE, ROWS, LANES)


@triton.jit
def augment_blur_kernel(
    images,
    image_stride,
    plane_stride,
    row_stride,
    column_stride,
    height,
    width,
    sizes,
    crop,
    flip,
    jitter,
    order,
    grayscale,
    blur,
    solarize,
    views,
    sums,
    scratch,
    scratch_stride,
    items,
    SCALE: tl.constexpr,
    OFFSET: tl.constexpr,
    h: tl.constexpr,
    w: tl.constexpr,
    C: tl.constexpr,
    JITTERS: tl.constexpr,
    GRAYSCALE: tl.constexpr,
    SOLARIZE: tl.constexpr,
    BICUBIC: tl.constexpr,
    SIMCLR: tl.constexpr,
    RADIUS: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    DOWN: tl.constexpr,
    STRIDE: tl.constexpr,
    ROW_TAPS: tl.constexpr,
    COLUMN_TAPS: tl.constexpr,
    TAPS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Blocks of the blurred views: made with the rows around them, blurred across as they are made, then downwards."""
    BLOCKS: tl.constexpr = (h + BLOCK - 1) // BLOCK
    PLANE: tl.constexpr = (BLOCK + 2 * RADIUS) * w
    strides = (plane_stride, row_stride, column_stride)
    across, down, strip, taps = _scratch_of_program(
        scratch, scratch_stride, C, ROWS, LANES, DOWN, STRIDE, ROW_TAPS, COLUMN_TAPS
    )
    blurred = taps + TAPS  # (C, BLOCK + 2 · RADIUS, w)
    lanes = tl.arange(0, LANES)
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        i, block = item // BLOCKS, item % BLOCKS
        sigma = tl.load(blur + i)
        radius = blur_radius(sigma, RADIUS)
        if radius > 0:
            jitters, orders = jitter + 4 * i, order + 4 * i
            image = images + tl.cast(i, tl.int64) * image_stride
            view = views + tl.cast(i, tl.int64) * (C * h * w)
            box = box_of(sizes, crop, i, height, width)
            begin, end = block * BLOCK, tl.minimum(block * BLOCK + BLOCK, h)
            low, high = tl.maximum(begin - radius, 0), tl.minimum(end + radius, h)
            store_gaussian(taps, sigma, RADIUS, TAPS)
            filters = store_taps(down, across, low, box, tl.load(flip + i), h, w, BICUBIC, SIMCLR, LANES, DOWN)
            means = _means(sums, i, _changes_contrast(jitters, JITTERS), SIMCLR, C, BLOCKS, h * w, PARTS)
            for y in tl.range(low, high, ROWS, disable_licm=SPILLS_INVARIANTS):
                red, green, blue = resample(
                    image, strides, width, box, filters, strip, y - low, C, BICUBIC, ROWS, LANES, DOWN, STRIDE
                )
                red, green, blue = adjust(red, green, blue, jitters, orders, 4, means, C, JITTERS, SIMCLR)
                if GRAYSCALE and C == 3:
                    red, green, blue = to_gray(red, green, blue, tl.load(grayscale + i))
                lines = tl.arange(0, ROWS)[:, None]
                mask = (y + lines < high) & (lanes < w)[None, :]
                store_planes(strip + lines + lanes[None, :] * ROWS, mask, ROWS * STRIDE, red, green, blue, C)
                tl.debug_barrier()
                x = tl.minimum(lanes, w - 1)[None, :]
                red, green, blue = blur_lines(
                    strip, None, ROWS * STRIDE, x, ROWS, w, lines, taps, radius, C, SIMCLR, ROWS, LANES
                )
                tl.debug_barrier()
                store_planes(blurred + (y + lines - low) * w + lanes[None, :], mask, PLANE, red, green, blue, C)
            tl.debug_barrier()
            for y in range(begin, end, ROWS):
                rows = tl.minimum(y + tl.arange(0, ROWS), end - 1)[:, None]
                columns, mask = lanes[None, :], lanes[None, :] < w
                red, green, blue = blur_lines(
                    blurred - low * w, mask, PLANE, rows, w, h, columns, taps, radius, C, SIMCLR, ROWS, LANES
                )
                _finish(view, y, end, red, green, blue, solarize + i, SCALE, OFFSET, h, w, C, SOLARIZE, ROWS, LANES)
            tl.debug_barrier()
