from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from sslfast.augment import Preset, ViewParams, ViewSampler
from sslfast.ops.view_params import LAYOUT


@pytest.fixture
def params() -> ViewParams:
    preset = Preset(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, grayscale=0.2, blur=0.5, solarize=0.2)
    return ViewSampler(preset, 48).sample(6, (64, 80), generator=torch.Generator().manual_seed(1))


def assert_same(a: ViewParams, b: ViewParams) -> None:
    for field in fields(ViewParams):
        left, right = getattr(a, field.name), getattr(b, field.name)
        assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right, field.name


def test_saved_and_loaded_bit_for_bit(params: ViewParams, tmp_path) -> None:
    params.save(tmp_path / "views.pt")
    assert_same(ViewParams.load(tmp_path / "views.pt"), params)


def test_a_file_with_something_else_is_refused(tmp_path) -> None:
    torch.save({"crop": torch.zeros(1, 4)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt does not hold view parameters"):
        ViewParams.load(tmp_path / "other.pt")


def test_rows_are_taken_by_number_slice_and_mask(params: ViewParams) -> None:
    assert len(params) == 6
    assert len(params[2]) == 1
    assert_same(params[-1], params[5:6])
    assert_same(params[torch.tensor([4, 5])], params[4:])
    assert_same(params[torch.arange(6) < 2], params[:2])
    assert [len(row) for row in params] == [1] * 6  # ends, as a sequence does
    with pytest.raises(IndexError):
        params[6]


def test_moves_between_devices(params: ViewParams) -> None:
    moved = params.to("meta")
    assert moved.device == torch.device("meta")
    assert all(getattr(moved, name).device == torch.device("meta") for name in LAYOUT)
    assert (moved.steps, moved.blur_radius, moved.interpolation) == (
        params.steps,
        params.blur_radius,
        params.interpolation,
    )


def test_describe_tells_what_happens_in_its_order() -> None:
    params = ViewParams(
        crop=torch.tensor([[3, 5, 20, 24], [0, 0, 64, 64]], dtype=torch.int32),
        flip=torch.tensor([True, False]),
        jitter=torch.tensor([[1.25, 0.5, 1.0, -0.1], [1.0, 1.0, 1.0, 0.0]]),
        order=torch.tensor([[3, 1, 2, 0], [0, 1, 2, 3]], dtype=torch.int32),
        grayscale=torch.tensor([True, False]),
        blur=torch.tensor([1.5, 0.0]),
        solarize=torch.tensor([0.5, torch.inf]),
        blur_radius=3,
    )
    assert params.describe(0) == (
        "crop 20x24 at (3, 5), flip, hue -0.100, contrast 0.50, brightness 1.25, grayscale, blur 1.50 px, "
        "solarize from 0.50"
    )
    assert params.describe(1) == "crop 64x64 at (0, 0)"
    assert replace(params, steps=("hue",)).describe(0) == "crop 20x24 at (3, 5), flip, hue -0.100"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"flip": torch.zeros(6)}, TypeError, "flip must be a tensor of torch.bool, got torch.float32"),
        ({"order": None}, TypeError, "order must be a tensor of torch.int32"),
        ({"blur": torch.zeros(5)}, ValueError, r"blur must have shape \(6,\) as crop has, got \(5,\)"),
        ({"crop": torch.zeros(6, 3, dtype=torch.int32)}, ValueError, r"crop must have shape \(6, 4\)"),
        ({"blur": torch.zeros(6, device="meta")}, ValueError, "blur must be on cpu as crop is, got meta"),
        ({"steps": ("blur", "sharpen")}, ValueError, "steps must be among .*, got sharpen"),
        ({"interpolation": "nearest"}, ValueError, "interpolation must be one of bilinear, bicubic, got 'nearest'"),
        ({"blur_radius": -1}, ValueError, "blur_radius must be >= 0, got -1"),
    ],
)
def test_wrong_fields_are_named(params: ViewParams, change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        replace(params, **change)
