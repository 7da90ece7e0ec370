"""ops.nt_xent_views, and nt_xent with ids or decoupled, against the float64 reference; edge cases, contracts."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from numerics import assert_as_accurate

from sslfast import ops
from sslfast.kernels import reference

pytestmark = pytest.mark.usefixtures("poisoned_memory")


def inputs(views: int, n: int, d: int, device: str, dtype=torch.float32, noise: float = 1.0):
    """Noisy views of n embeddings; ids that are neither small nor in order, some of them those of several images."""
    generator = torch.Generator().manual_seed(n + d)
    base = torch.randn(n, d, generator=generator, dtype=torch.float32)
    z = base + noise * torch.randn(views, n, d, generator=generator, dtype=torch.float32)
    ids = torch.randint(0, n, (n,), generator=generator) * -(10**12) + 3
    return z.to(device, dtype), ids.to(device)


def run(function, z, temperature, weights, dtype=None, **options):
    """Losses of all views, and the gradients of their weighted sum to views and temperature."""
    z = z.detach().to(dtype or z.dtype).requires_grad_()
    tau = torch.tensor(temperature, device=z.device).to(dtype or torch.float32).requires_grad_()
    losses = function(z, tau, reduction="none", **options)
    (losses * weights.to(losses.dtype)).sum().backward()
    return {"loss": losses.detach(), "dz": z.grad, "dtau": tau.grad}


def check_against_float64(z, temperature, **options):
    """The numeric bar over three draws of the weights; dτ may also err by what an ulp of the inputs changes it by."""
    actual, eager, exact, one_ulp_on = [], [], [], []
    signs = torch.randint(0, 2, z.shape, generator=torch.Generator().manual_seed(9)).to(z.device) * 2 - 1
    nudged = z.double() * (1 + torch.finfo(torch.float32).eps * signs), temperature * (1 + 2**-23)
    for seed in range(3):
        weights = torch.rand(z.shape[:2], generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
        weights = weights.to(z.device)
        actual.append(run(ops.nt_xent_views, z, temperature, weights, **options))
        eager.append(run(reference.nt_xent_views, z, temperature, weights, **options))
        exact.append(run(reference.nt_xent_views, z, temperature, weights, torch.float64, **options))
        one_ulp_on.append(run(reference.nt_xent_views, *nudged, weights, torch.float64, **options)["dtau"])
    assert actual[0]["loss"].dtype == torch.float32
    for name in actual[0]:
        draws = [torch.stack([result[name] for result in results]) for results in (actual, eager, exact)]
        inherent = (torch.stack(one_ulp_on) - draws[2]).norm().item() if name == "dtau" else 0.0
        assert_as_accurate(*draws, name, dtype=z.dtype, inherent=inherent)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 100.0])
@pytest.mark.parametrize(
    ("views", "n", "d", "dtype"),
    [
        (2, 129, 60, torch.float32),
        (3, 63, 129, torch.float32),
        (8, 17, 1, torch.float32),
        (3, 40, 32, torch.bfloat16),
        (3, 40, 32, torch.float16),
    ],
)
def test_values_and_gradients(views, n, d, dtype, temperature, decoupled, device):
    """Positives that drown: were all but one of them near, one row would have all of the loss, and eager its luck."""
    z, ids = inputs(views, n, d, device, dtype, noise=3.0)
    check_against_float64(z, temperature, ids=ids, decoupled=decoupled)
    if dtype == torch.float32:
        check_against_float64(z, temperature, decoupled=decoupled)


@pytest.mark.parametrize("views", [2, 3])
def test_tiny_losses_of_near_positives(views, device):
    """They are exponentials of differences of cosines: relatively as accurate as these, over the temperature."""
    temperature = 0.02
    z, _ = inputs(views, 129, 60, device, noise=0.02)
    weights = torch.ones(z.shape[:2], device=device)
    actual = run(ops.nt_xent_views, z, temperature, weights)
    exact = run(reference.nt_xent_views, z, temperature, weights, torch.float64)
    assert exact["loss"].median() < 1e-10
    bar = 4 * torch.finfo(torch.float32).eps / temperature
    assert ((actual["loss"] - exact["loss"]).abs() <= bar * exact["loss"]).all()
    assert (actual["dz"] - exact["dz"]).norm() <= bar * exact["dz"].norm()


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_is_the_formula_of_the_docstring(reduction, decoupled, device):
    z, _ = inputs(3, 5, 4, device, torch.float64)
    ids = torch.tensor([7, 2, 7, 0, 5], device=device)
    u = F.normalize(z, dim=2)
    s = torch.einsum("vid,wjd->viwj", u, u) / 0.2
    losses = torch.zeros(3, 5, dtype=torch.float64, device=device)
    for v, i in itertools.product(range(3), range(5)):
        negatives = s[v, i][:, ids != ids[i]].flatten()
        for w in {0, 1, 2} - {v}:
            if decoupled:
                losses[v, i] += torch.logsumexp(negatives, dim=0) - s[v, i, w, i]
            else:
                logits = torch.cat([s[v, i, w, i].reshape(1), negatives])
                losses[v, i] += F.cross_entropy(logits, torch.zeros((), dtype=torch.int64, device=device))
    losses /= 2
    expected = {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction]
    options = {"ids": ids, "decoupled": decoupled, "reduction": reduction}
    torch.testing.assert_close(ops.nt_xent_views(z, 0.2, **options), expected)
    torch.testing.assert_close(ops.nt_xent_views(z.float(), 0.2, **options), expected.float())


def test_two_views_are_nt_xent(device):
    z, ids = inputs(2, 40, 16, device)
    torch.testing.assert_close(ops.nt_xent_views(z, 0.2), ops.nt_xent(*z, 0.2))
    for options in ({"ids": ids}, {"decoupled": True}, {"ids": ids, "decoupled": True}):
        for reduction in ("mean", "sum", "none"):
            expected = ops.nt_xent_views(z, 0.2, reduction=reduction, **options)
            expected = expected.flatten() if reduction == "none" else expected
            assert torch.equal(ops.nt_xent(*z, 0.2, reduction=reduction, **options), expected)


@pytest.mark.parametrize("decoupled", [False, True])
def test_views_without_a_negative_have_no_loss(decoupled, device):
    """All images of one id, or one image alone; beside others they have a loss again."""
    z, _ = inputs(3, 5, 4, device)
    for leaf, ids in ((z.clone(), torch.ones(5, dtype=torch.int64, device=device)), (z[:, :1].clone(), None)):
        loss = ops.nt_xent_views(leaf.requires_grad_(), 0.2, ids=ids, decoupled=decoupled)
        loss.backward()
        assert loss == 0
        assert (leaf.grad == 0).all()
    ids = torch.tensor([1, 1, 1, 1, 2], device=device)
    assert (ops.nt_xent_views(z, 0.2, ids=ids, decoupled=decoupled, reduction="none") != 0).all()


@pytest.mark.parametrize("decoupled", [False, True])
def test_nan_in_and_senseless_temperatures_give_nan(decoupled, device):
    z, ids = inputs(3, 20, 8, device)
    for temperature in (0.0, -0.1, float("nan")):
        tau = torch.tensor(temperature, device=device)
        assert ops.nt_xent_views(z, tau, ids=ids, decoupled=decoupled).isnan()
    z[1, 4, 2] = float("nan")
    leaf = z.requires_grad_()
    losses = ops.nt_xent_views(leaf, 0.2, decoupled=decoupled, reduction="none")
    losses.sum().backward()
    assert losses.isnan().all()
    assert leaf.grad.isnan().all()


def test_zero_rows_have_no_gradient(device):
    z, ids = inputs(3, 20, 8, device)
    z[1, 4] = 0
    check_against_float64(z, 0.2, ids=ids)
    leaf = z.requires_grad_()
    ops.nt_xent_views(leaf, 0.2).backward()
    assert (leaf.grad[1, 4] == 0).all()


def test_gradcheck_in_float64():
    z, _ = inputs(3, 4, 3, "cpu", torch.float64)
    ids, tau = torch.tensor([1, 2, 1, 3]), torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    for decoupled in (False, True):
        assert torch.autograd.gradcheck(
            lambda z, t, d=decoupled: ops.nt_xent_views(z, t, ids=ids, decoupled=d, reduction="none"),
            (z.requires_grad_(), tau),
        )


def test_loss_is_float32_and_the_same_under_autocast(device):
    z, ids = inputs(3, 20, 8, device, torch.bfloat16)
    leaves = [z.clone().requires_grad_() for _ in range(2)]
    for leaf, enabled in zip(leaves, (False, True)):
        with torch.autocast(device, torch.bfloat16, enabled=enabled):
            loss = ops.nt_xent_views(leaf, 0.2, ids=ids)
        assert loss.dtype == torch.float32
        loss.backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"z": [[1.0]]}, TypeError, "nt_xent_views: z must be a tensor"),
        ({"z": torch.zeros(3, 2)}, ValueError, r"nt_xent_views: z must be \(V, N, D\) with at least two views"),
        ({"z": torch.zeros(1, 3, 2)}, ValueError, r"at least two views V, got shape \(1, 3, 2\)"),
        ({"z": torch.zeros(2, 0, 2)}, ValueError, "nt_xent_views: z must be a non-empty"),
        ({"z": torch.zeros(2, 3, 2, dtype=torch.int64)}, TypeError, "nt_xent_views: z must be float32"),
        ({"ids": [0, 0, 1]}, TypeError, "nt_xent_views: ids must be a tensor"),
        ({"ids": torch.zeros(3)}, TypeError, "nt_xent_views: ids must be integers, got torch.float32"),
        (
            {"ids": torch.zeros(6, dtype=torch.int64)},
            ValueError,
            r"nt_xent_views: ids must be \(3,\).*shape \(6,\)",
        ),
        ({"decoupled": 1}, TypeError, "nt_xent_views: decoupled must be True or False, got 1"),
        ({"temperature": 0.0}, ValueError, "nt_xent_views: temperature must be positive"),
        ({"reduction": "max"}, ValueError, "nt_xent_views: reduction must be one of"),
        ({"group": "nobody"}, TypeError, "nt_xent_views: group must be a process group"),
        ({"gather": "some"}, ValueError, "nt_xent_views: gather must be one of"),
    ],
)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message):
        ops.nt_xent_views(**({"z": torch.zeros(2, 3, 2)} | change))


@pytest.mark.parametrize("change", [{"ids": torch.zeros(2, dtype=torch.int64)}, {"decoupled": None}])
def test_bad_arguments_of_nt_xent(change):
    with pytest.raises((TypeError, ValueError), match=f"nt_xent: {next(iter(change))} must be"):
        ops.nt_xent(torch.zeros(3, 2), torch.zeros(3, 2), **change)
