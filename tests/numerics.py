"""The numeric bar: an op may err at most twice as much as the same formula in eager PyTorch at the op's dtype."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_as_accurate(
    actual: Tensor,
    eager: Tensor,
    exact: Tensor,
    what: str = "result",
    *,
    dtype: torch.dtype | None = None,
    inherent: float = 0.0,
) -> None:
    """Both against the float64 `exact`, in the 2-norm and in the largest element, plus one ulp of the op's `dtype`.

    inherent: what an ulp of the inputs changes the result by, for a single number, which eager may get right by luck.
    """
    assert actual.shape == exact.shape, f"{what}: shape {tuple(actual.shape)}, wanted {tuple(exact.shape)}"
    exact = exact.double().cpu()
    error, allowed = (x.double().cpu() - exact for x in (actual, eager))
    ulp = torch.finfo(dtype or actual.dtype).eps
    for name, norm in (("2-norm", torch.linalg.vector_norm), ("largest", lambda x: x.abs().max())):
        bar = 2 * norm(allowed) + ulp * norm(exact) + inherent
        assert norm(error) <= bar, f"{what}: error {norm(error):.3e} ({name}) exceeds {bar:.3e}"
