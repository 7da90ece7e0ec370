"""ops.nt_xent against the float64 reference: values, every gradient, edge cases, contracts."""

from __future__ import annotations

import functools

import pytest
import torch
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference

HALVES_AND_SINGLE = [torch.float32, torch.bfloat16, torch.float16]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def views(n: int, d: int, device: str, dtype=torch.float32, noise: float = 1.0, seed: int = 0):
    """Two noisy views of n random embeddings."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(n, d, generator=generator, dtype=torch.float32)
    return tuple(
        (base + noise * torch.randn(n, d, generator=generator, dtype=torch.float32)).to(device, dtype) for _ in range(2)
    )


def run(function, z1, z2, temperature, weights, dtype=None):
    """Losses of all views, and the gradients of their weighted sum to z1, z2 and the temperature."""
    z1, z2 = (z.detach().to(dtype or z.dtype).requires_grad_() for z in (z1, z2))
    tau = torch.tensor(temperature, device=z1.device).to(dtype or torch.float32).requires_grad_()
    losses = function(z1, z2, tau, reduction="none")
    (losses * weights.to(losses.dtype)).sum().backward()
    return {"loss": losses.detach(), "dz1": z1.grad, "dz2": z2.grad, "dtau": tau.grad}


def check_against_float64(z1, z2, temperature):
    """The numeric bar over four draws of the weights: one number, as dτ is, could be right by luck."""
    actual, eager, exact = [], [], []
    for seed in range(4):
        weights = torch.rand(2 * len(z1), generator=torch.Generator().manual_seed(seed), dtype=torch.float32).to(
            z1.device
        )
        actual.append(run(ops.nt_xent, z1, z2, temperature, weights))
        eager.append(run(reference.nt_xent, z1, z2, temperature, weights))
        exact.append(run(reference.nt_xent, z1, z2, temperature, weights, torch.float64))
    assert actual[0]["loss"].dtype == torch.float32
    for name in actual[0]:
        draws = [torch.stack([result[name] for result in results]) for results in (actual, eager, exact)]
        assert_as_accurate(*draws, name, dtype=z1.dtype)


@pytest.mark.parametrize("dtype", HALVES_AND_SINGLE, ids=str)
@pytest.mark.parametrize("d", [1, 60, 128, 129])
@pytest.mark.parametrize("n", [1, 3, 63, 257])
def test_values_and_gradients_ragged_shapes(n, d, dtype, device):
    check_against_float64(*views(n, d, device, dtype), temperature=0.5)


@pytest.mark.parametrize("noise", [0.6, 3.0])  # positives that dominate, and that drown
@pytest.mark.parametrize("temperature", [0.01, 0.024, 0.025, 0.07, 1.0, 100.0])
def test_temperatures(temperature, noise, device):
    check_against_float64(*views(300, 64, device, noise=noise), temperature=temperature)


@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_several_tiles_with_partners_in_every_position(temperature, device):
    """2N = 1400: the partner lies in the diagonal tile of none, some and all of the rows of a tile."""
    check_against_float64(*views(700, 32, device), temperature=temperature)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_and_a_number_as_temperature(reduction, device):
    z1, z2 = views(17, 8, device)
    expected = reference.nt_xent(z1.double(), z2.double(), 0.2, reduction=reduction)
    torch.testing.assert_close(ops.nt_xent(z1, z2, 0.2, reduction=reduction).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradient_of_reductions(reduction, device):
    z1, z2 = (z.requires_grad_() for z in views(17, 8, device))
    y1, y2 = (z.detach().double().requires_grad_() for z in (z1, z2))
    ops.nt_xent(z1, z2, 0.2, reduction=reduction).backward()
    reference.nt_xent(y1, y2, 0.2, reduction=reduction).backward()
    torch.testing.assert_close(z1.grad.double(), y1.grad, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(z2.grad.double(), y2.grad, rtol=1e-5, atol=1e-7)


def test_float64_gradcheck():
    z1, z2 = (z.requires_grad_() for z in views(6, 5, "cpu", torch.float64))
    tau = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(functools.partial(ops.nt_xent, reduction="none"), (z1, z2, tau))


def test_is_the_formula_of_the_docstring(device):
    """An independent spelling: mask, softmax and pick, image by image."""
    z1, z2 = views(9, 4, device, torch.float64)
    z = torch.cat([z1, z2])
    cosine = torch.nn.functional.cosine_similarity(z[:, None], z[None], dim=-1)
    expected = []
    for i in range(18):
        others = [j for j in range(18) if j != i]
        p = torch.softmax(cosine[i, others] / 0.1, dim=0)
        expected.append(-torch.log(p[others.index((i + 9) % 18)]))
    torch.testing.assert_close(ops.nt_xent(z1, z2, 0.1, reduction="none"), torch.stack(expected))


def test_non_contiguous_inputs(device):
    z1, z2 = views(40, 24, device)
    expected = ops.nt_xent(z1[:, ::2].contiguous(), z2[:, ::2].contiguous(), reduction="none")
    assert torch.equal(ops.nt_xent(z1[:, ::2], z2[:, ::2], reduction="none"), expected)
    wide = torch.stack([z1, z2], dim=-1)
    assert torch.equal(ops.nt_xent(wide[:, ::2, 0], wide[:, ::2, 1], reduction="none"), expected)


def test_zero_row_has_zero_gradient(device):
    z1, z2 = views(30, 16, device)
    z1[4] = 0
    check_against_float64(z1, z2, 0.5)
    z1.requires_grad_()
    ops.nt_xent(z1, z2).backward()
    assert (z1.grad[4] == 0).all()
    assert z1.grad.isfinite().all()


def test_identical_rows(device):
    """All cosines are 1: every loss is log(2N − 1), every gradient zero."""
    z = torch.full((20, 12), 0.3, device=device, requires_grad=True)
    losses = ops.nt_xent(z, z.detach(), 0.07, reduction="none")
    torch.testing.assert_close(losses, torch.full_like(losses, 39.0).log(), rtol=1e-5, atol=0)
    losses.sum().backward()
    assert z.grad.abs().max() < 1e-4


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_huge_and_tiny_values_are_normalised_without_overflow(factor, device):
    z1, z2 = views(30, 16, device)
    if factor > 1:
        torch.testing.assert_close(ops.nt_xent(z1 * factor, z2), ops.nt_xent(z1, z2), rtol=1e-5, atol=0)
    else:  # below eps a row is divided by eps, as F.normalize does
        expected = ops.nt_xent((z1 * factor).double(), z2.double()).float()
        torch.testing.assert_close(ops.nt_xent(z1 * factor, z2), expected, rtol=1e-5, atol=0)


def test_nan_in_nan_out(device):
    z1, z2 = views(30, 16, device)
    z1[3, 2] = float("nan")
    assert ops.nt_xent(z1, z2, reduction="none").isnan().all()
    z1[3, 2] = float("inf")
    assert ops.nt_xent(z1, z2).isnan()
    z1[3, 2] = 0
    for senseless in (0.0, -1.0, float("nan")):
        assert ops.nt_xent(z1, z2, torch.tensor(senseless, device=device)).isnan()


def test_tiny_losses_are_exact(device):
    """Where positives dominate, log-sum-exp minus positive would cancel to noise."""
    z1, z2 = views(50, 64, device, noise=0.05)
    exact = reference.nt_xent(z1.double(), z2.double(), 0.05, reduction="none")
    assert exact.max() < 1e-4
    torch.testing.assert_close(ops.nt_xent(z1, z2, 0.05, reduction="none").double(), exact, rtol=1e-3, atol=1e-14)


def test_deterministic(device):
    z1, z2 = (z.requires_grad_() for z in views(600, 128, device))
    runs = []
    for _ in range(2):
        z1.grad = z2.grad = None
        loss = ops.nt_xent(z1, z2, 0.1)
        loss.backward()
        runs.append((loss.detach(), z1.grad, z2.grad))
    assert all(torch.equal(a, b) for a, b in zip(*runs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_loss_is_float32_and_as_exact_under_autocast(dtype, device):
    z1, z2 = views(40, 16, device, dtype)
    with torch.autocast(device, torch.bfloat16):
        inside = ops.nt_xent(z1, z2)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ops.nt_xent(z1, z2))


def test_opcheck(device):
    z1, z2 = views(7, 5, device)
    forward, backward = torch.ops.sslfast.nt_xent_forward.default, torch.ops.sslfast.nt_xent_backward.default
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        losses, shift, inverse_sum, u, scale, cosines, _ = forward(z1.to(dtype), z2.to(dtype), 0.5, None, True)
        torch.library.opcheck(forward, (z1.to(dtype), z2.to(dtype), 0.5, None, True, True))
        saved = (torch.rand_like(losses), u, scale, losses, shift, inverse_sum, cosines)
        torch.library.opcheck(backward, (*saved, 0.5, None))
    tau = torch.tensor(0.5, device=device)
    torch.library.opcheck(forward, (z1, z2, 0.0, tau, False))
    for with_cosines in (False, True):
        torch.library.opcheck(forward, (*views(70, 200, device), 0.5, None, with_cosines))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_as_one_graph(backend, device):
    def step(z1, z2, tau):
        return ops.nt_xent(2 * z1, z2, tau).exp()

    z1, z2 = views(13, 8, device)
    gradients = []
    for function in (step, torch.compile(step, fullgraph=True, backend=backend)):
        leaves = [x.clone().requires_grad_() for x in (z1, z2, torch.tensor(0.4, device=device))]
        function(*leaves).backward()
        gradients.append([leaf.grad for leaf in leaves])
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    z1, z2 = (z.requires_grad_() for z in views(64, 32, "cuda"))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        ops.nt_xent(z1, z2).backward()
    torch.cuda.current_stream().wait_stream(stream)
    z1.grad = z2.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = ops.nt_xent(z1, z2)
        loss.backward()
    with torch.no_grad():
        fresh = views(64, 32, "cuda", seed=5)
        z1.copy_(fresh[0])
        z2.copy_(fresh[1])
    graph.replay()
    torch.testing.assert_close(loss.detach(), ops.nt_xent(*fresh))


Z = torch.ones(4, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([[1.0]], Z), TypeError, "z1 must be a tensor"),
        ((Z.int(), Z), TypeError, "z1 must be float32.*int32"),
        ((Z[0], Z), ValueError, r"z1 must be a non-empty matrix.*\(3,\)"),
        ((Z[:0], Z[:0]), ValueError, r"z1 must be a non-empty matrix.*\(0, 3\)"),
        ((Z, Z[:3]), ValueError, r"z2 must have the shape of z1, \(4, 3\), got \(3, 3\)"),
        ((Z, Z.half()), TypeError, "z2 must have the dtype of z1.*float16"),
        ((Z, Z.to("meta")), ValueError, "z2 must be on the device of z1, cpu, got meta"),
        ((Z, Z, 0), ValueError, "temperature must be positive and finite in float32, got 0"),
        ((Z, Z, float("nan")), ValueError, "temperature must be positive"),
        ((Z, Z, 1e-300), ValueError, "temperature must be positive and finite in float32, got 1e-300"),
        ((Z, Z, 1e155), ValueError, "temperature must be positive and finite in float32, got 1e"),
        ((Z, Z, "hot"), TypeError, "temperature must be a number.*str"),
        (
            (Z, Z, torch.ones(2)),
            ValueError,
            r"temperature must be a number or a float tensor of one.*\(2,\)",
        ),
        ((Z, Z, torch.ones((), device="meta")), ValueError, "temperature must be on cpu.*meta"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        ops.nt_xent(*arguments)


def test_bad_keywords_are_named():
    with pytest.raises(ValueError, match="reduction must be one of mean, sum, none, got 'max'"):
        ops.nt_xent(Z, Z, reduction="max")
    with pytest.raises(TypeError, match="group must be a process group, 'world' or None"):
        ops.nt_xent(Z, Z, group=object())
    with pytest.raises(ValueError, match="gather must be one of all, ring, got 'tree'"):
        ops.nt_xent(Z, Z, gather="tree")
