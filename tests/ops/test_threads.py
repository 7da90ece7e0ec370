"""The CPU kernels give the same bits on any number of threads, whoever takes which rows."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from patches import patch_mask, photographs, randn

from sslfast import _C, ops
from sslfast.kernels.cpu import memory, negatives

B, L, K, D = 16, 64, 16, 96
MASK = patch_mask(B, L, K)


def masked_loss():
    images, pred = photographs(B, 3, 64, 64), randn(B, L, 192).requires_grad_()
    loss = ops.masked_patch_loss(pred, images, MASK.mask, 8)
    return loss, *torch.autograd.grad(loss, pred)


def gathered():
    tokens = randn(B, L, D).requires_grad_()
    kept = ops.gather_tokens(tokens, MASK.keep)
    return kept, *torch.autograd.grad((kept * randn(B, K, D, seed=5)).sum(), tokens)


def cut():
    images = randn(B, 3, 64, 64).requires_grad_()
    patches = ops.gather_patches(images, MASK.keep, 8)
    return patches, *torch.autograd.grad((patches * randn(B, K, 192, seed=5)).sum(), images)


def restored():
    leaves = [randn(*shape).requires_grad_() for shape in ((B, K, D), (D,), (L, D))]
    tokens = ops.restore_tokens(leaves[0], MASK.restore, *leaves[1:])
    return tokens, *torch.autograd.grad((tokens * randn(B, L, D, seed=5)).sum(), leaves)


def cosine():
    p, z = randn(300, D).requires_grad_(), randn(300, D, seed=1).requires_grad_()
    loss = ops.negative_cosine_similarity(p, z)
    return loss, *torch.autograd.grad(loss, (p, z))


def average():
    target = randn(1 << 17).bfloat16()
    ops.ema_update_([target], [randn(1 << 17, seed=1)], 0.9, step=3)
    return (target,)


def mask():
    return ops.random_patch_mask(1000, 196, seed=4)


def other_negatives():
    rows, columns = (torch.nn.functional.normalize(randn(300, D, seed=seed)) for seed in (0, 1))
    factors = randn(300, seed=2).abs(), randn(300, seed=3), randn(300, seed=4).abs(), randn(300, seed=5)
    return *negatives.forward(rows, columns, False, 0.2, None, True), negatives.backward(
        rows, columns, False, *factors, 0.2, None
    )


@pytest.mark.skipif(not _C.has_core or not _C.has_openmp, reason="the kernels have no threads")
def test_threads_of_python_keep_to_the_number_that_pytorch_was_given():
    """One that makes views, say. OpenMP counts for every thread by itself."""
    openmp = ctypes.CDLL(_C.baseline.__file__)

    def after_an_op() -> int:
        openmp.omp_set_num_threads(7)  # as OpenMP begins on a machine of as many cores
        ops.random_patch_mask(2, 8, seed=4)
        return openmp.omp_get_max_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(after_an_op).result() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not _C.has_core, reason="plain PyTorch has no scratch memory of ours")
def test_threads_compute_while_another_gives_their_scratch_back():
    x = randn(300, 16, seed=1)
    expected = ops.nt_xent(x, x.flip(0))
    with ThreadPoolExecutor(2) as pool:
        losses = [pool.submit(ops.nt_xent, x, x.flip(0)) for _ in range(20)]
        for _ in losses:
            memory.release()
    assert all(torch.equal(loss.result(), expected) for loss in losses)


@pytest.mark.parametrize("op", [mask, masked_loss, gathered, cut, restored, cosine, average, other_negatives])
def test_same_bits_on_any_number_of_threads(op):
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(op())
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))
