"""Contrastive losses over several processes: W ranks of n images train as one process with W·n images does."""

from __future__ import annotations

import itertools
import re
import warnings

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from gloo import run_ranks, what_is_raised
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.parallel import DistributedDataParallel

from sslfast import KeyQueue, ops
from sslfast.losses import CLIPLoss, InfoNCELoss, NTXentLoss, SigLIPLoss
from sslfast.ops.distributed import GATHER

N, WIDTH, DIM = 5, 12, 8
CASES = [
    *itertools.product((NTXentLoss, InfoNCELoss), ("all", "ring"), ("mean", "sum"), (0.2,), (torch.float32,)),
    *itertools.product((NTXentLoss, InfoNCELoss), ("all", "ring"), ("mean",), (0.01,), (torch.float32,)),
    *itertools.product((NTXentLoss, InfoNCELoss, CLIPLoss), ("ring",), ("none",), (0.2,), (torch.float64,)),
    *itertools.product((CLIPLoss,), ("all", "ring"), ("mean",), (0.01, 0.2), (torch.float32,)),
    *itertools.product((SigLIPLoss,), ("all", "ring"), ("mean",), (4.0,), (torch.float32,)),
    (SigLIPLoss, "ring", "none", 4.0, torch.float64),
]


class Model(nn.Module):
    """Both views, or query and key, through one encoder; the temperature is learned too."""

    def __init__(self, loss: type[nn.Module], gather: str, reduction: str, temperature: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, DIM))
        self.loss = loss(temperature, learnable=True, reduction=reduction, group="world", gather=gather)

    def forward(self, x1, x2):
        return self.loss(self.encoder(x1), self.encoder(x2))


def images(size: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    x1 = torch.randn(size * N, WIDTH, generator=generator, dtype=torch.float32)
    return x1.to(dtype), (x1 + 0.5 * torch.randn(size * N, WIDTH, generator=generator, dtype=torch.float32)).to(dtype)


def step(model: nn.Module, x1: torch.Tensor, x2: torch.Tensor) -> dict:
    """The loss, and the gradients to the parameters and to the images."""
    x1, x2 = (x.clone().requires_grad_() for x in (x1, x2))
    loss = model(x1, x2)
    loss.sum().backward()
    parameters = [p.grad for p in getattr(model, "module", model).parameters()]
    return {"loss": loss.detach(), "parameters": parameters, "images": (x1.grad, x2.grad)}


def all_cases() -> list:
    size, rank = dist.get_world_size(), dist.get_rank()
    results = []
    for *case, dtype in CASES:
        model = DistributedDataParallel(Model(*case).to(dtype))
        results.append(step(model, *(x.chunk(size)[rank] for x in images(size, dtype))))
    return results


def unchecked(z: torch.Tensor, rank: int) -> dict:
    """What is exchanged in a step by a learned temperature, with and without a comparison; and what differs then."""
    exchanges: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in (GATHER, "batch_isend_irecv"):
            exchange = getattr(dist, name)
            patch.setattr(
                dist, name, lambda *args, f=exchange, n=name, **kwargs: exchanges.append(n) or f(*args, **kwargs)
            )
        counts = {}
        for gather, check in itertools.product(("all", "ring"), (True, False)):
            loss = NTXentLoss(0.2, learnable=True, group="world", gather=gather)
            loss.check_ranks = check
            exchanges.clear()
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                value = loss(z.clone().requires_grad_(), z)
            forward = list(exchanges)
            value.backward()
            counts[gather, check] = (forward, exchanges[len(forward) :])
    tau = torch.tensor(0.1 + 0.1 * rank)
    leaf = z.clone().requires_grad_()
    value = ops.nt_xent(leaf, z, tau, group="world", check_ranks=False)
    value.backward()
    return {"counts": counts, "loss": value.detach(), "gradient": leaf.grad}


def refusals() -> dict:
    rank = dist.get_rank()
    z = torch.randn(4, 3)
    ragged = torch.randn(4 - rank, 3)
    return {
        "temperature": what_is_raised(lambda: ops.nt_xent(z, z, 0.1 + 0.1 * rank, group="world")),
        "tensor": what_is_raised(lambda: ops.info_nce(z, z, None, torch.tensor(0.1 + 0.1 * rank), group="world")),
        "batch": what_is_raised(lambda: ops.nt_xent(ragged, ragged, group="world", gather="ring")),
        "dtype": what_is_raised(
            lambda: ops.info_nce(*[z.to([torch.float32, torch.bfloat16][rank])] * 2, group="world")
        ),
        "candidates": what_is_raised(lambda: ops.info_nce(z, z.repeat(1 + rank, 1), group="world")),
        "ids": what_is_raised(lambda: ops.info_nce(z, z, ids=torch.arange(4), group="world")),
        "queue": what_is_raised(lambda: ops.info_nce(z, z, F.normalize(z), group="world")),
        "op": what_is_raised(lambda: (ops.nt_xent, ops.info_nce)[rank](z, z, temperature=0.5, group="world")),
        "queue and loss": what_is_raised(
            lambda: [lambda: KeyQueue(8, 3, group="world").enqueue(z), lambda: ops.nt_xent(z, z, group="world")][rank]()
        ),
        "gather": what_is_raised(lambda: ops.nt_xent(z, z, group="world", gather=("all", "ring")[rank])),
        "reduction": what_is_raised(lambda: ops.info_nce(z, z, group="world", reduction=("mean", "sum")[rank])),
        "unchecked": unchecked(z, rank),
        "afterwards": float(ops.nt_xent(z, z, 0.5, group="world").isfinite()),
    }


def halves() -> dict:
    """Loss and gradient in half precision, whose bytes are exchanged."""
    size, rank = dist.get_world_size(), dist.get_rank()
    results = {}
    for dtype, gather in itertools.product((torch.bfloat16, torch.float16), ("all", "ring")):
        views = [x.chunk(size)[rank].requires_grad_() for x in images(size, dtype)]
        loss = ops.nt_xent(*views, 0.2, group="world", gather=gather)
        loss.backward()
        results[dtype, gather] = (loss.detach(), *(x.grad for x in views))
    return results


def a_part_of_the_world() -> torch.Tensor | None:
    """Ranks 1 and 3 of four as a group of their own."""
    group = dist.new_group([1, 3])
    rank = dist.get_rank()
    if rank % 2 == 0:
        return None
    z1, z2 = (x.chunk(2)[rank // 2] for x in images(2, torch.float64))
    return torch.stack([ops.nt_xent(z1, z2, group=group, gather=gather) for gather in ("all", "ring")])


def candidates(size: int, rank: int | None, **options) -> list[torch.Tensor]:
    """Loss and gradients of a rank's queries among its candidates, or of all of them; mean over all."""
    generator = torch.Generator().manual_seed(3)
    query, key = (torch.randn(size, rows, DIM, generator=generator, dtype=torch.float64) for rows in (N, 2 * N + 1))
    targets = torch.randint(0, 2 * N + 1, (size, N), generator=generator)
    if rank is None:
        targets = targets + torch.arange(size)[:, None] * (2 * N + 1)
    leaves = [(x.flatten(0, 1) if rank is None else x[rank]).clone().requires_grad_() for x in (query, key)]
    leaves.append(torch.tensor(0.3, dtype=torch.float64, requires_grad=True))
    targets = targets.flatten() if rank is None else targets[rank]
    loss = ops.info_nce(*leaves[:2], None, leaves[2], targets=targets, **options)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def own_candidates() -> dict[str, list[torch.Tensor]]:
    size, rank = dist.get_world_size(), dist.get_rank()
    return {gather: candidates(size, rank, group="world", gather=gather) for gather in ("all", "ring")}


def queues() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    queue = KeyQueue(7, 3, group="world")
    for number in range(2):
        queue.enqueue(torch.full((2, 3), 1.0) * torch.tensor([1.0, number + 1, dist.get_rank() + 1]))
    return queue.keys, queue.pointer


def compiled() -> list[tuple[list[torch.Tensor], list[torch.Tensor]]]:
    """Losses and gradients in one graph, and those without a compiler."""
    size, rank = dist.get_world_size(), dist.get_rank()
    found = []
    for op, gather in itertools.product((ops.nt_xent, ops.info_nce), ("all", "ring")):

        def loss(z1, z2, tau, op=op, gather=gather):
            return op(z1, z2, temperature=tau, group="world", gather=gather)

        both = []
        for function in (torch.compile(loss, fullgraph=True, backend="aot_eager"), loss):
            leaves = [*(x.chunk(size)[rank].clone() for x in images(size, torch.float32)), torch.tensor(0.3)]
            leaves = [x.requires_grad_() for x in leaves]
            result = function(*leaves)
            both.append([result.detach(), *torch.autograd.grad(result, leaves)])
        found.append(tuple(both))
    return found


def changing_batches() -> dict[str, int]:
    """How often each op was compiled over batches of five sizes, whose gradients are those without a compiler."""
    counts = {}
    for op in (ops.nt_xent, ops.info_nce):

        def loss(z1, z2, op=op):
            return op(z1, z2, group="world")

        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(loss, fullgraph=True, backend=counter)
        for batch in (3, 5, 9, 4, 7):
            leaves = [torch.randn(batch, DIM, requires_grad=True) for _ in range(2)]
            actual, expected = (torch.autograd.grad(function(*leaves), leaves) for function in (compiled, loss))
            torch.testing.assert_close(actual, expected)
        counts[op.__name__] = counter.frame_count
    return counts


def twice_differentiated() -> str:
    z = torch.randn(4, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(ops.nt_xent(z, z.detach(), group="world"), z, create_graph=True)
    return what_is_raised(lambda: slope.sum().backward())


def everything(**parts) -> dict:
    return {name: part() for name, part in parts.items()}


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> list[dict]:
    return run_ranks(everything, 2, tmp_path_factory.mktemp("ranks"), refusals=refusals, **ALONE, **COMMON)


@pytest.fixture(scope="module")
def four(tmp_path_factory) -> list[dict]:
    return run_ranks(everything, 4, tmp_path_factory.mktemp("ranks"), part=a_part_of_the_world, **COMMON)


@pytest.fixture(params=["two", "four"])
def results(request) -> list[dict]:
    return request.getfixturevalue(request.param)


ALONE = {"compiled": compiled, "counts": changing_batches, "twice": twice_differentiated}
COMMON = {"cases": all_cases, "halves": halves, "queues": queues, "candidates": own_candidates}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_ranks_train_as_one_process(number, results):
    """With DDP's averaging the mean gives the same gradients; of a sum, whose scale is the number of rows, 1/W."""
    size = len(results)
    *case, dtype = CASES[number]
    reduction = case[2]
    alone = step(Model(*case).to(dtype), *images(size, dtype))
    ranks = [result["cases"][number] for result in results]
    tolerance = {"rtol": 1e-4, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-12}

    losses = [rank["loss"] for rank in ranks]
    if reduction == "none":
        halves = zip(*(loss.chunk(2 if case[0] in (NTXentLoss, CLIPLoss) else 1) for loss in losses))
        torch.testing.assert_close(torch.cat([torch.cat(half) for half in halves]), alone["loss"], **tolerance)
    else:
        together = torch.stack(losses).mean() if reduction == "mean" else torch.stack(losses).sum()
        torch.testing.assert_close(together, alone["loss"], **tolerance)

    share = 1 if reduction == "mean" else 1 / size
    for rank in ranks:
        for actual, expected in zip(rank["parameters"], alone["parameters"]):
            torch.testing.assert_close(actual, expected * share, **tolerance)
    for view in range(2):
        actual = torch.cat([rank["images"][view] for rank in ranks])
        torch.testing.assert_close(actual, alone["images"][view] * size * share, **tolerance)


@pytest.mark.parametrize("gather", ["all", "ring"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype, gather, results):
    size = len(results)
    views = [x.requires_grad_() for x in images(size, dtype)]
    loss = ops.nt_xent(*views, 0.2)
    loss.backward()
    ranks = [result["halves"][dtype, gather] for result in results]
    torch.testing.assert_close(torch.stack([rank[0] for rank in ranks]).mean(), loss.detach(), rtol=1e-3, atol=0)
    for view in range(2):
        actual = torch.cat([rank[1 + view] for rank in ranks])
        torch.testing.assert_close(actual, views[view].grad * size, rtol=0.05, atol=1e-3)


@pytest.mark.parametrize("gather", ["all", "ring"])
def test_candidates_of_all_ranks_are_negatives(gather, results):
    size = len(results)
    loss, dquery, dkey, dtau = candidates(size, None)
    ranks = [result["candidates"][gather] for result in results]
    for expected, actual in zip((loss, dtau), (torch.stack([rank[i] for rank in ranks]).mean() for i in (0, 3))):
        torch.testing.assert_close(actual, expected)
    for i, expected in ((1, dquery), (2, dkey)):
        torch.testing.assert_close(torch.cat([rank[i] for rank in ranks]), expected * size)


def test_queue_takes_the_keys_of_every_rank_in_their_order(results):
    size = len(results)
    keys = [[1.0, number + 1, rank + 1] for number in range(2) for rank in range(size) for _ in range(2)]
    rows = F.normalize(torch.tensor(keys))
    for queue, pointer in (result["queues"] for result in results):
        assert int(pointer) == len(rows) % 7
        for k, row in list(enumerate(rows))[-7:]:
            torch.testing.assert_close(queue[k % 7], row)
    assert all(torch.equal(result["queues"][0], results[0]["queues"][0]) for result in results)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "temperature",
            "ValueError: nt_xent: the ranks of group must have equal.*rank 0: .*temperature 0.1, .*; rank 1.*0.2",
        ),
        (
            "tensor",
            "ValueError: info_nce: the ranks of group must have equal.*rank 0: .*temperature 0.1.*; rank 1.*0.2",
        ),
        (
            "batch",
            r"ValueError: nt_xent: .*rank 0: \(4, 3\) torch.float32.*; rank 1: \(3, 3\) torch.float32",
        ),
        ("dtype", r"ValueError: info_nce: .*rank 0: \(4, 3\) torch.float32.*; rank 1: \(4, 3\) torch.bfloat16"),
        ("candidates", "ValueError: info_nce: .*rank 0: .* candidates 4.*; rank 1: .* candidates 8"),
        ("ids", "ValueError: info_nce: group must be None with ids"),
        ("queue", "ValueError: info_nce: group must be None with a queue"),
        ("op", "ValueError: .*rank 0: .* in nt_xent; rank 1: .* in info_nce"),
        ("queue and loss", "ValueError: .*rank 0: .* in KeyQueue; rank 1: .* in nt_xent"),
        ("gather", "ValueError: nt_xent: .*rank 0: .*gather all.*; rank 1: .*gather ring"),
        ("reduction", "ValueError: info_nce: .*rank 0: .*reduction mean.*; rank 1: .*reduction sum"),
    ],
)
def test_ranks_that_differ_are_refused_on_every_rank(what, message, two):
    for result in two:
        assert re.match(message, result["refusals"][what])
        assert result["refusals"]["afterwards"] == 1.0


def test_a_step_exchanges_once_each_way_and_compares_once_at_most(two):
    for result in two:
        found = result["refusals"]["unchecked"]
        for (gather, check), (forward, backward) in found["counts"].items():
            exchange = GATHER if gather == "all" else "batch_isend_irecv"
            assert forward == [GATHER] * check + [exchange], (gather, check)
            assert backward == [exchange]
        assert found["loss"].isnan()  # temperatures that nobody compared were two different ones
        assert found["gradient"].isnan().all()


def test_compiles_as_one_graph(two):
    for actual, expected in itertools.chain.from_iterable(result["compiled"] for result in two):
        torch.testing.assert_close(actual, expected)


def test_changing_batches_compile_at_most_twice(two):
    for result in two:
        assert set(result["counts"]) == {"nt_xent", "info_nce"}
        assert max(result["counts"].values()) <= 2


def test_is_differentiated_once_only(two):
    for result in two:
        assert re.match("RuntimeError: nt_xent: with a group it can be differentiated once only", result["twice"])


def test_a_group_that_is_a_part_of_the_world(four):
    alone = ops.nt_xent(*images(2, torch.float64))
    ranks = [four[1]["part"], four[3]["part"]]
    torch.testing.assert_close((ranks[0] + ranks[1]) / 2, alone.expand(2))
