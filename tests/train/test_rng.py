from __future__ import annotations

import io
import random

import numpy as np
import torch

from sslfast.train.rng import rng_state, set_rng_state


def test_every_generator_continues_where_it_was() -> None:
    generator = torch.Generator().manual_seed(1)

    def draw() -> list[float]:
        views = torch.rand(1, generator=generator).item()
        return [random.random(), np.random.rand(), np.random.randn(), torch.rand(1).item(), views]  # noqa: NPY002

    draw()
    file = io.BytesIO()
    torch.save(rng_state(generator), file)
    expected = draw()
    file.seek(0)
    set_rng_state(torch.load(file, weights_only=True), generator)
    assert draw() == expected
