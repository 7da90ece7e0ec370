"""A pytest plugin for a session on a GPU that may be cut short (pytest -p gpu_session -m gpu).

The tests of all files take turns, those of kernels first. After an error that leaves the device unusable the process
ends: a worker of pytest-xdist is then replaced, and its other tests are not failed by what one of them broke.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict

import pytest
import torch


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    by_file = defaultdict(list)
    for item in items:
        by_file[item.path].append(item)
    kernels = [path for path in by_file if path.stem.endswith("_triton")]
    rest = [path for path in by_file if path not in kernels]
    items[:] = [*turns([by_file[path] for path in kernels]), *turns([by_file[path] for path in rest])]


def turns(groups: list[list[pytest.Item]]) -> list[pytest.Item]:
    rounds = itertools.zip_longest(*groups)
    return [item for taken in rounds for item in taken if item is not None]


@pytest.hookimpl(trylast=True)
def pytest_runtest_logfinish(nodeid: str) -> None:
    """Once the test's own report is on its way."""
    if not torch.cuda.is_initialized():
        return
    try:
        torch.cuda.synchronize()
    except RuntimeError as broken:
        if "PYTEST_XDIST_WORKER" in os.environ:
            os._exit(1)
        pytest.exit(f"{nodeid} left the device unusable: {broken}", returncode=1)
