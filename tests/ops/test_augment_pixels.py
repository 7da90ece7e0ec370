"""ops.augment of other pixels than uint8 and of any number of channels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from views import EVERYTHING, pictures

from sslfast.augment import Preset, ViewSampler
from sslfast.ops import augment
from sslfast.ops.registry import IMPLS
from sslfast.ops.view_params import LAYOUT

COLOURLESS = Preset(brightness=0.5, contrast=0.5, blur=0.5, solarize=0.3, interpolation="bicubic")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_the_same_picture_in_another_type_has_the_same_views(
    channels: int, dtype: torch.dtype, generator: torch.Generator
) -> None:
    images = pictures(6, channels, 20, 30, generator)
    params = ViewSampler(replace(EVERYTHING, hue=0.0, solarize=0.0), 16).sample(6, (20, 30), generator=generator)
    other = (images.int() * 257).to(torch.uint16) if dtype == torch.uint16 else (images.double() / 255).to(dtype)
    step = torch.finfo(dtype).eps if dtype.is_floating_point else 0  # 1/255 is no float
    for wanted in (torch.float32, torch.float64):
        found, expected = (augment(x, params, 16, dtype=wanted) for x in (other, images))
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6 + 4 * step)


def test_sixteen_bits_are_not_rounded_to_eight(generator: torch.Generator) -> None:
    images = torch.arange(1000, 1064, dtype=torch.int32).view(1, 1, 8, 8).to(torch.uint16)
    params = ViewSampler(Preset(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0), 8).sample(1, (8, 8))
    torch.testing.assert_close(augment(images, params, 8), images.float() / 65535, rtol=1e-6, atol=0)


@pytest.mark.parametrize("mode", ["torchvision", "simclr"])
@pytest.mark.parametrize("channels", [2, 4, 12])
def test_any_number_of_channels(channels: int, mode: str, generator: torch.Generator, poisoned_memory: None) -> None:
    images = pictures(20, channels, 33, 40, generator)
    params = ViewSampler(replace(EVERYTHING, mode=mode), (24, 17)).sample(20, (33, 40), generator=generator)
    normalized = {"mean": [0.1 * c for c in range(channels)], "std": [0.2 + c for c in range(channels)]}
    exact = augment(images, params, (24, 17), dtype=torch.float64, **normalized)
    torch.testing.assert_close(augment(images, params, (24, 17), **normalized).double(), exact, rtol=0, atol=5e-4)
    without = replace(params, steps=tuple(s for s in params.steps if s not in ("saturation", "hue", "grayscale")))
    assert torch.equal(augment(images, params, (24, 17)), augment(images, without, (24, 17)))


def test_without_contrast_every_channel_is_an_image_of_its_own(generator: torch.Generator) -> None:
    images = pictures(8, 5, 20, 20, generator)
    params = ViewSampler(replace(COLOURLESS, contrast=0.0), 16).sample(8, (20, 20), generator=generator)
    together = augment(images, params, 16)
    for c in range(5):
        torch.testing.assert_close(together[:, c : c + 1], augment(images[:, c : c + 1], params, 16), rtol=0, atol=1e-6)


def test_contrast_is_around_the_mean_of_all_channels(generator: torch.Generator) -> None:
    images = pictures(2, 5, 16, 16, generator)
    params = ViewSampler(Preset(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0.0, contrast=0.5), 16)
    drawn = params.sample(2, (16, 16), generator=generator)
    drawn = replace(drawn, jitter=torch.tensor([1.0, 0.5, 1.0, 0.0]).repeat(2, 1))
    x = images.float() / 255
    expected = 0.5 * x + 0.5 * x.mean(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(augment(images, drawn, 16), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("preset", [EVERYTHING, Preset(flip=0.5)], ids=["everything", "crop"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_floats_outside_the_range_are_cut_to_it(dtype: torch.dtype, preset: Preset, generator: torch.Generator) -> None:
    images = 3 * torch.rand(6, 3, 20, 30, generator=generator, dtype=torch.float64).to(dtype) - 1
    images[0, 0, 3, 4], images[0, 1, 3, 4] = float("inf"), float("-inf")
    params = ViewSampler(preset, 16).sample(6, (20, 30), generator=generator)
    for wanted in (torch.float32, torch.float64):
        found, expected = (augment(x, params, 16, dtype=wanted) for x in (images, images.clamp(0, 1)))
        assert torch.equal(found, expected)
        assert found.isfinite().all()


def test_nan_stays_nan(generator: torch.Generator) -> None:
    images = torch.rand(2, 3, 16, 16, generator=generator)
    images[0, 1, 5, 5] = torch.nan
    params = ViewSampler(COLOURLESS, 12).sample(2, (16, 16), generator=generator)
    params = replace(params, crop=torch.tensor([[0, 0, 16, 16]] * 2, dtype=torch.int32))
    views = augment(images, params, 12)
    assert views[0].isnan().any()
    assert not views[1].isnan().any()


@pytest.mark.parametrize(("dtype", "channels"), [(torch.uint16, 1), (torch.float32, 3), (torch.uint8, 5)])
def test_opcheck(dtype: torch.dtype, channels: int, generator: torch.Generator) -> None:
    images = pictures(3, channels, 20, 20, generator).to(dtype)
    params = ViewSampler(COLOURLESS, 16).sample(3, (20, 20), generator=generator)
    rows = [getattr(params, name) for name in LAYOUT]
    rest = ([16, 16], list(params.steps), True, params.mode, params.blur_radius, [], [], torch.float32)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.sslfast.augment.default, (images, None, *rows, *rest), test_utils=tests)
    assert "augment" in IMPLS


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "channels"), [(torch.uint16, 1), (torch.float32, 3), (torch.uint8, 5)])
def test_on_the_gpu(dtype: torch.dtype, channels: int, generator: torch.Generator) -> None:
    images = pictures(4, channels, 20, 20, generator).to(dtype)
    images = images / 255 if dtype.is_floating_point else images
    params = ViewSampler(COLOURLESS, 16).sample(4, (20, 20), generator=generator)
    on_gpu, on_cpu = augment(images.cuda(), params.to("cuda"), 16), augment(images, params, 16)
    torch.testing.assert_close(on_gpu.cpu(), on_cpu, rtol=0, atol=1e-4)
