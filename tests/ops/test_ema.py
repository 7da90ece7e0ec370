"""ops.ema_update_ against the float64 reference: dtypes, layouts, stochastic rounding, contracts."""

from __future__ import annotations

import itertools

import pytest
import torch
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference
from sslfast.kernels.cuda.ema import chunk_map

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
HALVES_AND_SINGLE = [torch.float32, torch.bfloat16, torch.float16]
KINDS = list(itertools.product(HALVES_AND_SINGLE, repeat=2))
SHAPES = [(), (1,), (0, 3), (7,), (8,), (3, 5, 7), (129,), (64, 3, 7, 7), (40_003,)]  # the last: several chunks

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


def tensors(shapes, device="cpu", dtype=torch.float32, seed=0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]


def pairs(device, target_dtype=torch.float32, source_dtype=torch.float32, shapes=SHAPES):
    return tensors(shapes, device, target_dtype), tensors(shapes, device, source_dtype, seed=1)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.detach().contiguous().view(torch.int32 if x.dtype == torch.float32 else torch.int16)


def exact_update(targets, sources, momentum):
    results = [target.double().contiguous() for target in targets]
    reference.ema_update_(results, [source.double().contiguous() for source in sources], momentum, 0)
    return results


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
    alone = [t.clone() for t in targets if t.dtype != torch.bfloat16]
    ops.ema_update_(targets, sources, 0.9, step=0)
    for target, expected in zip(targets, exact):
        tolerance = 2 * torch.finfo(target.dtype).eps
        torch.testing.assert_close(target.double(), expected, rtol=tolerance, atol=tolerance)
    ops.ema_update_(alone, [s for s, t in zip(sources, targets) if t.dtype != torch.bfloat16], 0.9)
    assert all(map(torch.equal, alone, (t for t in targets if t.dtype != torch.bfloat16)))


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
        finite = source.isfinite()
        assert torch.equal(target[finite], source[finite].float())
        assert target[~finite].isnan().all()
    generator = torch.Generator().manual_seed(0)
    exponent = torch.randint(-30, 18, (100_000,), generator=generator)
    source = torch.ldexp(torch.randn(100_000, generator=generator), exponent).to(device)
    half = torch.zeros(100_000, dtype=torch.float16, device=device)
    ops.ema_update_([half], [source], 0.0)
    assert torch.equal(half, source.half())
    assert half.isinf().any()
    assert (half.abs() < 6e-5).any()


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
        words = reference.philox(tuple(torch.tensor(word) for word in counter), key)
        assert " ".join(f"{word.item():08x}" for word in words) == expected


@pytest.mark.parametrize("source_dtype", HALVES_AND_SINGLE, ids=str)
def test_rounding_has_the_bits_of_the_reference(source_dtype, device):
    targets, sources = pairs(device, torch.bfloat16, source_dtype)
    expected = [t.clone() for t in targets]
    for step in (0, 5, 2**32 + 5, 2**62):
        ops.ema_update_(targets, sources, 0.99, step=step)
        reference.ema_update_(expected, sources, 0.99, step)
        for target, wanted in zip(targets, expected):
            assert torch.equal(bits(target), bits(wanted))


@pytest.mark.parametrize("target", [1.0, -1.0, 1.75, -0.007, 3e30])
@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.97])
def test_rounding_is_unbiased(target, fraction, device):
    """A result `fraction` of the way to the next bfloat16 goes there in that fraction of cases."""
    n, momentum = 100_000, 0.9
    targets = torch.full((n,), target, dtype=torch.bfloat16, device=device)
    upper = (bits(targets) + 1).view(torch.bfloat16)
    source = targets.double() + fraction * (upper.double() - targets.double()) / (1 - momentum)
    ops.ema_update_([targets], [source.float()], momentum, step=11)
    moved = targets == upper
    assert (moved | (targets == target)).all()
    assert abs(moved.double().mean() - fraction) < 5 * (fraction * (1 - fraction) / n) ** 0.5


def test_a_bfloat16_teacher_moves_where_nearest_rounding_stands_still(device):
    target = torch.ones(4096, dtype=torch.bfloat16, device=device)
    source = torch.full_like(target, 2.0)
    nearest = (0.9999 * target.float() + 0.0001 * source.float()).bfloat16()
    assert torch.equal(nearest, target)
    for step in range(1000):
        ops.ema_update_([target], [source], 0.9999, step=step)
    # 13 of 1000 steps move an element by 2^-7: 0.028 is its standard deviation.
    assert abs(target.double().mean() - (2 - 0.9999**1000)) < 5 * 0.028 / 64


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


# --- contracts ---


def test_float64_goes_through_the_reference(device):
    targets, sources = pairs(device, torch.float64, torch.float64)
    expected = [0.996 * t + (1 - 0.996) * s for t, s in zip(targets, sources)]
    ops.ema_update_(targets, sources, 0.996)
    torch.testing.assert_close(targets, expected, rtol=1e-15, atol=1e-15)


def test_parameters_that_require_grad(device):
    """As an optimizer's step: nothing is recorded, and a graph that needs the old value notices."""
    teacher, student = (torch.nn.Linear(5, 4, device=device) for _ in range(2))
    output = teacher(torch.ones(3, 5, device=device, requires_grad=True)).sum()
    expected = exact_update(list(teacher.parameters()), list(student.parameters()), 0.5)
    ops.ema_update_(list(teacher.parameters()), list(student.parameters()), 0.5)
    for parameter, wanted in zip(teacher.parameters(), expected):
        assert parameter.is_leaf
        assert parameter.requires_grad
        torch.testing.assert_close(parameter.double(), wanted, rtol=1e-6, atol=1e-7)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.backward()


def test_under_inference_mode(device):
    with torch.inference_mode():
        targets, sources = pairs(device)
        expected = exact_update(targets, sources, 0.9)
        ops.ema_update_(targets, sources, 0.9)
        torch.testing.assert_close([t.double() for t in targets], expected, rtol=1e-6, atol=1e-6)


def test_opcheck(device):
    update = torch.ops.sslfast.ema_update_.default
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        targets, sources = pairs(device, dtype, dtype, [(3, 5), (7,)])
        torch.library.opcheck(update, (targets, sources, 0.9, None, 4, None))
        momentum, step = torch.tensor(0.9, device=device), torch.tensor(4, device=device)
        torch.library.opcheck(update, (targets, sources, 0.0, momentum, 0, step))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend, device):
    def step(targets, sources, momentum, number):
        ops.ema_update_(targets, [2 * s for s in sources], momentum, step=number)
        return targets[0].float().sum()

    numbers, scalars = [(0.9, 3), (0.8, 4)], [(torch.tensor(0.7, device=device), torch.tensor(5, device=device))]
    compiled = torch.compile(step, fullgraph=True, backend=backend)
    for momentum, number in scalars if backend == "inductor" else numbers + scalars:
        results = []
        for function in (step, compiled):
            targets, sources = pairs(device, torch.bfloat16, torch.float32, [(13, 8), (5,)])
            results.append((function(targets, sources, momentum, number), targets))
        torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_chunks_cover_every_element_once():
    sizes = torch.tensor([1, 0, 10, 8, 17])
    chunks = [(chunk >> 32, chunk & 0xFFFFFFFF) for chunk in chunk_map(sizes, 8).tolist()]
    assert chunks == [(0, 0), (2, 0), (2, 1), (3, 0), (4, 0), (4, 1), (4, 2)]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
def test_cuda_has_the_bits_of_the_cpu(dtype):
    for source_dtype in HALVES_AND_SINGLE:
        results = []
        for device in ("cpu", "cuda"):
            targets, sources = pairs(device, dtype, source_dtype)
            for step in range(3):
                ops.ema_update_(targets, sources, 0.99, step=step)
            results.append([bits(t).cpu() for t in targets])
        assert all(map(torch.equal, *results))


@pytest.mark.gpu
def test_cuda_table_follows_the_addresses():
    targets, sources = pairs("cuda", torch.float32, torch.bfloat16)
    for _ in range(3):
        targets, sources = [t.clone() for t in targets], [s.clone() for s in sources]
        exact = exact_update(targets, sources, 0.9)
        ops.ema_update_(targets, sources, 0.9)
        targets[3].data = targets[3].clone()
        ops.ema_update_(targets, sources, 1.0)
        torch.testing.assert_close([t.double() for t in targets], exact, rtol=1e-6, atol=1e-6)


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    targets, sources = pairs("cuda", torch.bfloat16, torch.float32)
    eager = [t.clone() for t in targets]
    momentum, step = torch.tensor(0.9, device="cuda"), torch.tensor(0, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        ops.ema_update_(targets, sources, torch.ones((), device="cuda"), step=step)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ops.ema_update_(targets, sources, momentum, step=step)
        step += 1
    for number, value in enumerate((0.9, 0.99, 0.5)):
        momentum.fill_(value)
        graph.replay()
        ops.ema_update_(eager, sources, torch.tensor(value, device="cuda"), step=number)
    assert all(torch.equal(bits(a), bits(b)) for a, b in zip(targets, eager))


@pytest.mark.gpu
def test_capture_of_new_tensors_is_refused():
    targets, sources = pairs("cuda", shapes=[(123,)])
    graph = torch.cuda.CUDAGraph()
    with pytest.raises(RuntimeError, match="must have run once on the same tensors"), torch.cuda.graph(graph):
        ops.ema_update_(targets, sources, 0.9)


T, B = torch.ones(4, 3), torch.ones(4, 3, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((T, [T], 0.9), {}, TypeError, "targets must be a list of tensors, got Tensor"),
        (([T], iter([T]), 0.9), {}, TypeError, "sources must be a list of tensors, got list_iterator"),
        (([T, 1.0], [T, T], 0.9), {}, TypeError, r"targets\[1\] must be a tensor, got float"),
        (([T], [T.int()], 0.9), {}, TypeError, r"sources\[0\] must be float32.*int32"),
        (([], [], 0.9), {}, ValueError, "at least one, got 0 targets and 0 sources"),
        (([T], [T, T], 0.9), {}, ValueError, "equally many.*got 1 targets and 2 sources"),
        (([T], [T[:2]], 0.9), {}, ValueError, r"sources\[0\] must have the shape of.*\(4, 3\), got \(2, 3\)"),
        (([T], [T.to("meta")], 0.9), {}, ValueError, r"sources\[0\] must be on the device of.*cpu, got meta"),
        (([T], [T.double()], 0.9), {}, TypeError, r"float64 goes with float64 only, got torch.float32 targets\[0\]"),
        (([T, B, T], [T, T, T], 0.9), {"step": 0}, ValueError, r"targets\[0\] and targets\[2\] share memory"),
        (([T], [T], 1.1), {}, ValueError, r"momentum must be in \[0, 1\], got 1.1"),
        (([T], [T], float("nan")), {}, ValueError, "momentum must be in.*nan"),
        (([T], [T], "slow"), {}, TypeError, "momentum must be a number.*str"),
        (([T], [T], torch.ones(2)), {}, ValueError, r"momentum must be a number or a 0-dim.*\(2,\) of torch.float32"),
        (([T], [T], B[0, 0]), {}, ValueError, "momentum must be a number or a 0-dim.*bfloat16"),
        (([T], [T], torch.ones((), device="meta")), {}, ValueError, "momentum must be on cpu.*meta"),
        (([B], [T], 0.9), {}, ValueError, "step must be given for bfloat16 targets"),
        (([B], [T], 0.9), {"step": -1}, ValueError, "step must be at least 0.*-1"),
        (([B], [T], 0.9), {"step": 1.0}, TypeError, "step must be an int.*float"),
        (([B], [T], 0.9), {"step": torch.tensor(1.0)}, ValueError, "step must be an int or a 0-dim int64.*float32"),
        (([B], [T], 0.9), {"step": torch.tensor(1, device="meta")}, ValueError, "step must be on cpu.*meta"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        ops.ema_update_(*arguments, **keywords)
