"""The Triton kernels compile with the versions of Triton that come with older releases of torch.

`make test` unpacks them, tests/triton_versions.txt, into folders of the virtual environment; a process that has one of
them on its path runs the tests that compile, for the cases that differ most between the versions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

TESTS = Path(__file__).parent
VERSIONS = (TESTS / "triton_versions.txt").read_text().split()
FOLDER = Path(sys.prefix) / "triton"

CONTRASTIVE = "test_default_configurations_compile_without_spills"
CASES = [  # one a kernel, those that are nearest to a limit
    f"ops/test_nt_xent_triton.py::{CONTRASTIVE}[256-torch.bfloat16-90]",
    f"ops/test_info_nce_triton.py::{CONTRASTIVE}[256-torch.bfloat16-90]",
    "ops/test_negative_cosine_similarity_triton.py::test_compiles_without_spills[2048-torch.bfloat16-90]",
    "ops/test_mae_triton_compile.py::test_compile_without_spills[90-dtype1-image_dtype1-224-16]",
    "ops/test_augment_triton.py::test_compiles_without_spills[224-90-simclr]",
]
MORE = [  # other widths, dtypes and chips, which take minutes
    f"ops/test_nt_xent_triton.py::{CONTRASTIVE}[128-torch.bfloat16-90]",
    f"ops/test_nt_xent_triton.py::{CONTRASTIVE}[128-torch.float32-90]",
    f"ops/test_info_nce_triton.py::{CONTRASTIVE}[128-torch.bfloat16-90]",
    f"ops/test_info_nce_triton.py::{CONTRASTIVE}[128-torch.bfloat16-80]",
    f"ops/test_info_nce_triton.py::{CONTRASTIVE}[256-torch.bfloat16-100]",
    "ops/test_augment_triton.py::test_compiles_without_spills[224-100-simclr]",
]
# The tests themselves, after a look at the version: a wrong path would test the installed one.
RUN = """
import sys, pytest, triton
assert triton.__version__ == sys.argv[1], f"Triton {triton.__version__} instead of {sys.argv[1]}"
sys.exit(pytest.main(sys.argv[2:]))
"""


def start(version: str, cases: list[str], cache: Path) -> subprocess.Popen | None:
    """The tests under a version of Triton; None where it is not installed."""
    if not (FOLDER / version).is_dir():
        return None
    environment = os.environ | {"PYTHONPATH": str(FOLDER / version), "TRITON_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", RUN, version, "-q", "-p", "no:cacheprovider", "--long", *cases]
    return subprocess.Popen(
        command, cwd=TESTS, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def check(version: str, process: subprocess.Popen | None, cases: list[str]) -> None:
    if process is None:
        pytest.skip(f"Triton {version} is not in {FOLDER / version}, where `make test` unpacks it")
    output, _ = process.communicate()
    assert process.returncode == 0, output[-6000:]
    assert f"{len(cases)} passed" in output, output[-2000:]


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """One a version, all started at once: each has one core to itself on the smallest machine."""
    started = {version: start(version, CASES, tmp_path_factory.mktemp(version)) for version in VERSIONS}
    yield started
    for process in filter(None, started.values()):
        process.kill()
        process.wait()


@pytest.mark.parametrize("version", VERSIONS)
def test_kernels_compile(version, processes):
    check(version, processes[version], CASES)


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_more_kernels_compile(version, tmp_path):
    check(version, start(version, MORE, tmp_path), MORE)
