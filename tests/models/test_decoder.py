from __future__ import annotations

import pytest
import torch

from sslfast.models import PixelDecoder


@pytest.mark.parametrize(("in_size", "out_size"), [(2, 8), (7, 56), (8, 8), (8, 4), (3, 10)])
def test_shape_of_the_prediction(in_size: int, out_size: int) -> None:
    decoder = PixelDecoder(6, in_size, 3, out_size, width=4)
    assert decoder(torch.rand(2, 6, in_size, in_size)).shape == (2, 3, out_size, out_size)


def test_a_size_below_one_is_named() -> None:
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        PixelDecoder(6, 2, 3, 8, width=0)
