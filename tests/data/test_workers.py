"""Processes that decode files."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch
from PIL import Image

from sslfast.data import FolderImages, batches, folder, load_images
from sslfast.data.paths import Paths


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderImages:
    """Twelve, the k-th of the gray k."""
    for k in range(12):
        Image.new("L", (6 + k % 2, 6), k).save(tmp_path / f"{k:02}.png")
    monkeypatch.setattr(folder, "IN_MEMORY", 0)
    return load_images(f"folder:{tmp_path}", "train")


def workers_of(images: FolderImages) -> list[int]:
    return [worker.pid for worker in images.loader.loader._iterator._workers]


def indices(found) -> list[int]:
    return [i for index, _, _ in found for i in index.tolist()]


def test_they_outlive_an_epoch(images: FolderImages) -> None:
    assert indices(batches(images, 5, workers=1)) == [*range(12)]
    first = workers_of(images)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert indices(batches(images, 5, order=order, start=1, workers=1)) == order[5:].tolist()
    assert workers_of(images) == first
    assert indices(batches(images, 5, workers=2)) == [*range(12)]
    assert len(set(workers_of(images)) - set(first)) == 2


def test_two_go_through_a_set_at_once(images: FolderImages) -> None:
    one = batches(images, 5, workers=1)
    begun = next(one)[0].tolist()
    assert indices(batches(images, 4, workers=1)) == [*range(12)]
    assert begun + indices(one) == [*range(12)]


def test_what_was_found_unreadable_is_not_tried_again(images: FolderImages) -> None:
    images.skip_corrupt = True
    path = images.paths[3]
    whole = path.read_bytes()
    path.write_bytes(b"no image")
    assert indices(batches(images, 6, workers=1))[3] == 4
    path.write_bytes(whole)  # mended: the run goes on as it was
    assert indices(batches(images, 6, workers=1))[3] == 4


def copied(connection: Connection, paths: Sequence[Path]) -> None:
    def private() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

    gc.disable()  # a collection writes to whatever it looks at, which is not what is measured
    before = private()
    for k in range(len(paths)):
        str(paths[k])
    connection.send(private() - before)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="tells private memory on Linux only")
def test_paths_stay_shared_with_the_process_that_forked(tmp_path: Path) -> None:
    """Of a list of as many paths every worker makes a copy while it reads them."""
    names = [f"class {k % 100}/image-{k:08}.jpg" for k in range(100_000)]
    context = multiprocessing.get_context("fork")
    found = []
    for paths in (Paths(tmp_path, names), [tmp_path / name for name in names]):
        here, there = context.Pipe()
        child = context.Process(target=copied, args=(there, paths))
        child.start()
        assert here.poll(60)
        found.append(here.recv())
        child.join()
    assert found[0] < found[1] / 3
