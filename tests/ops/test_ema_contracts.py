"""ops.ema_update_: what holds around the arithmetic: autograd, tracing, tables on the device, CUDA graphs, errors."""

from __future__ import annotations

import pytest
import torch
from ema_pairs import HALVES_AND_SINGLE, bits, exact_update, pairs

from sslfast import ops
from sslfast.kernels.cuda.ema import chunk_map

pytestmark = pytest.mark.usefixtures("poisoned_memory")


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


T, B, L = torch.ones(4, 3), torch.ones(4, 3, dtype=torch.bfloat16), torch.ones(40)
NESTED = torch.nested.nested_tensor([L, L], layout=torch.jagged)


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        ((T, [T], 0.9), {}, TypeError, "targets must be a list of tensors, got Tensor"),
        (([T], iter([T]), 0.9), {}, TypeError, "sources must be a list of tensors, got list_iterator"),
        (([NESTED], [T], 0.9), {}, TypeError, r"targets\[0\] must be a dense tensor, got a nested one"),
        (([T], [NESTED], 0.9), {}, TypeError, r"sources\[0\] must be a dense tensor, got a nested one"),
        (([T], [T.to_sparse()], 0.9), {}, TypeError, r"sources\[0\] must be a dense tensor, got a sparse_coo one"),
        (([T, 1.0], [T, T], 0.9), {}, TypeError, r"targets\[1\] must be a tensor, got float"),
        (([T], [T.int()], 0.9), {}, TypeError, r"sources\[0\] must be float32.*int32"),
        (([], [], 0.9), {}, ValueError, "at least one, got 0 targets and 0 sources"),
        (([T], [T, T], 0.9), {}, ValueError, "equally many.*got 1 targets and 2 sources"),
        (([T], [T[:2]], 0.9), {}, ValueError, r"sources\[0\] must have the shape of.*\(4, 3\), got \(2, 3\)"),
        (([T], [T.to("meta")], 0.9), {}, ValueError, r"sources\[0\] must be on the device of.*cpu, got meta"),
        (([T], [T.double()], 0.9), {}, TypeError, r"float64 goes with float64 only, got torch.float32 targets\[0\]"),
        (([T, B, T], [T, T, T], 0.9), {"step": 0}, ValueError, r"targets\[0\] and targets\[2\] share memory"),
        (([T, T.view(-1)[3:7]], [T, T[:, 0]], 0.9), {}, ValueError, r"targets\[0\] and targets\[1\] share memory"),
        (([L[:9], L[20:29]], [L[30:39], L[8:17]], 0.9), {}, ValueError, r"sources\[1\] must not .* targets\[0\]"),
        (([T[:1].expand(4, 3)], [T], 0.9), {}, ValueError, r"targets\[0\] must not share memory with itself"),
        (([T.half()], [T], 0.9), {}, ValueError, "step must be given for bfloat16 and float16 targets"),
        (([T], [T], 1.1), {}, ValueError, r"momentum must be in \[0, 1\], got 1.1"),
        (([T], [T], float("nan")), {}, ValueError, "momentum must be in.*nan"),
        (([T], [T], "slow"), {}, TypeError, "momentum must be a number.*str"),
        (([T], [T], torch.ones(2)), {}, ValueError, r"momentum must be a number or a 0-dim.*\(2,\) of torch.float32"),
        (([T], [T], B[0, 0]), {}, ValueError, "momentum must be a number or a 0-dim.*bfloat16"),
        (([T], [T], torch.ones((), device="meta")), {}, ValueError, "momentum must be on cpu.*meta"),
        (([B], [T], 0.9), {}, ValueError, "step must be given for bfloat16 and float16 targets"),
        (([B], [T], 0.9), {"step": -1}, ValueError, "step must be at least 0.*-1"),
        (([B], [T], 0.9), {"step": 1.0}, TypeError, "step must be an int.*float"),
        (([B], [T], 0.9), {"step": torch.tensor(1.0)}, ValueError, "step must be an int or a 0-dim int64.*float32"),
        (([B], [T], 0.9), {"step": torch.tensor(1, device="meta")}, ValueError, "step must be on cpu.*meta"),
    ],
)
def test_bad_arguments_are_named(arguments, keywords, error, message):
    with pytest.raises(error, match=message):
        ops.ema_update_(*arguments, **keywords)
