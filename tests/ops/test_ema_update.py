"""ops.ema_update_ against the float64 reference: dtypes, layouts, stochastic rounding."""

from __future__ import annotations

import pytest
import torch
from ema_pairs import HALVES, HALVES_AND_SINGLE, KINDS, SHAPES, bits, exact_update, pairs, tensors
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference_ema

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.996, 0.9999, 1.0])
@pytest.mark.parametrize(("target_dtype", "source_dtype"), KINDS, ids=str)
def test_values_of_ragged_lists(target_dtype, source_dtype, momentum, device):
    targets, sources = pairs(device, target_dtype, source_dtype)
    eager = [torch.lerp(t.float(), s.float(), 1 - momentum).to(t.dtype) for t, s in zip(targets, sources)]
    exact = exact_update(targets, sources, momentum)
    ops.ema_update_(targets, sources, momentum, step=3)
    for k, shape in enumerate(SHAPES):
        if 0 not in shape:
            assert_as_accurate(targets[k], eager[k], exact[k], f"target of shape {shape}")


def test_many_tensors_of_mixed_dtypes(device):
    shapes = [(1 + 37 * k % 301,) for k in range(400)]
    targets = [t.to(KINDS[k % 9][0]) for k, t in enumerate(tensors(shapes, device))]
    sources = [s.to(KINDS[k % 9][1]) for k, s in enumerate(tensors(shapes, device, seed=1))]
    exact = exact_update(targets, sources, 0.9)
    alone = [t.clone() for t in targets if t.dtype == torch.float32]
    ops.ema_update_(targets, sources, 0.9, step=0)
    for target, expected in zip(targets, exact):
        tolerance = 2 * torch.finfo(target.dtype).eps
        torch.testing.assert_close(target.double(), expected, rtol=tolerance, atol=tolerance)
    ops.ema_update_(alone, [s for s, t in zip(sources, targets) if t.dtype == torch.float32], 0.9)
    assert all(map(torch.equal, alone, (t for t in targets if t.dtype == torch.float32)))


@pytest.mark.parametrize("dtype", [*HALVES_AND_SINGLE, torch.float64], ids=str)
def test_ends_and_fixed_point_are_exact(dtype, device):
    targets, sources = pairs(device, dtype, dtype)
    before = [t.clone() for t in targets]
    ops.ema_update_(targets, sources, 1.0, step=0)
    assert all(map(torch.equal, targets, before))
    for momentum in (0.1, 0.7, 0.9999):
        ops.ema_update_(targets, before, momentum, step=1)
        ops.ema_update_(targets, targets, momentum, step=1)
        assert all(map(torch.equal, targets, before))
    ops.ema_update_(targets, [1e-4 * s for s in sources], 0.0, step=2)
    assert all(map(torch.equal, targets, (1e-4 * s for s in sources)))


def test_every_float16_and_bfloat16_value(device):
    """Momentum 0 converts: all 65536 values of a half, and float32 values all over its range, back."""
    every = torch.arange(-(2**15), 2**15, device=device).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        source = every.view(dtype)
        target = torch.zeros(2**16, device=device)
        ops.ema_update_([target], [source], 0.0)
        torch.testing.assert_close(target, source.float(), rtol=0, atol=0, equal_nan=True)
    generator = torch.Generator().manual_seed(0)
    exponent = torch.randint(-30, 18, (100_000,), generator=generator)
    source = torch.ldexp(torch.randn(100_000, generator=generator, dtype=torch.float32), exponent).to(device)
    half = torch.zeros(100_000, dtype=torch.float16, device=device)
    ops.ema_update_([half], [source], 0.0, step=0)
    nearest = source.half()
    ulp = torch.where(nearest.abs() < 2**-14, 2**-24, nearest.abs() * 2**-10)
    finite = nearest.isfinite() & half.isfinite()
    assert ((half - nearest).abs()[finite] <= ulp[finite]).all()
    assert (half.float() == source)[nearest.float() == source].all()
    assert (half.isfinite() == (source.abs() < 65536)).double().mean() > 0.999
    assert half.isinf().any()
    assert (half.abs() < 6e-5).any()


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.5, 0.996, 1.0, torch.tensor(0.5), torch.tensor(float("nan"))])
@pytest.mark.parametrize("dtype", [*HALVES_AND_SINGLE, torch.float64], ids=str)
def test_infinities_are_those_of_the_formula(dtype, momentum, device):
    values = torch.tensor([1.0, 0.0, float("inf"), -float("inf"), float("nan")], device=device, dtype=torch.float64)
    target, source = torch.cartesian_prod(values, values).T.contiguous()
    momentum = momentum.to(device) if isinstance(momentum, torch.Tensor) else momentum
    expected = momentum * target + (1 - momentum) * source
    targets = [target.to(dtype)]
    ops.ema_update_(targets, [source.to(dtype)], momentum, step=0)
    torch.testing.assert_close(targets[0].double(), expected, rtol=0.01, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("offsets", [(0, 1), (1, 1), (3, 3), (5, 2), (4, 8)])
def test_unaligned_views_and_their_neighbours(offsets, dtype, device):
    (target,), (source,) = (tensors([(9000,)], device, dtype, seed) for seed in (0, 1))
    at, of = offsets
    aligned = target[at : at + 8500].clone()
    before = target.clone()
    ops.ema_update_([target[at : at + 8500]], [source[of : of + 8500]], 0.9, step=5)
    ops.ema_update_([aligned], [source[of : of + 8500].clone()], 0.9, step=5)
    assert torch.equal(target[at : at + 8500], aligned)
    assert torch.equal(target[:at], before[:at])
    assert torch.equal(target[at + 8500 :], before[at + 8500 :])


def layouts():
    channels_last = torch.channels_last
    return {
        "channels_last": (lambda x: x.to(memory_format=channels_last), lambda x: x.to(memory_format=channels_last)),
        "channels_last target": (lambda x: x.to(memory_format=channels_last), lambda x: x),
        "channels_last source": (lambda x: x, lambda x: x.to(memory_format=channels_last)),
        "transposed": (lambda x: x.transpose(0, 2).contiguous().transpose(0, 2), lambda x: x),
        "gaps": (lambda x: torch.stack([x, x])[0].repeat_interleave(2, dim=1)[:, ::2], lambda x: x),
        "expanded source": (lambda x: x, lambda x: x[:, :1].expand_as(x)),
    }


@pytest.mark.parametrize("layout", layouts())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_layouts(layout, dtype, device):
    (target,), (source,) = pairs(device, dtype, dtype, [(6, 4, 3, 5)])
    target, source = (change(x) for change, x in zip(layouts()[layout], (target, source)))
    strides = target.stride()
    (exact,) = exact_update([target], [source], 0.9)
    ops.ema_update_([target], [source], 0.9, step=1)
    assert target.stride() == strides
    ulp = torch.finfo(dtype).eps
    torch.testing.assert_close(target.double(), exact, rtol=ulp, atol=ulp)


def test_the_same_memory_in_another_shape_or_layout(device):
    """What was checked once is checked again when anything but the values changed."""
    (target, other), (source, double) = pairs(device, shapes=[(6, 6), (6, 6)])
    exact = target.double()
    for layout in (source, source, source.T, source.T, source):
        ops.ema_update_([target], [layout], 0.9)
        (exact,) = exact_update([exact], [layout], 0.9)
        torch.testing.assert_close(target.double(), exact, rtol=1e-6, atol=1e-6)
    for wrong in (source[:3], source.view(4, 9), source.flatten()):
        with pytest.raises(ValueError, match="must have the shape"):
            ops.ema_update_([target], [wrong], 0.9)
    ops.ema_update_([target, other], [source, source], 0.9)
    with pytest.raises(ValueError, match="share memory"):
        ops.ema_update_([target, target], [source, source], 0.9)
    with pytest.raises(TypeError, match="float64 goes with float64 only"):
        ops.ema_update_([target], [double.double()], 0.9)


def test_huge_and_tiny_values(device):
    target = torch.tensor([3e38, -3e38, 1e-30, 1e-45, 0.0], device=device)
    source = torch.tensor([-3e38, 3e38, 3e-30, 1e-45, 1e-38], device=device)
    (exact,) = exact_update([target], [source], 0.996)
    ops.ema_update_([target], [source], 0.996)
    torch.testing.assert_close(target.double(), exact, rtol=1e-6, atol=1e-44)


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_nan_in_nan_out(dtype, device):
    (target,), (source,) = pairs(device, dtype, dtype, [(300,)])
    target[7], source[200] = float("nan"), float("nan")
    ops.ema_update_([target], [source], 0.99, step=0)
    assert target.isnan().nonzero().flatten().tolist() == [7, 200]
    for senseless in (-0.1, 1.1, float("nan")):
        ops.ema_update_([target], [source], torch.tensor(senseless, device=device), step=0)
        assert target.isnan().all()
        target.zero_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_momentum_and_step_as_tensors(dtype, device):
    momentum = torch.tensor(0.987, dtype=dtype, device=device)
    for target_dtype in (*HALVES_AND_SINGLE, torch.float64):
        targets, sources = pairs(device, target_dtype, target_dtype)
        copies = [t.clone() for t in targets]
        ops.ema_update_(targets, sources, momentum, step=torch.tensor(2**40 + 7, device=device))
        ops.ema_update_(copies, sources, momentum.item(), step=2**40 + 7)
        if target_dtype == torch.float64:
            torch.testing.assert_close(targets, copies, rtol=1e-6, atol=1e-7)
        else:
            assert all(map(torch.equal, targets, copies))


# --- stochastic rounding ---


def test_philox_gives_the_published_vectors():
    """Known answers of Random123, the authors' library."""
    pi = [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    for counter, key, expected in (
        ([0] * 4, 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([0xFFFFFFFF] * 4, 2**64 - 1, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (pi, 0x299F31D0A4093822, "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ):
        words = reference_ema.philox(tuple(torch.tensor(word) for word in counter), key)
        assert " ".join(f"{word.item():08x}" for word in words) == expected


@pytest.mark.parametrize("scale", [1, 1e-5, 2e4])  # float16: normal, subnormal, beyond the largest
@pytest.mark.parametrize("source_dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_rounding_has_the_bits_of_the_reference(dtype, source_dtype, scale, device):
    targets, sources = ([scale * x for x in xs] for xs in pairs(device, dtype, source_dtype))
    expected = [t.clone() for t in targets]
    for step in (0, 5, 2**32 + 5, 2**62):
        ops.ema_update_(targets, sources, 0.99, step=step)
        reference_ema.ema_update_(expected, sources, 0.99, step)
        for target, wanted in zip(targets, expected):
            known = ~target.isnan()
            assert torch.equal(known, ~wanted.isnan())
            assert torch.equal(bits(target)[known], bits(wanted)[known])


@pytest.mark.parametrize(
    ("dtype", "target"),
    [(torch.bfloat16, x) for x in (1.0, -1.0, 1.75, -0.007, 3e30)]
    + [(torch.float16, x) for x in (1.0, -1.75, -0.007, 6e4, 3e-5, -6e-8)],
    ids=str,
)
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.97])
def test_rounding_is_unbiased(dtype, target, fraction, device):
    """A result `fraction` of the way to the next number of the dtype goes there in that fraction of cases."""
    n, momentum = 100_000, 0.9
    targets = torch.full((n,), target, dtype=dtype, device=device)
    upper = (bits(targets) + 1).view(dtype)
    source = targets.double() + fraction * (upper.double() - targets.double()) / (1 - momentum)
    ops.ema_update_([targets], [source.float()], momentum, step=11)
    moved = targets == upper
    assert (moved | (targets == target)).all()
    assert abs(moved.double().mean() - fraction) < 5 * (fraction * (1 - fraction) / n) ** 0.5


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_teacher_moves_where_nearest_rounding_stands_still(dtype, device):
    target = torch.ones(4096, dtype=dtype, device=device)
    source = torch.full_like(target, 2.0)
    nearest = (0.9999 * target.float() + 0.0001 * source.float()).to(dtype)
    assert torch.equal(nearest, target)
    for step in range(1000):
        ops.ema_update_([target], [source], 0.9999, step=step)
    # 13 of 1000 steps move a bfloat16 by 2^-7: 0.028 is its standard deviation.
    assert abs(target.double().mean() - (2 - 0.9999**1000)) < 5 * 0.028 / 64


@pytest.mark.parametrize("dtype", [*HALVES_AND_SINGLE, torch.float64], ids=str)
@pytest.mark.parametrize("shift", [-1, 1, 3, 640])
def test_a_source_that_is_its_target_shifted(shift, dtype, device):
    """As if the source had been copied before."""
    memory = torch.cat(tensors([(9000,)] * 2, device, dtype))
    expected = memory.clone()
    for _ in range(2):  # the second time the table is known
        target, source = memory[1000:17000], memory[1000 + shift : 17000 + shift]
        ops.ema_update_([expected[1000:17000]], [source.clone()], 0.7, step=1)
        ops.ema_update_([target], [source], 0.7, step=1)
        assert torch.equal(memory, expected)


def test_deterministic_and_independent_of_threads(device):
    results = []
    threads = torch.get_num_threads()
    for count in (1, 1, 3):
        torch.set_num_threads(count)
        targets, sources = pairs(device, torch.bfloat16)
        ops.ema_update_(targets, sources, 0.99, step=4)
        results.append(targets)
    torch.set_num_threads(threads)
    assert all(torch.equal(bits(a), bits(b)) for other in results[1:] for a, b in zip(results[0], other))


def test_noise_is_fresh_for_every_step_and_tensor(device):
    def moved(rows, step):
        targets = [torch.ones(1000, dtype=torch.bfloat16, device=device) for _ in range(rows)]
        ops.ema_update_(targets, [torch.full_like(t, 1 + 2**-6) for t in targets], 0.75, step=step)
        return [target > 1 for target in targets]

    first, second = moved(2, step=0)
    for other in (second, moved(1, step=1)[0], moved(1, step=2**32)[0], first.roll(8)):
        assert 400 < (first == other).sum() < 600
