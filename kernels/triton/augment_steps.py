"""What the augmentation kernel does to pixels: taps of the resampling, and the colour steps on planes in registers."""

from __future__ import annotations

import triton
import triton.language as tl

BRIGHTNESS, CONTRAST, SATURATION, HUE = (tl.constexpr(k) for k in range(4))  # columns of `jitter`, values of `order`
SHIFTER = tl.constexpr(1.5 * 2**23)  # adding it rounds to an integer


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
    table, i, length, target: tl.constexpr, unit: tl.constexpr,
    LANES: tl.constexpr, BICUBIC: tl.constexpr, ANTIALIAS: tl.constexpr,
):  # fmt: skip
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
def clamp01(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@triton.jit
def luma(red, green, blue, C: tl.constexpr):
    """ITU-R 601-2 as torchvision rounds it."""
    return 0.2989 * red + 0.587 * green + 0.114 * blue if C == 3 else red


@triton.jit
def _channel(value, chroma, away):
    """A channel of the colour whose hue is `away` sixths of the circle from that channel's place: the maximum V within
    one sixth of it, the minimum V − chroma from two sixths on, linear between."""
    away -= 6.0 * ((away * (1.0 / 6.0) + SHIFTER) - SHIFTER)
    return value - chroma * clamp01(tl.abs(away) - 1.0)


@triton.jit
def _shift_hue(red, green, blue, shift):
    """Turns the hue by `shift` of a full circle, through HSV."""
    value = tl.maximum(tl.maximum(red, green), blue)
    chroma = value - tl.minimum(tl.minimum(red, green), blue)
    inverse = 1.0 / tl.maximum(chroma, 1e-30)  # gray has no hue, and any will do
    hue = tl.where(value == green, (blue - red) * inverse + 2.0, (red - green) * inverse + 4.0)
    hue = tl.where(value == red, (green - blue) * inverse, hue) + 6.0 * shift
    return _channel(value, chroma, hue), _channel(value, chroma, hue - 2.0), _channel(value, chroma, hue - 4.0)


@triton.jit
def adjust(
    red, green, blue, jitter, order, count, red_mean, green_mean, blue_mean,
    C: tl.constexpr, JITTERS: tl.constexpr, SIMCLR: tl.constexpr,
):  # fmt: skip
    """The first `count` adjustments of a view in its order, clamped to [0, 1] after each.

    brightness, contrast, saturation: factor·x + (1 − factor)·(black, mean, gray). In "simclr" the saturation blends
    with V of HSV, and its factor ends where S is 1.
    """
    poison = 0.0  # the clamp is the hardware's, which takes NaN to 0
    for k in range(count):
        kind = tl.load(order + k)
        factor = tl.load(jitter + kind)
        wanted = ((JITTERS >> kind) & 1) == 1
        poison += tl.where(wanted, 0.0 * factor, 0.0)
        if (kind == BRIGHTNESS) & wanted:
            red = clamp01(factor * red)
            if C == 3:
                green, blue = clamp01(factor * green), clamp01(factor * blue)
        if (kind == CONTRAST) & wanted & (factor != 1.0):
            red = clamp01(factor * red + (1.0 - factor) * red_mean)
            if C == 3:
                green = clamp01(factor * green + (1.0 - factor) * green_mean)
                blue = clamp01(factor * blue + (1.0 - factor) * blue_mean)
        if C == 3:
            if (kind == SATURATION) & wanted & (factor != 1.0):
                if SIMCLR:
                    end = tl.maximum(tl.maximum(red, green), blue)
                    chroma = end - tl.minimum(tl.minimum(red, green), blue)
                    scale = tl.minimum(factor, end / tl.maximum(chroma, 1e-30))
                else:
                    end = luma(red, green, blue, C)
                    scale = factor
                offset = (1.0 - scale) * end
                red, green = clamp01(scale * red + offset), clamp01(scale * green + offset)
                blue = clamp01(scale * blue + offset)
            if (kind == HUE) & wanted & (factor != 0.0):
                red, green, blue = _shift_hue(red, green, blue, factor)
    return red + poison, green + poison, blue + poison
