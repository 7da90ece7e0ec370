"""The CUDA kernels are compiled where there is nvcc, and left out, with a word, where there is none."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sslfast import _C

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
def test_cuda_kernels_are_in_the_module():
    assert _C.has_cuda
    assert _C.ema_update_cuda


@pytest.mark.slow
def test_without_nvcc_they_are_left_out(tmp_path):
    pybind11 = pytest.importorskip("pybind11")  # of the build, not of the package
    cmake = Path(sys.executable).with_name("cmake")
    options = {
        "CMAKE_CUDA_COMPILER": "NOTFOUND",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    command = [cmake if cmake.exists() else "cmake", "-G", "Unix Makefiles", "-S", ROOT, "-B", tmp_path]
    command += [f"-D{key}={value}" for key, value in options.items()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no working nvcc found, building without the CUDA C++ kernels" in done.stdout
    makefile = (tmp_path / "CMakeFiles/_C.dir/build.make").read_text()
    assert "csrc/cpu/ema.cpp" in makefile
    assert "csrc/cuda" not in makefile
