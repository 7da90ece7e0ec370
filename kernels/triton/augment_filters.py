"""The separable filters of the augmentation kernels, the resampling of a crop and the blur, over planes of pixels."""

from __future__ import annotations

import triton
import triton.language as tl

from sslfast.kernels.triton.augment_steps import clamp01

REACH = tl.constexpr(6.4)  # in σ: taps of the blur from there on are below 2e-9 of the first


@triton.jit
def load_planes(pointers, mask, plane, C: tl.constexpr):
    """The three planes, the first at the pointers; a view of one channel is its own green and blue."""
    red = tl.load(pointers, mask=mask).to(tl.float32)
    if C == 1:
        return red, red, red
    else:
        green, blue = tl.load(pointers + plane, mask=mask), tl.load(pointers + 2 * plane, mask=mask)
        return red, green.to(tl.float32), blue.to(tl.float32)


@triton.jit
def store_planes(pointers, mask, plane, red, green, blue, C: tl.constexpr):
    tl.store(pointers, red.to(pointers.dtype.element_ty), mask=mask)
    if C == 3:
        tl.store(pointers + plane, green.to(pointers.dtype.element_ty), mask=mask)
        tl.store(pointers + 2 * plane, blue.to(pointers.dtype.element_ty), mask=mask)


@triton.jit
def cut(start, length, source):
    """A side of a box cut to the source, to a pixel at least: start and length."""
    end = tl.minimum(tl.maximum(start + length, 1), source)
    start = tl.minimum(tl.maximum(start, 0), end - 1)
    return start, end - start


@triton.jit
def _filter(x, BICUBIC: tl.constexpr):
    """Keys' cubic convolution kernel, a = -1/2, or the triangle, at distances x >= 0."""
    if BICUBIC:
        near = ((1.5 * x - 2.5) * x) * x + 1.0
        far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        return tl.where(x < 1.0, near, tl.where(x < 2.0, far, 0.0))
    else:
        return tl.maximum(1.0 - x, 0.0)


@triton.jit
def resampling(
    table,
    i,
    length,
    target: tl.constexpr,
    unit: tl.constexpr,
    LANES: tl.constexpr,
    BICUBIC: tl.constexpr,
    ANTIALIAS: tl.constexpr,
):
    """Writes the taps of pixels i (LANES,) of `target`, to which `length` pixels are resized, and returns their number.

    table[0] is the first pixel of each, in the box; table[1 + t] the weight of the t-th: zero outside of the box, their
    sum 1 / unit.
    """
    twice = (2 * i.to(tl.int64) + 1) * length  # over 2·target it is the centre, in whole pixels and an exact fraction
    whole = twice // (2 * target)
    fraction = (twice - 2 * target * whole).to(tl.float32) / (2.0 * target)
    widened = tl.maximum(length.to(tl.float32) / target, 1.0) if ANTIALIAS else 1.0
    support = widened * (2.0 if BICUBIC else 1.0)
    ahead = tl.floor(fraction - support + 0.5)
    first = whole.to(tl.int32) + ahead.to(tl.int32)
    count = tl.ceil(support * 2.0 + length * 0.0).to(tl.int32)  # no more pixel centres lie within the support
    lanes = tl.arange(0, LANES)
    tl.store(table + lanes, first.to(tl.float32))
    total = tl.zeros((LANES,), tl.float32)
    for t in range(count):
        inside = (first + t >= 0) & (first + t < length)
        weight = tl.where(inside, _filter(tl.abs(ahead + 0.5 - fraction + t) / widened, BICUBIC), 0.0)
        tl.store(table + (1 + t) * LANES + lanes, weight)
        total += weight
    scale = tl.div_rn(1.0, total * unit)
    tl.debug_barrier()
    for t in range(count):
        weight = tl.load(table + (1 + t) * LANES + lanes)
        tl.store(table + (1 + t) * LANES + lanes, weight * scale)
    return count


@triton.jit
def box_of(sizes, crop, i, height, width):
    """Top, left, height and width of the crop of view i, within its image."""
    if sizes is not None:
        height = tl.minimum(tl.maximum(tl.load(sizes + 2 * i), 1), height)
        width = tl.minimum(tl.maximum(tl.load(sizes + 2 * i + 1), 1), width)
    top, box_height = cut(tl.load(crop + 4 * i), tl.load(crop + 4 * i + 2), height)
    left, box_width = cut(tl.load(crop + 4 * i + 1), tl.load(crop + 4 * i + 3), width)
    return (top, left, box_height, box_width)


@triton.jit
def store_taps(
    down,
    across,
    low,
    box,
    mirrored,
    h: tl.constexpr,
    w: tl.constexpr,
    BICUBIC: tl.constexpr,
    SIMCLR: tl.constexpr,
    LANES: tl.constexpr,
    DOWN: tl.constexpr,
):
    """The taps of the rows from `low` on and of all columns, for `resample`: where they lie, and how many each has."""
    rows = tl.minimum(low + tl.arange(0, DOWN), h - 1)
    row_count = resampling(down, rows, box[2], h, 255.0, DOWN, BICUBIC, not SIMCLR)
    columns = tl.minimum(tl.arange(0, LANES), w - 1)
    columns = tl.where(mirrored, w - 1 - columns, columns)
    column_count = resampling(across, columns, box[3], w, 1.0, LANES, BICUBIC, not SIMCLR)
    tl.debug_barrier()
    return (down, row_count, across, column_count)


@triton.jit
def resample(
    image,
    strides,
    width,
    box,
    filters,
    strip,
    row,
    C: tl.constexpr,
    BICUBIC: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    DOWN: tl.constexpr,
    STRIDE: tl.constexpr,
):
    """ROWS rows of a view, (ROWS, LANES) each plane, from the one on whose taps are in column `row` of their table.

    strides: of a plane, a row and a column; box of `box_of`, filters of `store_taps`.
    """
    plane_stride, row_stride, column_stride = strides
    top, left, box_height, box_width = box
    down, row_count, across, column_count = filters
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
            r, g, b = load_planes(pointers, mask, plane_stride, C)
            red, green, blue = red + weight * r, green + weight * g, blue + weight * b
        pointers = strip + rows[:, None] + ((columns - start) * ROWS)[None, :]
        store_planes(pointers, mask, ROWS * STRIDE, red, green, blue, C)
    tl.debug_barrier()
    first_column = tl.load(across + lanes).to(tl.int32)
    red = tl.zeros((ROWS, LANES), tl.float32)
    green, blue = red, red
    for t in range(column_count):
        weight = tl.load(across + (1 + t) * LANES + lanes)[None, :]
        taken = left - start + tl.minimum(tl.maximum(first_column + t, 0), box_width - 1)
        r, g, b = load_planes(strip + rows[:, None] + (taken * ROWS)[None, :], None, ROWS * STRIDE, C)
        red, green, blue = red + weight * r, green + weight * g, blue + weight * b
    tl.debug_barrier()
    if BICUBIC:  # the cubic overshoots at edges
        red, green, blue = clamp01(red), clamp01(green), clamp01(blue)
    return red, green, blue


@triton.jit
def blur_radius(sigma, RADIUS: tl.constexpr):
    """The number of taps on each side that count: 0 for a view that stays sharp, RADIUS at most and for NaN."""
    reach = REACH * sigma
    return tl.where(sigma <= 0.0, 0, tl.where(reach < RADIUS, reach, RADIUS).to(tl.int32))


@triton.jit
def store_gaussian(taps, sigma, RADIUS: tl.constexpr, TAPS: tl.constexpr):
    """taps[t] of a Gaussian window of 2·RADIUS + 1, whose sum is 1."""
    t = tl.arange(0, TAPS)
    distance = t.to(tl.float32) / sigma
    tap = tl.where(t <= RADIUS, tl.exp(-0.5 * distance * distance), 0.0)
    tl.store(taps + t, tap / (2.0 * tl.sum(tap) - 1.0))


@triton.jit
def blur_lines(
    planes,
    mask,
    plane,
    i,
    step,
    length: tl.constexpr,
    j,
    taps,
    radius,
    C: tl.constexpr,
    ZEROS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
):
    """Σ_t taps[|t|]·x[i + t] of lines `length` long, elements `step` apart; j tells the lines."""
    red = tl.zeros((ROWS, LANES), tl.float32)
    green, blue = red, red
    for t in range(-radius, radius + 1):
        tap = tl.load(taps + tl.abs(t))
        at = tl.abs(i + t)
        at = tl.minimum(at, 2 * (length - 1) - at)  # reflected
        if ZEROS:
            tap = tl.where((i + t >= 0) & (i + t < length), tap, 0.0)
        r, g, b = load_planes(planes + at * step + j, mask, plane, C)
        red, green, blue = red + tap * r, green + tap * g, blue + tap * b
    return red, green, blue
