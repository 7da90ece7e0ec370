"""The ranks of nt_xent and clip_loss: how many candidates are closer than the positive, counted in the same pass."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslfast import ops
from sslfast.losses import CLIPLoss, NTXentLoss
from sslfast.ops.registry import IMPLS

OPS = {"nt_xent": ops.nt_xent, "clip_loss": ops.clip_loss}

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(params=OPS)
def name(request) -> str:
    return request.param


def pairs(n: int, d: int, device: str = "cpu", dtype=torch.float32) -> list[torch.Tensor]:
    """Some pairs are near each other, others are not."""
    generator = torch.Generator().manual_seed(n)
    z1, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float32)
    return [x.to(device, dtype) for x in (z1, z1 + torch.linspace(0.1, 9, n)[:, None] * noise)]


def closer(name: str, z1, z2, ids=None, margin: float = 0.0) -> torch.Tensor:
    """The definition, in float64: candidates that are closer than the positive, by the margin."""
    u = F.normalize(torch.cat([z1, z2]).double())
    n = len(z1)
    cosine, kind = u @ u.T, torch.arange(2 * n, device=u.device) // n
    ids = (torch.arange(n, device=u.device) if ids is None else ids).repeat(2)
    counts = ids[:, None] != ids
    if name == "clip_loss":
        counts &= kind[:, None] != kind
    positive = cosine.diagonal(n).repeat(2)[:, None]
    return ((cosine > positive + margin) & counts).sum(dim=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize(("n", "d"), [(1, 3), (97, 33), (200, 140)])
def test_counts_what_is_closer(name, n, d, temperature, dtype, device):
    z1, z2 = pairs(n, d, device, dtype)
    loss, rank = OPS[name](z1, z2, temperature, return_rank=True, reduction="none")
    assert torch.equal(loss, OPS[name](z1, z2, temperature, reduction="none"))
    assert rank.dtype == torch.int64
    assert rank.shape == ((2, n) if name == "clip_loss" else (2 * n,))
    margin = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float64: 0}[dtype]
    assert (rank.flatten() <= closer(name, z1, z2, margin=-margin)).all()
    assert (rank.flatten() >= closer(name, z1, z2, margin=margin)).all()
    assert n == 1 or (rank.max() > n / 2 and rank.min() == 0)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_images_of_one_id_do_not_count(temperature, decoupled, device):
    z1, z2 = pairs(130, 33, device)
    ids = torch.arange(130, device=device) // 3 * 10**10
    options = {"ids": ids, "decoupled": decoupled, "reduction": "none"}
    loss, rank = ops.nt_xent(z1, z2, temperature, return_rank=True, **options)
    assert torch.equal(loss, ops.nt_xent(z1, z2, temperature, **options))
    assert torch.equal(rank, closer("nt_xent", z1, z2, ids))
    assert (rank != ops.nt_xent(z1, z2, return_rank=True)[1]).any()
    assert not ops.nt_xent(z1, z2, ids=torch.zeros_like(ids), decoupled=decoupled, return_rank=True)[1].any()


def test_of_equal_candidates_none_is_closer(name):
    """Three of each: of those that are closer there are three times as many, and beside a view two more like it."""
    z1, z2 = pairs(70, 200)
    rank = OPS[name](z1, z2, return_rank=True)[1].view(2, 70)
    thrice = OPS[name](z1.repeat(3, 1), z2.repeat(3, 1), return_rank=True)[1].view(2, 210)
    assert torch.equal(thrice, (3 * rank + (2 if name == "nt_xent" else 0)).repeat(1, 3))


def test_nothing_is_closer_than_nan_nor_is_nan(name, device):
    z1, z2 = pairs(40, 16, device)
    before = z1.clone()
    z1[33, 5] = float("nan")
    rank = OPS[name](z1, z2, return_rank=True)[1]
    assert torch.equal(rank.flatten(), closer(name, z1, z2))
    assert not rank.view(2, 40)[:, 33].any()
    assert closer(name, before, z2).view(2, 40)[:, 33].any()


def test_gradients_are_those_without_ranks(name, device):
    found = []
    for options in ({}, {"return_rank": True}):
        leaves = [x.requires_grad_() for x in (*pairs(50, 24, device), torch.tensor(0.2, device=device))]
        result = OPS[name](*leaves, **options)
        loss = result[0] if options else result
        found.append(torch.autograd.grad(loss, leaves, create_graph=True))
        assert not options or not result[1].requires_grad
        torch.autograd.grad(sum(x.square().sum() for x in found[-1]), leaves)
    assert all(torch.equal(*pair) for pair in zip(*found))


def test_any_number_of_threads_and_two_tiles_of_a_group(name):
    """64 groups of tiles at most have counts of their own; the bits of one thread."""
    z1, z2 = pairs(1000, 8)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(OPS[name](z1, z2, return_rank=True)[1])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    assert (results[0].flatten() != closer(name, z1, z2)).sum() <= 2


def test_compiles_as_one_graph_under_autocast(name, device):
    z1, z2 = pairs(12, 8, device)

    def call(z1, z2, **options):
        with torch.autocast(device, torch.bfloat16):
            return OPS[name](z1.bfloat16(), z2, 0.2, return_rank=True, **options)

    options = [{}, {"ids": torch.arange(12, device=device) // 2}] if name == "nt_xent" else [{}]
    for option in options:
        (loss, rank), found = (
            f(z1, z2, **option) for f in (call, torch.compile(call, fullgraph=True, backend="eager"))
        )
        assert torch.equal(loss, found[0])
        assert torch.equal(rank, found[1])


@pytest.mark.parametrize("loss", [NTXentLoss, CLIPLoss])
def test_modules_return_them(loss):
    z1, z2 = pairs(12, 8)
    op = OPS["nt_xent" if loss is NTXentLoss else "clip_loss"]
    found, expected = loss(0.3)(z1, z2, return_rank=True), op(z1, z2, 0.3, return_rank=True)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("flag", [1, None, "yes"])
@pytest.mark.parametrize("options", [{}, {"decoupled": True}])
def test_a_flag_is_true_or_false(name, options, flag):
    with pytest.raises(TypeError, match=rf"{name}: return_rank must be True or False, got {flag!r}"):
        OPS[name](*pairs(3, 2), return_rank=flag, **(options if name == "nt_xent" else {}))


@pytest.mark.parametrize("op", ["nt_xent_forward", "clip_loss_forward"])
def test_the_reference_counts_the_same(op):
    z1, z2 = pairs(60, 20)
    for dtype in (torch.float32, torch.bfloat16):
        arguments = z1.to(dtype), z2.to(dtype), 0.2, None, False, True
        rank, expected = (IMPLS[op][way](*arguments)[-1] for way in ("cpu", "reference"))
        assert (rank != expected).sum() <= (0 if dtype == torch.float32 else 12)
