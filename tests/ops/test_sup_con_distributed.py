"""sup_con and nt_xent_views over several processes: W ranks of n rows train as one process with W·n rows does; and the
ranks of positives among the candidates of all."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.distributed as dist
from gloo import run_ranks, what_is_raised

from sslfast import ops

N, DIM = 5, 8
CASES = [
    *itertools.product(("all", "ring"), ("mean", "sum", "none"), (0.2,), (torch.float32,)),
    *itertools.product(("all", "ring"), ("mean",), (0.01,), (torch.float32,)),
    *itertools.product(("all", "ring"), ("mean",), (0.2,), (torch.float64, torch.bfloat16)),
]


def rows(size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels that some ranks share, that one has alone, and two rows without a positive, both of the first rank."""
    generator = torch.Generator().manual_seed(7)
    z = torch.randn(size * N, DIM, generator=generator, dtype=torch.float32).to(dtype)
    labels = torch.arange(size * N) % 3
    labels[N - 2 : N] = torch.tensor([70, 80])
    labels[-2:] = 90
    return z, labels


def step(z: torch.Tensor, labels: torch.Tensor, reduction: str, temperature: float, **across) -> list[torch.Tensor]:
    leaves = [z.clone().requires_grad_(), torch.tensor(temperature, dtype=torch.float64, requires_grad=True)]
    loss = ops.sup_con(leaves[0], labels, leaves[1], reduction=reduction, **across)
    return [loss.detach(), *torch.autograd.grad(loss.sum(), leaves)]


VIEWS = list(itertools.product(("all", "ring"), (True, False), (True, False)))  # gather, with ids, decoupled


def views_step(size: int, rank: int | None, with_ids: bool, decoupled: bool, **across) -> list[torch.Tensor]:
    """Of one rank's images, or of all without one. Ids are shared by images of one and of several ranks."""
    generator = torch.Generator().manual_seed(8)
    z = torch.randn(3, size * N, DIM, generator=generator, dtype=torch.float32)
    ids = torch.arange(size * N) % 7 * 10**10
    part = slice(None) if rank is None else slice(rank * N, (rank + 1) * N)
    leaves = [z[:, part].clone().requires_grad_(), torch.tensor(0.2, dtype=torch.float64, requires_grad=True)]
    loss = ops.nt_xent_views(*leaves, ids=ids[part] if with_ids else None, decoupled=decoupled, **across)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


COUNTED = ["nt_xent", "nt_xent, ids", "clip_loss", "info_nce", "info_nce, targets"]


def counted(name: str, size: int, rank: int | None, **across) -> torch.Tensor:
    """Of one rank's pairs, or of all without one: the ranks of their positives, (rows, N)."""
    generator = torch.Generator().manual_seed(9)
    x, noise = torch.randn(2, size * N, DIM, generator=generator, dtype=torch.float32)
    op, _, option = name.partition(", ")
    options = {}
    if option == "ids":
        options["ids"] = torch.arange(size * N) % 7
    if option == "targets":  # in the rank's own part
        options["targets"] = torch.arange(size * N) // N * N + torch.arange(size * N).flip(0) % N
    part = slice(None) if rank is None else slice(rank * N, (rank + 1) * N)
    options = {key: value[part] for key, value in options.items()}
    if option == "targets" and rank is not None:
        options["targets"] = options["targets"] - rank * N
    _, found = getattr(ops, op)(x[part], (x + noise)[part], return_rank=True, **options, **across)
    return found.view(-1, size * N if rank is None else N)


def compiled(z: torch.Tensor, labels: torch.Tensor) -> list:
    def loss(z):
        return ops.sup_con(z, labels, 0.2, group="world")

    found = []
    for function in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
        leaf = z.clone().requires_grad_()
        result = function(leaf)
        found.append([result.detach(), *torch.autograd.grad(result, leaf)])
    return found


def everything() -> dict:
    size, rank = dist.get_world_size(), dist.get_rank()
    found = []
    for gather, reduction, temperature, dtype in CASES:
        z, labels = (x.chunk(size)[rank] for x in rows(size, dtype))
        found.append(step(z, labels, reduction, temperature, group="world", gather=gather))
    z, labels = (x.chunk(size)[rank] for x in rows(size, torch.float32))
    ragged = slice(0, N - rank)
    leaf = z.clone().requires_grad_()
    (slope,) = torch.autograd.grad(ops.sup_con(leaf, labels, group="world"), leaf, create_graph=True)
    return {
        "cases": found,
        "views": [views_step(size, rank, *how, group="world", gather=gather) for gather, *how in VIEWS],
        "counted": {
            (name, gather): counted(name, size, rank, group="world", gather=gather)
            for name, gather in itertools.product(COUNTED, ("all", "ring"))
        },
        "compiled": compiled(z, labels),
        "ragged": what_is_raised(lambda: ops.sup_con(z[ragged], labels[ragged], group="world")),
        "other": what_is_raised(
            lambda: ops.nt_xent_views(torch.stack([z, z]), decoupled=rank == 1, group="world"),
        ),
        "twice": what_is_raised(lambda: slope.sum().backward()),
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    return run_ranks(everything, 3, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_ranks_train_as_one_process(number, results):
    """The mean is over the rows of all ranks that have a positive, however they are spread."""
    size = len(results)
    _, reduction, temperature, dtype = CASES[number]
    loss, dz, dtau = step(*rows(size, dtype), reduction, temperature)
    ranks = [result["cases"][number] for result in results]
    losses, slopes, taus = zip(*ranks)
    tolerance = {torch.float32: {"rtol": 1e-4, "atol": 1e-6}, torch.bfloat16: {"rtol": 0.05, "atol": 1e-3}}.get(
        dtype, {"rtol": 1e-10, "atol": 1e-12}
    )
    scale = size if reduction == "mean" else 1
    together = torch.cat(losses) if reduction == "none" else torch.stack(losses).sum() / scale
    torch.testing.assert_close(together, loss, **tolerance)
    torch.testing.assert_close(torch.cat(slopes) / scale, dz, **tolerance)
    torch.testing.assert_close(
        torch.stack(taus).sum() / scale, dtau, rtol=1e-2 if dtype == torch.bfloat16 else 1e-4, atol=1e-6
    )


@pytest.mark.parametrize("number", range(len(VIEWS)))
def test_views_of_all_ranks_are_those_of_one_process(number, results):
    size = len(results)
    loss, dz, dtau = views_step(size, None, *VIEWS[number][1:])
    losses, slopes, taus = zip(*(result["views"][number] for result in results))
    torch.testing.assert_close(torch.stack(losses).mean(), loss)
    torch.testing.assert_close(torch.cat(slopes, dim=1) / size, dz, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.stack(taus).mean(), dtau, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gather", ["all", "ring"])
@pytest.mark.parametrize("name", COUNTED)
def test_ranks_of_positives_are_among_the_candidates_of_all(name, gather, results):
    found = torch.cat([result["counted"][name, gather] for result in results], dim=1)
    expected = counted(name, len(results), None)
    assert torch.equal(found, expected)
    assert expected.max() >= N  # more than one rank has


def test_compiles_as_one_graph(results):
    for result in results:
        torch.testing.assert_close(*result["compiled"])


def test_what_cannot_be_is_refused_on_every_rank(results):
    for result in results:
        assert result["ragged"].startswith("ValueError: sup_con: the ranks of group must have equal")
        assert result["other"].startswith("ValueError: nt_xent_views: the ranks of group must have equal")
        assert "decoupled True" in result["other"]
        assert result["twice"].startswith("RuntimeError: sup_con: with a group it can be differentiated once only")
