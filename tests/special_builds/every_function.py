"""A plugin of pytest: a run in which one of the C++ functions was never called has failed."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from sslfast import _C

UNUSED = {"instruction_sets", "multiply_and_add"}  # of the import, and of the benchmarks
called: set[str] = set()


def _counted(name: str, function: Callable) -> Callable:
    @functools.wraps(function)
    def call(*arguments):
        called.add(name)
        return function(*arguments)

    return call


FUNCTIONS = {name: f for name, f in vars(_C).items() if type(f).__name__ == "builtin_function_or_method"}
assert FUNCTIONS
vars(_C).update({name: _counted(name, f) for name, f in FUNCTIONS.items()})


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if missing := sorted(FUNCTIONS.keys() - UNUSED - called):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        session.config.get_terminal_writer().line(f"\nnever called: {', '.join(missing)}", red=True)
