"""Memory of large results on the CPU: used again once it is free, never before, and a tensor like any other."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from patches import patch_mask, photographs, randn

from sslfast import _C, ops
from sslfast.kernels import reference_mae as reference
from sslfast.kernels.cpu import memory

SHAPE = (3, 5, 7)


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch) -> None:
    memory.release()
    monkeypatch.setattr(memory, "LARGE", 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_shape_and_dtype(dtype):
    x = memory.empty(*SHAPE, dtype=dtype)
    assert x.shape == SHAPE
    assert x.dtype == dtype
    assert x.is_contiguous()
    assert x.untyped_storage().nbytes() == x.nbytes
    assert x.data_ptr() % 64 == 0


def test_a_tensor_like_any_other():
    x = memory.empty(*SHAPE, dtype=torch.float32).fill_(2)
    assert not x._is_view()
    x.requires_grad_()
    (x * x).sum().backward()
    assert torch.equal(x.grad, torch.full(SHAPE, 4.0))
    with torch.no_grad():
        x.add_(1).transpose_(0, 1)
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    assert torch.equal(torch.load(file), x)


def test_used_again_once_it_is_free():
    x = memory.empty(1001, dtype=torch.float32)
    row, place = x[3:], x.data_ptr()
    del x
    other = memory.empty(1001, dtype=torch.float32)
    assert other.data_ptr() != place  # a view still holds the first
    del row
    assert memory.empty(1002, dtype=torch.float32).data_ptr() != place  # of another size
    assert memory.empty(2002, dtype=torch.bfloat16).data_ptr() == place


def test_is_resized_like_any_other():
    x = memory.empty(3, 5, dtype=torch.float32).fill_(2)
    assert torch.equal(x.resize_(4, 5)[:3], torch.full((3, 5), 2.0))
    torch.add(torch.ones(7, 5), 1, out=x.resize_(0))
    assert torch.equal(x, torch.full((7, 5), 2.0))
    x.untyped_storage().resize_(0)
    del x
    other = memory.empty(3, 5, dtype=torch.float32)
    assert other.untyped_storage().nbytes() == 60


def test_a_large_result_of_an_op_can_be_resized():
    tokens, keep = randn(3, 6, 5), patch_mask(3, 6, 2).keep
    visible = ops.gather_tokens(tokens, keep)
    assert torch.equal(visible.clone().resize_(1, 2, 5), visible.resize_(1, 2, 5))


def test_what_is_held_in_another_way_is_not_used_again():
    holders = {
        "storage": lambda x: x.untyped_storage(),
        "numpy": lambda x: x.numpy(),
        "detached": lambda x: x.detach(),
        "dlpack": lambda x: torch.from_dlpack(x),
        "shared with other processes": lambda x: x.share_memory_()[:0].clone(),
    }
    for name, hold in holders.items():
        x = memory.empty(999, dtype=torch.float32)
        held, place = hold(x), x.data_ptr()
        del x
        assert memory.empty(999, dtype=torch.float32).data_ptr() != place, name
        del held


def test_no_more_is_kept_than_is_allowed(monkeypatch):
    monkeypatch.setattr(memory, "MOST", 4000)
    alive = [memory.empty(250, dtype=torch.float32) for _ in range(6)]
    assert [kept.data_ptr() for kept, _ in memory._results] == [x.data_ptr() for x in alive[2:]]
    memory.empty(1001, dtype=torch.float32)
    assert not memory._results


def test_threads_are_never_given_the_same():
    def work(value: int) -> bool:
        for _ in range(200):
            x = memory.empty(64, dtype=torch.int64).fill_(value)
            y = memory.empty(64, dtype=torch.int64).fill_(-value)
            if not ((x == value).all() and (y == -value).all()):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(1, 9)))


GIVEN_BACK = """
import os
import torch
from sslfast.kernels.cpu import memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

x = memory.empty(2**26, dtype=torch.uint8).fill_(1)
full = resident()
del x
assert resident() > full - 2**25
memory.release()
assert resident() < full - 2**25
"""


def run_elsewhere(code: str, folder: Path) -> None:
    """In a new process, not in the checkout, which would hide an installed wheel."""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder)


def test_is_given_back_when_asked(tmp_path):
    """Of 64 MiB a process keeps next to nothing; a new one, since malloc may keep what lies between earlier tests'."""
    run_elsewhere(GIVEN_BACK, tmp_path)


SCRATCH_GIVEN_BACK = (
    GIVEN_BACK[: GIVEN_BACK.index("x = ")]
    + """
from sslfast import ops

z1, z2 = torch.randn(2, 2048, 1024)
for _ in range(2):
    ops.nt_xent(z1, z2)
full = resident()
memory.release()
assert resident() < full - 2**24
"""
)


@pytest.mark.skipif(not _C.has_core, reason="plain PyTorch has no scratch memory of ours")
def test_scratch_memory_is_given_back_when_asked(tmp_path):
    """Of 32 MiB of packed rows."""
    run_elsewhere(SCRATCH_GIVEN_BACK, tmp_path)


def test_a_process_forked_while_another_thread_holds_the_lock():
    """As one that reads images, begun while a thread of its parent makes views."""
    locked, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with memory._lock:
            locked.set()
            forked.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        memory.empty(1003, dtype=torch.float32)
        os._exit(0)
    forked.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


def test_what_is_alive_never_shares_memory():
    alive = [memory.empty(500, dtype=torch.float32).fill_(i) for i in range(20)]
    del alive[::2]
    alive += [memory.empty(500, dtype=torch.float32).fill_(100 + i) for i in range(20)]
    assert len({x.data_ptr() for x in alive}) == 30
    assert [x[0].item() for x in alive] == [*range(1, 20, 2), *range(100, 120)]
    assert all((x == x[0]).all() for x in alive)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_results_do_not_depend_on_what_was_there(dtype):
    keep, restore, mask = patch_mask(3, 6, 2)
    images = photographs(3, 3, 8, 12, dtype=dtype)
    for shape in ((3, 6, 5), (3, 2, 5), (3, 6, 48), (3, 3, 8, 12)):
        memory.empty(*shape, dtype=dtype).fill_(float("nan"))
    tokens, pred = randn(3, 6, 5, dtype=dtype).requires_grad_(), randn(3, 6, 48, dtype=dtype).requires_grad_()
    visible = ops.gather_tokens(tokens, keep)
    assert torch.equal(visible, reference.gather_tokens_forward(tokens, keep))
    restored = ops.restore_tokens(visible, restore, torch.zeros(5, dtype=dtype)).add_(1)
    (dtokens,) = torch.autograd.grad(restored.sum(), tokens)
    assert torch.equal(dtokens, (~mask)[:, :, None].expand_as(tokens).to(dtype))
    (dpred,) = torch.autograd.grad(ops.masked_patch_loss(pred, images, mask, 4), pred)
    (expected,) = torch.autograd.grad(reference.masked_patch_loss_forward(pred, images, mask, 4, True, [], [])[0], pred)
    torch.testing.assert_close(dpred, expected)
    images.requires_grad_()
    (dimages,) = torch.autograd.grad(ops.gather_patches(images, keep, 4).sum(), images)
    (expected,) = torch.autograd.grad(reference.gather_patches_forward(images, keep, 4, [], [], dtype).sum(), images)
    assert torch.equal(dimages, expected)
