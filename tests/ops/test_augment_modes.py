"""ops.augment with SimCLR's TensorFlow semantics, and on padded batches of differently sized images."""

from __future__ import annotations

import colorsys
from dataclasses import replace

import numpy as np
import pytest
import torch
from views import EVERYTHING, pictures

from sslfast.augment import ViewParams, ViewSampler, preset
from sslfast.ops.augment import augment
from sslfast.ops.registry import IMPLS
from sslfast.ops.view_params import LAYOUT, STEPS

SIMCLR = replace(EVERYTHING, mode="simclr")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# --- TensorFlow's functions in NumPy, float64, on images (h, w, C) in [0, 1] ---


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    """tf.image.resize without antialiasing: half-pixel centres, Keys' cubic, taps outside of the image dropped."""
    reach = {"bilinear": 1, "bicubic": 2}[interpolation]

    def weight(x: float) -> float:
        x = abs(x)
        if interpolation == "bilinear":
            return max(0.0, 1 - x)
        return 1.5 * x**3 - 2.5 * x**2 + 1 if x <= 1 else max(0, 2 - x) * -0.5 * (x - 1) * (2 - x)

    for axis in (0, 1):
        source, lines = image.shape[axis], []
        for i in range(size[axis]):
            place = (i + 0.5) * source / size[axis] - 0.5
            low = int(np.floor(place))
            taps = [k for k in range(low - reach + 1, low + reach + 1) if 0 <= k < source]
            weights = np.array([weight(place - k) for k in taps])
            lines.append(np.tensordot(weights / weights.sum(), image.take(taps, axis), (0, axis)))
        image = np.stack(lines, axis)
    return image


def adjust_hsv(image: np.ndarray, turn: float, saturation: float) -> np.ndarray:
    """tf.image.adjust_hue and adjust_saturation, through HSV."""
    pixels = []
    for pixel in image.reshape(-1, 3):
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        pixels.append(colorsys.hsv_to_rgb((h + turn) % 1, min(1, max(0, s * saturation)), v))
    return np.array(pixels).reshape(image.shape)


def adjust(image: np.ndarray, step: str, factor: float) -> np.ndarray:
    if step == "brightness":
        image = image * factor
    elif step == "contrast":  # tf.image.adjust_contrast
        mean = image.mean(axis=(0, 1))
        image = (image - mean) * factor + mean
    elif image.shape[2] == 3:
        image = adjust_hsv(image, factor, 1) if step == "hue" else adjust_hsv(image, 0, factor)
    return image.clip(0, 1)


def blurred(image: np.ndarray, radius: int, sigma: float) -> np.ndarray:
    """gaussian_blur of data_util.py: two depthwise convolutions with SAME padding."""
    window = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    window /= window.sum()
    for axis in (1, 0):
        image = np.apply_along_axis(lambda line: np.convolve(np.pad(line, radius), window, "valid"), axis, image)
    return image


def tensorflow_view(image: torch.Tensor, params: ViewParams, i: int, size: tuple[int, int]) -> torch.Tensor:
    """One view as google-research/simclr's tf2/data_util.py makes it, with the cubic's overshoot clamped at once."""
    top, left, height, width = params.crop[i].tolist()
    x = image.numpy().transpose(1, 2, 0)[top : top + height, left : left + width] / 255
    x = resize(x, size, params.interpolation).clip(0, 1)
    if params.flip[i]:
        x = x[:, ::-1]
    for k in params.order[i].tolist():
        x = adjust(x, STEPS[k], params.jitter[i, k].item())
    if params.grayscale[i] and x.shape[2] == 3:
        x = np.repeat(x @ [[0.2989], [0.587], [0.114]], 3, axis=2)
    if params.blur[i] > 0:
        x = blurred(x, params.blur_radius, params.blur[i].item())
    if params.solarize[i] <= 1:
        x = np.where(x >= params.solarize[i].item(), 1 - x, x)
    return torch.from_numpy(x.transpose(2, 0, 1).copy())


def assert_like_tensorflow(images, params: ViewParams, size: tuple[int, int], worst: float = 1e-4) -> None:
    for i, view in enumerate(augment(images, params, size)):
        error = (view - tensorflow_view(images[i], params, i, size)).abs()
        assert error.max() <= worst, params.describe(i)
        assert error.mean() <= worst / 10, params.describe(i)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 30)])
def test_the_resize_is_not_antialiased(interpolation: str, size: tuple[int, int], generator: torch.Generator) -> None:
    images = pictures(5, 3, 37, 53, generator)
    boxes = [(0, 0, 37, 53), (5, 9, 20, 30), (36, 52, 1, 1), (3, 50, 34, 2), (4, 0, 33, 17)]
    params = replace(
        ViewParams.identity(5, (37, 53)),
        crop=torch.tensor(boxes, dtype=torch.int32),
        flip=torch.arange(5) % 2 == 0,
        interpolation=interpolation,
        mode="simclr",
    )
    assert_like_tensorflow(images, params, size, worst=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("column", "values"),
    [(0, (0.0, 0.3, 1.7)), (1, (0.0, 0.4, 1.8)), (2, (0.0, 0.5, 1.0, 2.0)), (3, (-0.5, -0.1, 0.2, 0.5))],
    ids=STEPS[:4],
)
def test_each_colour_adjustment(column: int, values: tuple[float, ...], channels: int, generator) -> None:
    images = pictures(len(values), channels, 12, 12, generator)
    images[:, :, :2], images[:, :, 2:4] = 0, 255
    images[:, 1:, 4:6] = 0  # pure red, whose saturation is 1
    jitter = torch.tensor([1.0, 1.0, 1.0, 0.0]).repeat(len(values), 1)
    jitter[:, column] = torch.tensor(values)
    identity = ViewParams.identity(len(values), (12, 12))
    assert_like_tensorflow(images, replace(identity, jitter=jitter, steps=STEPS[:4], mode="simclr"), (12, 12), 1e-5)


def test_the_blur_sees_black_beyond_the_border() -> None:
    white = torch.full((1, 1, 9, 9), 255, dtype=torch.uint8)
    params = replace(ViewParams.identity(1, (9, 9)), blur=torch.tensor([1.0]), blur_radius=2, steps=("blur",))
    torch.testing.assert_close(augment(white, params, 9), torch.ones(1, 1, 9, 9))
    edge = augment(white, replace(params, mode="simclr"), 9)[0, 0]
    window = np.exp(-(np.arange(-2, 3) ** 2) / 2.0)
    beyond = window[:2].sum() / window.sum()
    assert edge[4, 4] == pytest.approx(1, abs=1e-6)
    assert edge[0, 4] == pytest.approx(1 - beyond, abs=1e-6)
    assert edge[0, 0] == pytest.approx((1 - beyond) ** 2, abs=1e-6)


@pytest.mark.parametrize(("channels", "source", "size"), [(3, (45, 31), (24, 20)), (1, (8, 8), (12, 12))])
def test_the_chain(channels: int, source, size, generator: torch.Generator, poisoned_memory: None) -> None:
    images = pictures(24, channels, *source, generator)
    params = ViewSampler(SIMCLR, size).sample(24, source, generator=generator)
    assert params.mode == "simclr"
    assert_like_tensorflow(images, params, size)


def test_the_modes_differ(generator: torch.Generator) -> None:
    images = pictures(8, 3, 48, 48, generator)
    params = ViewSampler("simclr", 24).sample(8, (48, 48), generator=generator)
    other = augment(images, replace(params, mode="simclr"), 24)
    assert (augment(images, params, 24) - other).flatten(1).abs().amax(dim=1).min() > 0.02


def test_a_preset_with_tensorflows_steps() -> None:
    assert preset("simclr-tf") == replace(preset("simclr"), mode="simclr")
    with pytest.raises(ValueError, match="mode must be one of torchvision, simclr, got 'tensorflow'"):
        replace(preset("simclr"), mode="tensorflow")
    with pytest.raises(ValueError, match="mode must be one of torchvision, simclr, got None"):
        replace(ViewParams.identity(1, (4, 4)), mode=None)


# --- padded batches ---


@pytest.mark.parametrize("mode", ["torchvision", "simclr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_padding_is_never_seen(mode: str, channels: int, generator: torch.Generator, poisoned_memory: None) -> None:
    sizes = torch.tensor([[40, 60], [1, 1], [40, 7], [13, 60], [25, 33], [8, 1]], dtype=torch.int32)
    padded = torch.randint(0, 256, (6, channels, 40, 60), generator=generator, dtype=torch.uint8)
    params = ViewSampler(replace(EVERYTHING, mode=mode), (16, 12)).sample(6, sizes, generator=generator)
    beyond = torch.tensor([-3, -2, 500, 500], dtype=torch.int32)  # cut to each image's own size
    params = replace(params, crop=torch.where(torch.arange(6)[:, None] % 2 == 0, beyond, params.crop))
    views = augment(padded, params, (16, 12), sizes=sizes)
    for i, (height, width) in enumerate(sizes.tolist()):
        alone = augment(padded[i : i + 1, :, :height, :width], params[i], (16, 12))
        torch.testing.assert_close(views[i : i + 1], alone, rtol=0, atol=1e-5)


def test_whole_sizes_change_nothing(generator: torch.Generator) -> None:
    images = pictures(4, 3, 20, 30, generator)
    params = ViewSampler("simclr", 16).sample(4, (20, 30), generator=generator)
    sizes = torch.tensor([[20, 30], [20, 30], [99, 99], [20, 31]], dtype=torch.int32)  # cut to the batch's
    assert torch.equal(augment(images, params, 16, sizes=sizes), augment(images, params, 16))


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ([[8, 8]] * 4, TypeError, "sizes must be a tensor of torch.int32, got list"),
        (torch.ones(4, 2), TypeError, "sizes must be a tensor of torch.int32, got torch.float32"),
        (torch.ones(4, 3, dtype=torch.int32), ValueError, r"sizes must be \(4, 2\) for as many images, got \(4, 3\)"),
        (torch.ones(4, 2, dtype=torch.int32, device="meta"), ValueError, "sizes must be on cpu .*, got meta"),
    ],
)
def test_wrong_sizes_are_named(sizes, error: type[Exception], message: str) -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(error, match=message):
        augment(images, ViewParams.identity(4, (8, 8)), 8, sizes=sizes)


# --- kernels ---


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_kernels_agree_with_the_reference(channels: int, padded: bool, generator, poisoned_memory: None) -> None:
    images = pictures(24, channels, 45, 70, generator)
    params = ViewSampler(SIMCLR, (33, 41)).sample(24, (45, 70), generator=generator)
    sizes = torch.randint(5, 70, (24, 2), generator=generator, dtype=torch.int32) if padded else None
    exact = augment(images, params, (33, 41), sizes=sizes, dtype=torch.float64)
    views = augment(images, params, (33, 41), sizes=sizes)
    torch.testing.assert_close(views.double(), exact, rtol=0, atol=5e-4)


def test_opcheck(generator: torch.Generator) -> None:
    params = ViewSampler(SIMCLR, 16).sample(4, (20, 20), generator=generator)
    rows = [getattr(params, name) for name in LAYOUT]
    images, sizes = pictures(4, 3, 20, 20, generator), torch.full((4, 2), 15, dtype=torch.int32)
    rest = ([16, 16], list(params.steps), True, "simclr", params.blur_radius, [], [], torch.float32)
    torch.library.opcheck(torch.ops.sslfast.augment.default, (images, sizes, *rows, *rest))


def test_compiles_without_graph_breaks(generator: torch.Generator) -> None:
    images, sizes = pictures(4, 3, 16, 16, generator), torch.full((4, 2), 12, dtype=torch.int32)
    params = ViewSampler(SIMCLR, 16).sample(4, sizes, generator=generator)
    compiled = torch.compile(augment, fullgraph=True, backend="aot_eager")
    views = augment(images, params, 16, sizes=sizes)
    torch.testing.assert_close(compiled(images, params, 16, sizes=sizes), views, rtol=0, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("floor", ["cuda", "reference"])
def test_on_the_gpu(floor: str, generator: torch.Generator) -> None:
    images = pictures(32, 3, 40, 40, generator)
    sizes = torch.randint(5, 41, (32, 2), generator=generator, dtype=torch.int32)
    params = ViewSampler(SIMCLR, 32).sample(32, sizes, generator=generator)
    rows = [getattr(params, name).cuda() for name in LAYOUT]
    rest = ((32, 32), list(params.steps), True, "simclr", params.blur_radius, [], [], torch.float32)
    on_gpu = IMPLS["augment"][floor](images.cuda(), sizes.cuda(), *rows, *rest)
    torch.testing.assert_close(on_gpu.cpu(), augment(images, params, 32, sizes=sizes), rtol=0, atol=1e-4)
