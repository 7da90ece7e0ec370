from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslfast import KeyQueue, ops


def test_begins_with_unit_rows_from_the_seed():
    torch.manual_seed(3)
    queue = KeyQueue(50, 6)
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(50))
    torch.manual_seed(3)
    assert torch.equal(KeyQueue(50, 6).keys, queue.keys)
    assert queue.keys.unique(dim=0).shape == (50, 6)


@pytest.mark.parametrize("batches", [[3, 3, 3], [4, 5, 6, 7], [10], [1, 23, 2]])
def test_holds_the_last_keys_in_the_order_of_a_ring(batches):
    """Against a plain list: key number k lies in row k modulo the size."""
    queue = KeyQueue(10, 4)
    rows, number = list(queue.keys.clone()), 0
    for k, size in enumerate(batches):
        keys = torch.randn(size, 4, generator=torch.Generator().manual_seed(k))
        queue.enqueue(keys)
        for key in F.normalize(keys):
            rows[number % 10] = key
            number += 1
    torch.testing.assert_close(queue.keys, torch.stack(rows))
    assert int(queue.pointer) == number % 10


def test_state_resumes_exactly():
    first, second = KeyQueue(8, 3), KeyQueue(8, 3)
    first.enqueue(torch.randn(5, 3))
    second.load_state_dict(first.state_dict())
    batch = torch.randn(6, 3)
    for queue in (first, second):
        queue.enqueue(batch)
    assert torch.equal(first.keys, second.keys)
    assert torch.equal(first.pointer, second.pointer)


def test_takes_half_precision_keys_with_grad_and_keeps_no_graph():
    queue = KeyQueue(8, 3)
    keys = torch.randn(4, 3, dtype=torch.bfloat16, requires_grad=True)
    queue.enqueue(keys)
    assert not queue.keys.requires_grad
    torch.testing.assert_close(queue.keys[:4], F.normalize(keys.detach().float()))


def test_serves_the_loss_and_changes_after_it():
    torch.manual_seed(0)
    queue, query, key = KeyQueue(16, 8), torch.randn(4, 8, requires_grad=True), torch.randn(4, 8)
    before = queue.keys.clone()
    loss = ops.info_nce(query, key, queue.keys, 0.1)
    queue.enqueue(key)
    loss.backward()
    again = query.detach().clone().requires_grad_()
    ops.info_nce(again, key, before, 0.1).backward()
    assert torch.equal(query.grad, again.grad)


@pytest.mark.gpu
def test_a_cuda_graph_moves_the_pointer():
    queue, plain = KeyQueue(10, 4).cuda(), KeyQueue(10, 4).cuda()
    plain.load_state_dict(queue.state_dict())
    keys = torch.randn(3, 4, device="cuda")
    queue.enqueue(keys)
    plain.enqueue(keys)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        queue.enqueue(keys)
    for _ in range(4):
        keys.normal_()
        graph.replay()
        plain.enqueue(keys)
    assert torch.equal(queue.keys, plain.keys)
    assert torch.equal(queue.pointer, plain.pointer)


@pytest.mark.parametrize(
    ("size", "dim", "error", "message"),
    [(0, 4, ValueError, "size must be at least 1, got 0"), (4, 2.0, TypeError, "dim must be an integer, got float")],
)
def test_bad_sizes_are_named(size, dim, error, message):
    with pytest.raises(error, match=message):
        KeyQueue(size, dim)


@pytest.mark.parametrize(
    ("keys", "error", "message"),
    [
        (torch.ones(2, 3), ValueError, r"keys must be \(N, 4\), got shape \(2, 3\)"),
        (torch.ones(0, 4), ValueError, "keys must be a non-empty matrix"),
        (torch.ones(2, 4).int(), TypeError, "keys must be float32"),
        (torch.ones(2, 4, device="meta"), ValueError, "keys must be on cpu, as the queue, got meta"),
    ],
)
def test_bad_keys_are_named(keys, error, message):
    with pytest.raises(error, match=message):
        KeyQueue(8, 4).enqueue(keys)
