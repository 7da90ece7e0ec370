from __future__ import annotations

import pytest
import torch

from sslfast.data import TensorImages, batches


@pytest.fixture
def images() -> TensorImages:
    pixels = torch.arange(23, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, 2, 2)
    return TensorImages(pixels, torch.arange(23) % 5, list("abcde"))


def visited(*args, **options) -> list[list[int]]:
    found = []
    for index, pixels, labels in batches(*args, **options):
        assert pixels.shape == (len(index), 3, 2, 2)
        assert pixels.dtype == torch.uint8
        assert index.dtype == labels.dtype == torch.int64
        assert torch.equal(pixels[:, 0, 0, 0].long(), index)
        assert torch.equal(labels, index % 5)
        found.append(index.tolist())
    return found


def test_in_their_own_order(images: TensorImages) -> None:
    assert visited(images, 10) == [[*range(10)], [*range(10, 20)], [20, 21, 22]]
    assert visited(images, 10, drop_last=True) == [[*range(10)], [*range(10, 20)]]
    assert visited(images, 23, drop_last=True) == [[*range(23)]]
    assert visited(images, 24, drop_last=True) == []


def test_start_skips_batches_and_leaves_the_others_as_they_were(images: TensorImages) -> None:
    order = torch.randperm(23, generator=torch.Generator().manual_seed(0))
    full = visited(images, 5, order=order, drop_last=True)
    assert [i for part in full for i in part] == order[:20].tolist()
    for start in range(6):
        assert visited(images, 5, order=order, drop_last=True, start=start) == full[start:]


def test_a_shard_or_a_repetition(images: TensorImages) -> None:
    assert visited(images, 4, order=torch.arange(23)[1::4]) == [[1, 5, 9, 13], [17, 21]]
    assert visited(images, 4, order=torch.tensor([3, 3, 3])) == [[3, 3, 3]]
    assert visited(images, 4, order=torch.tensor([], dtype=torch.int64)) == []


def test_the_set_is_copied_to_a_device_once(images: TensorImages) -> None:
    assert images.on("cpu") is images.images
    assert images.on("meta") is images.on("meta")
    index, pixels, labels = next(batches(images, 4, device="meta"))
    assert {index.device.type, pixels.device.type, labels.device.type} == {"meta"}
    assert pixels.shape == (4, 3, 2, 2)


@pytest.mark.gpu
def test_on_the_gpu(images: TensorImages) -> None:
    index, pixels, labels = next(batches(images, 4, device="cuda", start=1))
    assert index.tolist() == [4, 5, 6, 7]
    assert pixels[:, 0, 0, 0].tolist() == [4, 5, 6, 7]
    assert labels.tolist() == [4, 0, 1, 2]
    assert images.on("cuda") is images.on("cuda")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"start": -1}, "start must be at least 0, got -1"),
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"order": torch.rand(3)}, r"order must be a vector of indices, got \(3,\) of torch.float32"),
        ({"order": torch.zeros(2, 2, dtype=torch.int64)}, r"order must be a vector of indices, got \(2, 2\)"),
        ({"order": torch.tensor([0, 23])}, "order must hold indices below 23, got 0 to 23"),
        ({"order": torch.tensor([-1])}, "order must hold indices below 23"),
    ],
)
def test_wrong_arguments_are_named_at_once(images: TensorImages, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches(images, **{"batch_size": 4} | options)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (torch.zeros(3, 1, 2, 2).int(), torch.tensor([0, 1, 0]), "images must be .* uint8, uint16 or float32"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0]), r"images must be \(3, C, H, W\)"),
        (torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 2, 0]), "labels must be indices into the 2"),
        (torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.rand(3), "labels must be a non-empty int64 vector"),
    ],
)
def test_a_set_that_does_not_fit_together_is_refused(pixels: torch.Tensor, labels: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TensorImages(pixels, labels, ["a", "b"])
