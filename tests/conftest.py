from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

ROOT = str(Path(__file__).parents[1])
if ROOT in sys.path:  # `python -m pytest` puts the checkout first, where it would hide an installed wheel
    sys.path.remove(ROOT)
    sys.path.append(ROOT)

from sslfast import _C  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--instruction-set", choices=_C.INSTRUCTION_SETS, help="of the C++ kernels; default: the best")
    parser.addoption("--default-dtype", default="float32", help="torch's default dtype during the tests")
    parser.addoption("--long", action="store_true", help="run the tests that take minutes, too")


def pytest_configure(config: pytest.Config) -> None:
    if name := config.getoption("--instruction-set"):
        _C.load(name)


@pytest.fixture(autouse=True, scope="session")
def default_dtype(request: pytest.FixtureRequest):
    torch.set_default_dtype(getattr(torch, request.config.getoption("--default-dtype")))
    yield
    torch.set_default_dtype(torch.float32)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need a GPU, or minutes, are skipped, visibly, where there is none or they are not asked for."""
    for item in items:
        if item.get_closest_marker("long") and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: --long runs it"))
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """What a test printed goes from process to process as UTF-8, which names of files need not be."""
    report = yield
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def poisoned_memory():
    """Every `torch.empty` comes filled with NaN, so that an element nobody wrote is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)
