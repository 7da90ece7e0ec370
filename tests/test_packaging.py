"""The wheel holds what it should and works away from the sources."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True)
    (built,) = folder.glob("sslfast-*.whl")
    return built


@pytest.mark.slow
def test_wheel_holds_the_core_and_the_kernels_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.startswith("sslfast/_C/baseline.") for name in names)
    for wanted in ("kernels/reference.py", "kernels/cpu/nt_xent.py", "kernels/triton/nt_xent.py", "ops/nt_xent.py",
                   "kernels/cuda/ema.py", "templates/report.html.j2", "methods/permutations.txt"):  # fmt: skip
        assert f"sslfast/{wanted}" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sslfast"}
    metadata = next(name for name in names if name.endswith("METADATA"))
    required = [x for x in zipfile.ZipFile(wheel).read(metadata).decode().splitlines() if x.startswith("Requires-Dist")]
    core = {x.removeprefix("Requires-Dist: ").split(">")[0] for x in required if "extra ==" not in x}
    assert core == {"torch", "numpy"}


@pytest.mark.slow
def test_wheel_works_unpacked(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import torch, sslfast, sslfast.kernels;"
        "assert sslfast.__file__.startswith(sys.argv[1]) and sslfast.kernels.__file__.startswith(sys.argv[1]);"
        "z = torch.randn(8, 4, requires_grad=True); sslfast.ops.nt_xent(z, z.flip(0)).backward();"
        "from sslfast._info import info; print(info())"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "nt_xent_forward" in done.stdout
