"""Offsets from 2**31 elements on: every kernel that takes strides reads the same of a tensor spread that far.

Run under Triton's interpreter, in a process of its own, whose integers are as wide as the compiled kernels'. The
tensors lie in files that are almost all holes.
"""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton_kernels import INTERPRETED, compiles, run_interpreted

from sslfast.augment import ViewParams
from sslfast.kernels.triton import (
    augment,
    clip_loss,
    gather_patches,
    gather_tokens,
    info_nce,
    masked_patch_loss,
    negative_cosine_similarity,
    nt_xent,
    restore_tokens,
    unit_rows,
)
from sslfast.kernels.triton.augment_filters import resampling
from sslfast.ops.view_params import LAYOUT

interpreted = pytest.mark.skipif(not INTERPRETED, reason="a file is memory of the CPU")


@pytest.fixture
def spread(tmp_path, monkeypatch):
    """A copy of x whose last element of dimension `dim` begins 2**31 elements behind the first or later."""
    from triton.runtime.interpreter import GridExecutor

    # It would copy every storage onto itself, holes and all.
    monkeypatch.setattr(GridExecutor, "_restore_args_dev", lambda *_: None)

    def copy(x, dim):
        strides = list(x.contiguous().stride())
        strides[dim] = 2**31 // (x.shape[dim] - 1) + 16
        span = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, strides))
        memory = torch.from_file(str(tmp_path / "memory"), shared=True, size=span, dtype=x.dtype)
        return memory.as_strided(x.shape, strides).copy_(x)

    return copy


def random(*shape, dtype=torch.float16):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


KEEP = torch.tensor([[2, 0], [1, 2], [0, 1]])
RESTORE = torch.tensor([[2, 0, 1], [0, 3, 1], [1, 0, 2]])
MASK = torch.tensor([[True, False, True], [False, True, True], [True, True, True]])


def augmented(images):
    params = ViewParams.identity(3, (3, 4))
    rows = [getattr(params, name) for name in LAYOUT]
    return augment.augment(images, None, *rows, (3, 4), (), False, "torchvision", 0, (), (), torch.float32)


CASES = {
    "augment": (augmented, random(3, 3, 3, 4).mul(50).abs().to(torch.uint8)),
    "gather_patches": (lambda x: gather_patches.forward(x, KEEP[:, :1] * 0, 3, [], [], x.dtype), random(3, 3, 3, 3)),
    "masked_patch_loss images": (
        lambda x: masked_patch_loss.forward(random(3, 3, 27), x, MASK, 3, True, [], []),
        random(3, 3, 3, 9),
    ),
    "masked_patch_loss predictions": (
        lambda x: masked_patch_loss.forward(x, random(3, 3, 3, 9), MASK, 3, True, [], []),
        random(3, 3, 27),
    ),
    "masked_patch_loss gradient": (
        lambda x: masked_patch_loss.backward(
            torch.ones(()),
            x,
            random(3, 3, 3, 9),
            MASK,
            torch.ones(3, 3),
            torch.ones(3, 3),
            torch.ones(()),
            3,
            True,
            [],
            [],
        ),
        random(3, 3, 27),
    ),
    "gather_tokens": (lambda x: gather_tokens.forward(x, KEEP), random(3, 3, 4)),
    "gather_tokens gradient": (lambda x: gather_tokens.backward(x, RESTORE, 4), random(3, 3, 4)),
    "restore_tokens": (lambda x: restore_tokens.forward(x, RESTORE, random(4), None), random(3, 3, 4)),
    "restore_tokens mask token": (lambda x: restore_tokens.forward(random(3, 2, 4), RESTORE, x, None), random(4)),
    "restore_tokens positions": (
        lambda x: restore_tokens.forward(random(3, 2, 4), RESTORE, random(4), x),
        random(3, 4),
    ),
    "restore_tokens gradient": (lambda x: restore_tokens.backward(x, RESTORE, 2, True), random(3, 3, 4)),
    "negative_cosine_similarity": (lambda x: negative_cosine_similarity.forward(x, random(3, 4)), random(3, 4)),
    "negative_cosine_similarity gradient": (
        lambda x: negative_cosine_similarity.backward(torch.ones(3), random(3, 4), x, True, True),
        random(3, 4),
    ),
    "nt_xent": (lambda x: nt_xent.forward(x, random(3, 4), 0.5, None), random(3, 4)),
    "clip_loss": (lambda x: clip_loss.forward(x, random(3, 4), 0.5, None), random(3, 4)),
    "unit_rows": (lambda x: unit_rows.normalize(x, random(3, 4)), random(3, 4)),
    "info_nce": (lambda x: info_nce.forward(random(3, 4), x, None, 0.5, None, True), random(3, 4)),
}


@interpreted
@pytest.mark.parametrize(("name", "dim"), [(name, dim) for name, (_, x) in CASES.items() for dim in range(x.dim())])
def test_the_values_of_a_tensor_that_is_spread(name, dim, spread):
    function, x = CASES[name]
    outputs, expected = function(spread(x, dim)), function(x)
    if isinstance(outputs, torch.Tensor):
        outputs, expected = (outputs,), (expected,)
    for actual, wanted in zip(outputs, expected, strict=True):
        assert torch.equal(actual, wanted)
        assert not wanted.isnan().any()


@triton.jit
def _positions(table, first, length, target: tl.constexpr):
    resampling(table, first + tl.arange(0, 16), length, target, 1.0, 16, False, True)


@interpreted
def test_positions_in_a_source_and_a_view_whose_product_is_large():
    """Twice the product of their heights passes 2**32."""
    size = 2**16
    table = torch.zeros(1 + 4, 16)
    _positions[(1,)](table, size - 16, size, size)
    first, weights = table[0].long(), table[1:]
    centres = (weights * (first + torch.arange(4)[:, None])).sum(dim=0)
    assert torch.equal(centres, torch.arange(size - 16.0, size))


@compiles
def test_under_the_interpreter():
    run_interpreted(__file__)
