"""The source distribution builds, and its wheel holds what it should and works away from the sources."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
MEMBERS = (
    "kernels/reference.py",
    "kernels/cpu/nt_xent.py",
    "kernels/triton/nt_xent.py",
    "kernels/cuda/ema.py",
    "ops/nt_xent.py",
    "templates/report.html.j2",
    "methods/permutations.txt",
    "py.typed",
    "_C/__init__.pyi",
    "_C/cuda.pyi",
)
CODE = """
import sys
import torch, sslfast, sslfast.kernels
from sslfast._info import info
assert all(module.__file__.startswith(sys.prefix) for module in (sslfast, sslfast.kernels))
z = torch.randn(8, 4, requires_grad=True)
sslfast.ops.nt_xent(z, z.flip(0)).backward()
print(info())
"""


def python(executable: str | Path, *arguments: object, cwd: Path) -> str:
    # The other modules take minutes to compile; test_build.py sees that they do.
    left_out = "-DCMAKE_CUDA_COMPILER=NOTFOUND -DSSLFAST_avx2=OFF -DSSLFAST_avx512=OFF -DSSLFAST_avx512_bf16=OFF"
    environment = os.environ | {"CMAKE_ARGS": left_out}
    done = subprocess.run([executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_from_checkout_to_source_distribution_to_wheel_to_a_fresh_environment(tmp_path: Path) -> None:
    python(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (sources,) = tmp_path.glob("sslfast-*.tar.gz")
    with tarfile.open(sources) as archive:
        names = archive.getnames()
    assert not [name for name in names if name.endswith((".so", ".pyc"))]

    build = ("-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, sources)
    python(sys.executable, *build, cwd=tmp_path)
    (wheel,) = tmp_path.glob("sslfast-*.whl")
    check_contents(zipfile.ZipFile(wheel))

    fresh = tmp_path / "venv"
    python(sys.executable, "-m", "venv", "--without-pip", fresh, cwd=tmp_path)
    (packages,) = fresh.glob("lib/python*/site-packages")
    (packages / "torch.pth").write_text(str(Path(torch.__file__).parents[1]))  # too large to install again
    python(sys.executable, "-m", "pip", "--python", fresh, "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    assert "nt_xent_forward" in python(fresh / "bin" / "python", "-I", "-c", CODE, cwd=tmp_path)
    tests = ("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", ROOT / "tests/test_installed.py")
    assert "1 passed" in python(fresh / "bin" / "python", *tests, cwd=ROOT)  # of the wheel, in the checkout


@pytest.mark.slow
def test_an_editable_installation_is_a_folder_on_the_path(tmp_path: Path) -> None:
    """Which editors and type checkers follow to an op, and over the link `sslfast/kernels` to its kernel."""
    sources = tmp_path / "sources"
    for name in ("sslfast", "kernels"):
        shutil.copytree(ROOT / name, sources / name, symlinks=True, ignore=shutil.ignore_patterns("*.so", "*.pyc"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, sources)
    without = "import os; os.environ['SSLFAST_NO_EXTENSION'] = '1'"
    build = "from setuptools.build_meta import build_editable; build_editable('..')"
    python(sys.executable, "-c", f"{without}; {build}", cwd=sources)
    (wheel,) = tmp_path.glob("sslfast-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (name for name in archive.namelist() if "dist-info" not in name)
        assert path.endswith(".pth")
        assert archive.read(path).decode().split() == [str(sources)]
    assert (sources / "sslfast" / "kernels" / "cpu" / "nt_xent.py").is_file()


def check_contents(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert any(name.startswith("sslfast/_C/baseline.") for name in names)
    assert {f"sslfast/{member}" for member in MEMBERS} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"sslfast"}
    metadata = next(name for name in names if name.endswith("METADATA"))
    required = [x for x in wheel.read(metadata).decode().splitlines() if x.startswith("Requires-Dist")]
    assert {x.removeprefix("Requires-Dist: ").split(">")[0] for x in required if "extra ==" not in x} == {
        "torch",
        "numpy",
    }
