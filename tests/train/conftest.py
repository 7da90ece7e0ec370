from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from toys import Toy

from sslfast.methods import METHODS


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "toy", Toy)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As the subprocesses of these tests have: bits depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
