"""What the augmentation kernels do to the colours of a view, on its planes in registers."""

from __future__ import annotations

import triton
import triton.language as tl

BRIGHTNESS, CONTRAST, SATURATION, HUE = (tl.constexpr(k) for k in range(4))  # columns of `jitter`, values of `order`
SHIFTER = tl.constexpr(1.5 * 2**23)  # adding it rounds to an integer


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
    red,
    green,
    blue,
    jitter,
    order,
    count,
    means,
    C: tl.constexpr,
    JITTERS: tl.constexpr,
    SIMCLR: tl.constexpr,
):
    """The first `count` adjustments of a view in its order, clamped to [0, 1] after each.

    brightness, contrast, saturation: factor·x + (1 − factor)·(black, mean, gray), of `means` one a plane. In "simclr"
    the saturation blends with V of HSV, and its factor ends where S is 1.
    """
    red_mean, green_mean, blue_mean = means
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


@triton.jit
def to_gray(red, green, blue, is_gray):
    gray = luma(red, green, blue, 3)
    return tl.where(is_gray, gray, red), tl.where(is_gray, gray, green), tl.where(is_gray, gray, blue)


@triton.jit
def solarized(x, threshold):
    return tl.where(x >= threshold, 1.0 - x, x)
