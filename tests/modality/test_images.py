from __future__ import annotations

import pytest
import torch

from sslfast.modality.images import RawPixels, to_inputs

COLOUR = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}


def random_images(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_inputs_are_resized_by_the_shorter_side_cut_and_normalised():
    images = random_images(4, (3, 40, 20))
    inputs = to_inputs(images, size=20, **COLOUR)
    middle = images[:, :, 10:30].float() / 255
    wanted = (middle - torch.tensor(COLOUR["mean"])[:, None, None]) / torch.tensor(COLOUR["std"])[:, None, None]
    torch.testing.assert_close(inputs, wanted)
    flat = to_inputs(torch.full((1, 3, 30, 50), 255, dtype=torch.uint8), size=7, **COLOUR)
    assert flat.shape == (1, 3, 7, 7)
    torch.testing.assert_close(flat[0, :, 3, 3], torch.tensor([0.5 / 0.2, 0.6 / 0.3, 0.7 / 0.4]))
    enlarged = to_inputs(random_images(2, (1, 8, 8)), size=16, mean=(0.0,), std=(1.0,))
    assert enlarged.shape == (2, 1, 16, 16)
    assert 0 <= enlarged.min() <= enlarged.max() <= 1


def test_channels_are_those_of_the_network():
    gray, colour = random_images(2, (1, 6, 6)), random_images(2, (3, 6, 6))
    zero_one = {"mean": (0.0,) * 3, "std": (1.0,) * 3}
    repeated = to_inputs(gray, size=None, **zero_one)
    torch.testing.assert_close(repeated, (gray.float() / 255).repeat(1, 3, 1, 1))
    luma = to_inputs(colour, size=None, mean=(0.0,), std=(1.0,))
    red, green, blue = (colour.float() / 255).unbind(1)
    torch.testing.assert_close(luma[:, 0], 0.2989 * red + 0.587 * green + 0.114 * blue)
    with pytest.raises(ValueError, match="images have 3 channels, but the network was trained on 2"):
        to_inputs(colour, size=None, mean=(0.0,) * 2, std=(1.0,) * 2)


def test_raw_pixels_are_the_pixels_or_their_means():
    small, large = torch.randn(2, 3, 32, 32), torch.randn(2, 1, 64, 64)
    assert torch.equal(RawPixels()(small), small.flatten(1))
    means = large.unflatten(3, (32, 2)).unflatten(2, (32, 2)).mean(dim=(3, 5))
    torch.testing.assert_close(RawPixels()(large), means.flatten(1))
