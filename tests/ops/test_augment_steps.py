"""Each step of ops.augment against torchvision's functional transform, image by image with the same parameters."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from views import assert_like_torchvision, pictures

from sslfast.augment import ViewParams
from sslfast.ops.augment import augment
from sslfast.ops.view_params import STEPS

IDENTITY = (1.0, 1.0, 1.0, 0.0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (32, 32), (61, 90)])
def test_crop_resize_flip(interpolation: str, size: tuple[int, int], generator: torch.Generator) -> None:
    images = pictures(7, 3, 37, 53, generator)
    boxes = [
        (0, 0, 37, 53),
        (5, 9, 20, 30),
        (36, 52, 1, 1),
        (0, 0, 1, 53),
        (3, 50, 34, 2),
        (11, 13, 7, 5),
        (4, 0, 33, 17),
    ]
    params = replace(
        ViewParams.identity(7, (37, 53)),
        crop=torch.tensor(boxes, dtype=torch.int32),
        flip=torch.arange(7) % 2 == 0,
        interpolation=interpolation,
    )
    assert_like_torchvision(images, params, size, worst=1e-5)


def test_the_whole_source_at_its_own_size_is_the_source(generator: torch.Generator) -> None:
    images = pictures(3, 3, 19, 23, generator)
    for interpolation in ("bilinear", "bicubic"):
        params = replace(ViewParams.identity(3, (19, 23)), interpolation=interpolation)
        torch.testing.assert_close(augment(images, params, (19, 23)), images / 255)


def test_a_box_is_cut_to_the_source(generator: torch.Generator) -> None:
    images = pictures(4, 3, 20, 30, generator)
    outside = torch.tensor([(-5, -5, 15, 20), (10, 20, 100, 100), (50, 50, 3, 3), (0, -9, 20, 3)], dtype=torch.int32)
    inside = torch.tensor([(0, 0, 10, 15), (10, 20, 10, 10), (19, 29, 1, 1), (0, 0, 20, 1)], dtype=torch.int32)
    params = ViewParams.identity(4, (20, 30))
    cut = augment(images, replace(params, crop=outside), 16)
    torch.testing.assert_close(cut, augment(images, replace(params, crop=inside), 16), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["torchvision", "simclr"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_of_one_pixel(interpolation: str, mode: str, generator: torch.Generator) -> None:
    images = pictures(3, 3, 9, 70, generator)
    boxes = torch.tensor([(0, 0, 1, 1), (8, 69, 1, 1), (4, 33, 1, 1)], dtype=torch.int32)
    params = replace(ViewParams.identity(3, (9, 70)), crop=boxes, interpolation=interpolation, mode=mode)
    pixels = torch.stack([image[:, top, left] for image, (top, left, _, _) in zip(images, boxes)]) / 255
    views = augment(images, params, (19, 35))
    torch.testing.assert_close(views, pixels[:, :, None, None].expand_as(views), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", ["torchvision", "simclr"])
def test_a_huge_image(mode: str, generator: torch.Generator) -> None:
    """Shrunk 27 times: the mean of as many pixels with antialiasing, a few of them without."""
    image = torch.randint(0, 256, (1, 1, 4000, 6000), generator=generator, dtype=torch.uint8).expand(2, -1, -1, -1)
    boxes = torch.tensor([(0, 0, 4000, 6000), (3900, 5000, 100, 1000)], dtype=torch.int32)
    params = replace(ViewParams.identity(2, (4000, 6000)), crop=boxes, mode=mode)
    views, exact = augment(image, params, (30, 40)), augment(image, params, (30, 40), dtype=torch.float64)
    torch.testing.assert_close(views.double(), exact, rtol=0, atol=1e-5)
    if mode == "torchvision":
        assert_like_torchvision(image, params, (30, 40), worst=1e-5)
        assert (views[0] - 127.5 / 255).abs().max() < 0.02
    else:
        assert views[0].std() > 0.1


def test_a_tall_and_a_wide_image(generator: torch.Generator) -> None:
    for source in ((1, 700), (700, 1), (3, 17)):
        images = pictures(2, 3, *source, generator)
        assert_like_torchvision(images, ViewParams.identity(2, source), (20, 33), worst=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("column", "values"),
    [(0, (0.0, 0.3, 1.7)), (1, (0.0, 0.4, 1.8)), (2, (0.0, 0.5, 2.0)), (3, (-0.5, -0.1, 0.2, 0.5))],
    ids=STEPS[:4],
)
def test_each_colour_adjustment(
    column: int, values: tuple[float, ...], channels: int, generator: torch.Generator
) -> None:
    images = pictures(len(values), channels, 24, 24, generator)
    images[0, :, :8] = 0
    images[0, :, 8:12] = 255
    jitter = torch.tensor([IDENTITY] * len(values))
    jitter[:, column] = torch.tensor(values)
    params = replace(ViewParams.identity(len(values), (24, 24)), jitter=jitter, steps=(STEPS[column],))
    assert_like_torchvision(images, params, (24, 24), worst=1e-5)


def test_every_order_of_the_four_adjustments(generator: torch.Generator) -> None:
    orders = torch.tensor(list(permutations(range(4))), dtype=torch.int32)
    images = pictures(1, 3, 20, 20, generator).repeat(len(orders), 1, 1, 1)
    params = replace(
        ViewParams.identity(len(orders), (20, 20)),
        jitter=torch.tensor([1.6, 0.5, 1.9, 0.17]).repeat(len(orders), 1),
        order=orders,
        steps=STEPS[:4],
    )
    assert_like_torchvision(images, params, (20, 20))
    views = augment(images, params, 20).flatten(1)
    distance = torch.cdist(views, views) + torch.eye(len(views))
    assert distance.min() > 1e-2  # the order matters: no two of the 24 are alike


def test_hue_of_pure_colours() -> None:
    images = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [128, 128, 128], [0, 0, 0]])
    images = images.to(torch.uint8)[:, :, None, None]
    third = torch.tensor([1, 1, 1, 1 / 3]).repeat(6, 1)
    params = replace(ViewParams.identity(6, (1, 1)), jitter=third, steps=("hue",))
    turned = [[0, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 1], [128 / 255] * 3, [0, 0, 0]]
    torch.testing.assert_close(augment(images, params, 1)[:, :, 0, 0], torch.tensor(turned), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["torchvision", "simclr"])
@pytest.mark.parametrize(
    ("field", "column"), [("jitter", 0), ("jitter", 1), ("jitter", 2), ("jitter", 3), ("blur", None)]
)
def test_nan_does_not_become_a_number(field: str, column: int | None, mode: str, generator: torch.Generator) -> None:
    params = replace(ViewParams.identity(2, (9, 9)), mode=mode, steps=STEPS, blur_radius=2)
    values = getattr(params, field).clone()
    (values if column is None else values[:, column])[0] = torch.nan
    views = augment(pictures(2, 3, 9, 9, generator), replace(params, **{field: values}), 9)
    assert views[0].isnan().all()
    assert views[1].isfinite().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_grayscale(channels: int, generator: torch.Generator) -> None:
    images = pictures(4, channels, 16, 16, generator)
    gray = torch.tensor([True, False, True, False])
    params = replace(ViewParams.identity(4, (16, 16)), grayscale=gray, steps=("grayscale",))
    assert_like_torchvision(images, params, (16, 16), worst=1e-6)


@pytest.mark.parametrize(("size", "radius"), [((24, 24), 1), ((31, 18), 5), ((12, 40), 11)])
def test_blur(size: tuple[int, int], radius: int, generator: torch.Generator) -> None:
    images = pictures(5, 3, *size, generator)
    sigma = torch.tensor([0.0, 0.1, 0.7, 2.0, 50.0])
    params = replace(ViewParams.identity(5, size), blur=sigma, blur_radius=radius, steps=("blur",))
    assert_like_torchvision(images, params, size, worst=1e-5)
    unblurred = augment(images[:1], replace(params, steps=())[0], size)
    torch.testing.assert_close(augment(images, params, size)[:1], unblurred, rtol=0, atol=0)


def test_solarize(generator: torch.Generator) -> None:
    images = pictures(4, 3, 16, 16, generator)
    threshold = torch.tensor([torch.inf, 0.0, 0.501, 1.0])  # no uint8 value lies on 0.501
    params = replace(ViewParams.identity(4, (16, 16)), solarize=threshold, steps=("solarize",))
    assert_like_torchvision(images, params, (16, 16), worst=1e-6)


def test_normalisation(generator: torch.Generator) -> None:
    images, params = pictures(2, 3, 8, 8, generator), ViewParams.identity(2, (8, 8))
    mean, std = (0.1, 0.2, 0.3), (0.5, 2.0, 0.25)
    expected = reference.normalize(augment(images, params, 8), list(mean), list(std))
    torch.testing.assert_close(augment(images, params, 8, mean=mean, std=std), expected)
