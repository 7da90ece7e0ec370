"""The Triton kernel of augment, called directly and held to the reference in float64: on a GPU, and on the CPU under
Triton's interpreter in a process of its own; and compiled to machine code for several chips, which needs no GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import pytest
import torch
from views import EVERYTHING, pictures

from sslfast.augment import ViewParams, ViewSampler
from sslfast.kernels import reference_augment
from sslfast.ops.view_params import LAYOUT, STEPS

triton = pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if INTERPRETED:
    import triton_interpreter  # noqa: F401
else:
    from triton_compile import assert_fits, recorded_launches

from sslfast.kernels.triton import augment as kernels  # noqa: E402

DEVICE = "cpu" if INTERPRETED else "cuda"
compiles = pytest.mark.skipif(INTERPRETED, reason="the interpreter compiles nothing")
MODES = ["torchvision", "simclr"]
FLAVOURS = [("bilinear", "torchvision"), ("bicubic", "torchvision"), ("bicubic", "simclr")]


def runs(test):
    """Marks what runs kernels."""
    test = pytest.mark.usefixtures("poisoned_memory")(test)
    return test if INTERPRETED else pytest.mark.gpu(test)


@pytest.fixture
def small_tiles(monkeypatch):
    """128 pixels at a time, blocks of 12 rows at most: small views have several of both, and the last are not full."""
    monkeypatch.setattr(kernels, "PIXELS", 128)
    monkeypatch.setattr(kernels, "BLOCK", 12)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def run(function, images, params, size, dtype, sizes=None, mean=(), std=()):
    rows = [getattr(params.to(images.device), name) for name in LAYOUT]
    bicubic = params.interpolation == "bicubic"
    if function is kernels.augment:
        rest = (size, params.steps, bicubic, params.mode, params.blur_radius, mean, std, dtype)
        return kernels.augment(images, sizes, *rows, *rest)
    return reference_augment.augment(
        images,
        sizes,
        *rows,
        size=size,
        steps=params.steps,
        bicubic=bicubic,
        mode=params.mode,
        blur_radius=params.blur_radius,
        mean=mean or None,
        std=std or None,
        dtype=dtype,
    )


def views(images, params, size, dtype=torch.float32, **rest):
    return run(kernels.augment, images.to(DEVICE), params, size, dtype, **rest)


def check(images, params, size, worst=1e-4, **rest):
    actual = views(images, params, size, **rest)
    exact = run(reference_augment.augment, images.to(DEVICE), params, size, torch.float64, **rest)
    error = (actual.double() - exact).abs()
    for i, view in enumerate(error):
        assert view.max() <= worst, params.describe(i)
        assert view.mean() <= worst / 10, params.describe(i)


@runs
@pytest.mark.parametrize(("interpolation", "mode"), FLAVOURS)
@pytest.mark.parametrize(("channels", "source", "size"), [(3, (13, 20), (15, 9)), (1, (30, 20), (9, 16))])
def test_the_chain(channels, source, size, interpolation, mode, small_tiles, generator):
    images = pictures(3, channels, *source, generator)
    preset = replace(EVERYTHING, interpolation=interpolation, mode=mode, blur_window=0.5)
    params = ViewSampler(preset, size).sample(3, source, generator=generator)
    check(images, params, size, worst=5e-4, mean=(0.4,) * channels, std=(0.2,) * channels)


@runs
def test_default_tiles(generator):
    images = pictures(1, 3, 45, 70, generator)
    params = ViewSampler(replace(EVERYTHING, blur=1.0), (66, 41)).sample(1, (45, 70), generator=generator)
    check(images, params, (66, 41))


@runs
@pytest.mark.parametrize(("interpolation", "mode"), FLAVOURS)
@pytest.mark.parametrize("size", [(1, 1), (13, 11)])
def test_crop_resize_flip(size, interpolation, mode, small_tiles, generator):
    images = pictures(7, 3, 19, 27, generator)
    boxes = [
        (0, 0, 19, 27),
        (5, 9, 9, 12),
        (18, 26, 1, 1),
        (0, 0, 1, 27),
        (3, 25, 16, 2),
        (-5, 20, 9, 99),
        (50, 60, 3, 3),
    ]
    params = replace(
        ViewParams.identity(7, (19, 27)),
        crop=torch.tensor(boxes, dtype=torch.int32),
        flip=torch.arange(7) % 2 == 0,
        interpolation=interpolation,
        mode=mode,
    )
    check(images, params, size, worst=1e-5)


@runs
def test_positions_are_exact_in_a_wide_source(small_tiles, generator):
    """A centre in float32 would be 1e-3 pixel off there."""
    images = torch.zeros(1, 1, 1, 20_000, dtype=torch.uint8)
    images[..., ::2] = 255
    params = replace(ViewParams.identity(1, (1, 20_000)), crop=torch.tensor([[0, 19_970, 1, 7]], dtype=torch.int32))
    check(images, params, (1, 30), worst=1e-5)


@runs
def test_padded_sources_are_read_no_further_than_their_size(small_tiles, generator):
    images = pictures(3, 3, 20, 24, generator)
    sizes = torch.tensor([[9, 14], [20, 24], [1, 3]], dtype=torch.int32)
    params = replace(ViewParams.identity(3, (20, 24)), interpolation="bicubic")
    check(images, params, (10, 12), worst=1e-5, sizes=sizes.to(DEVICE))
    noisy = images.clone()
    for i, (height, width) in enumerate(sizes.tolist()):
        noisy[i, :, height:], noisy[i, :, :, width:] = 255, 255
    before, after = (views(x, params, (10, 12), sizes=sizes.to(DEVICE)) for x in (images, noisy))
    assert torch.equal(before, after)


@runs
@pytest.mark.parametrize("mode", MODES)
def test_every_order_of_the_four_adjustments(mode, small_tiles, generator):
    orders = torch.tensor(list(permutations(range(4))), dtype=torch.int32)
    images = pictures(1, 3, 6, 6, generator).repeat(24, 1, 1, 1)
    images[:, :, :1], images[:, :, 1, :3] = 0, 255
    params = replace(
        ViewParams.identity(24, (6, 6)),
        jitter=torch.tensor([1.6, 0.5, 1.9, 0.17]).repeat(24, 1),
        order=orders,
        steps=STEPS[:4],
        mode=mode,
    )
    check(images, params, (6, 6))


@runs
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "radius"), [((5, 18), 1), ((14, 9), 7)])
def test_blur(size, radius, mode, small_tiles, generator):
    images = pictures(5, 3, *size, generator)
    sigma = torch.tensor([0.0, 0.1, 0.7, 2.0, 50.0])
    params = replace(ViewParams.identity(5, size), blur=sigma, blur_radius=radius, steps=("blur",), mode=mode)
    check(images, params, size, worst=1e-5)
    assert torch.equal(views(images, params, size)[0], views(images[:1], replace(params, steps=())[0], size)[0])


@runs
@pytest.mark.parametrize("channels", [1, 3])
def test_steps_that_are_left_out_change_nothing(channels, small_tiles, generator):
    images = pictures(3, channels, 9, 9, generator)
    drawn = ViewSampler(replace(EVERYTHING, crop_scale=(1, 1), crop_ratio=(1, 1), flip=0), 9).sample(3, (9, 9))
    plain = views(images, replace(drawn, steps=()), (9, 9))
    torch.testing.assert_close(plain.cpu(), images / 255, rtol=0, atol=1e-6)


@runs
def test_solarization_begins_at_the_threshold(small_tiles):
    images = torch.tensor([[[[0, 100, 254, 255]]]], dtype=torch.uint8)
    params = replace(ViewParams.identity(1, (1, 4)), solarize=torch.ones(1), steps=("solarize",))
    expected = torch.tensor([0, 100 / 255, 254 / 255, 0])
    torch.testing.assert_close(views(images, params, (1, 4)).flatten().cpu(), expected, rtol=0, atol=1e-6)


@runs
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_dtypes_are_rounded_once(dtype, small_tiles, generator):
    images = pictures(3, 3, 12, 12, generator)
    params = ViewSampler(EVERYTHING, 10).sample(3, (12, 12), generator=generator)
    assert torch.equal(views(images, params, (10, 10), dtype), views(images, params, (10, 10)).to(dtype))


@runs
def test_neither_the_chip_nor_the_layout_matters(small_tiles, generator, monkeypatch):
    images = pictures(2, 3, 12, 14, generator)
    params = ViewSampler(EVERYTHING, (18, 9)).sample(2, (12, 14), generator=generator)
    expected = views(images, params, (18, 9))
    assert torch.equal(views(images.to(memory_format=torch.channels_last), params, (18, 9)), expected)
    assert torch.equal(views(images.repeat_interleave(2, dim=3)[..., ::2], params, (18, 9)), expected)
    for multiprocessors in (2, 100):
        monkeypatch.setattr(kernels, "_multiprocessors", lambda device, number=multiprocessors: number)
        assert torch.equal(views(images, params, (18, 9)), expected)


@runs
@pytest.mark.parametrize("where", ["brightness", "contrast", "saturation", "hue", "blur"])
def test_nan_in_nan_out(where, small_tiles, generator):
    images = pictures(2, 3, 9, 9, generator)
    params = replace(ViewParams.identity(2, (9, 9)), steps=STEPS, blur_radius=2)
    if where == "blur":
        params.blur[1] = torch.nan
    else:
        params.jitter[1, STEPS.index(where)] = torch.nan
    broken = views(images, params, (9, 9)).isnan()
    assert broken[1].all()
    assert not broken[0].any()


@compiles
def test_under_the_interpreter():
    """All that `runs` here, on CPU tensors: Triton decides at its import whether it interprets."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(Path(__file__).resolve())]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


VIEWS = {
    "224": ("simclr", 3, (256, 256), 224, torch.bfloat16),
    "cifar": ("simclr-cifar", 3, (32, 32), 32, torch.float32),
    "mnist": ("mnist-like", 1, (28, 28), 28, torch.float16),
}
QUICK = [("224", 80, "torchvision"), ("224", 90, "simclr"), ("224", 100, "torchvision"), ("mnist", 90, "torchvision")]
CASES = [
    pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow])
    for case in product(VIEWS, (80, 90, 100), MODES)
]


@compiles
@pytest.mark.parametrize(("name", "capability", "mode"), CASES)
def test_compiles_without_spills(name, capability, mode, monkeypatch):
    preset, channels, source, size, dtype = VIEWS[name]
    images = torch.empty(64, channels, *source, dtype=torch.uint8)
    params = replace(ViewSampler(preset, size).sample(64, source), mode=mode)
    normalized = {"mean": (0.5,) * channels, "std": (0.2,) * channels}
    launches, _ = recorded_launches(
        monkeypatch, lambda: run(kernels.augment, images, params, (size, size), dtype, **normalized)
    )
    kernel_names = ["augment_mean_kernel", "augment_sharp_kernel", "augment_blur_kernel"]
    assert [launch.kernel.__name__ for launch in launches] == kernel_names[: 2 + ("blur" in params.steps)]
    for launch in launches:
        assert_fits(launch, capability)
