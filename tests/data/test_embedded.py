from __future__ import annotations

import pytest
import torch

from sslfast.data import TensorImages, load_images, normalization


@pytest.mark.parametrize(
    ("name", "shape", "train", "test", "classes"),
    [("digits", (1, 8, 8), 1437, 360, 10), ("photos", (3, 64, 64), 2400, 600, 12)],
)
def test_shapes_counts_and_normalisation(
    name: str, shape: tuple[int, int, int], train: int, test: int, classes: int
) -> None:
    for split, count in (("train", train), ("test", test)):
        images = load_images(name, split)
        assert isinstance(images, TensorImages)
        assert images.shape == shape
        assert images.images.shape == (count, *shape)
        assert images.images.dtype == torch.uint8
        assert len(images) == count
        assert len(images.classes) == classes
        per_class = images.labels.bincount(minlength=classes).float()
        assert per_class.min() > 0.9 * per_class.max()  # stratified
    pixels = load_images(name, "train").images.double() / 255
    mean, std = normalization(name)
    torch.testing.assert_close(pixels.mean(dim=(0, 2, 3)), torch.tensor(mean).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        pixels.transpose(0, 1).flatten(1).std(dim=1), torch.tensor(std).double(), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("name", ["digits", "photos"])
def test_the_seed_determines_a_split(name: str) -> None:
    first, again, other = (load_images(name, "test", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.images, other.images)


def test_the_splits_of_digits_make_up_scikit_learns_digits() -> None:
    from sklearn.datasets import load_digits

    splits = [load_images("digits", split) for split in ("train", "test")]
    ours = torch.cat([torch.cat([s.images.flatten(1), s.labels[:, None]], dim=1) for s in splits]).tolist()
    digits = load_digits()
    theirs = [[round(v * 255 / 16) for v in row] + [label] for row, label in zip(digits.data.tolist(), digits.target)]
    assert sorted(ours) == sorted(theirs)


def test_train_and_test_crops_share_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """With every pixel of a photograph replaced by its own number, crops tell where they come from."""
    import numpy as np

    from sslfast.data import embedded

    number = np.arange(300 * 450).reshape(300, 450)
    photo = np.stack([number // 65536, number // 256 % 256, number % 256], axis=2).astype(np.uint8)
    monkeypatch.setattr(embedded, "photographs", lambda: {"numbered": photo})
    seen = {}
    for split in ("train", "test"):
        red, green, blue = embedded.load_photos(split, 0).images.long().unbind(1)
        seen[split] = set((red * 65536 + green * 256 + blue).flatten().tolist())
    assert not seen["train"] & seen["test"]
    assert len(seen["train"]) > 2 * len(seen["test"]) > 20_000
