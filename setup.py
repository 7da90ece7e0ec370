"""Builds the modules of sslfast._C from csrc/ with CMake and Ninja; everything declarative is in pyproject.toml."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def tool(name: str) -> str:
    """A build tool of this Python environment, else one of the machine."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise RuntimeError(f"building sslfast needs {name}: pip install {name}")
    return found


class CMakeBuild(build_ext):
    def build_extensions(self) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(MODULES[0].name)).resolve()
        # Kept, so that only what changed is compiled again; setuptools' own folder is new at every installation.
        build = ROOT / "build" / f"cmake-{sys.implementation.cache_tag}-{self.plat_name}"
        options = {
            "CMAKE_BUILD_TYPE": "Release",
            "CMAKE_MAKE_PROGRAM": tool("ninja"),
            "CMAKE_LIBRARY_OUTPUT_DIRECTORY": str(target.parent),
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
        }
        extra = os.environ.get("CMAKE_ARGS", "").split()
        cmake = tool("cmake")
        configure = [cmake, "-S", str(ROOT), "-B", str(build), "-G", "Ninja"]
        subprocess.check_call(configure + [f"-D{key}={value}" for key, value in options.items()] + extra)
        subprocess.check_call([cmake, "--build", str(build)])


# The `kernels` folder is installed as `sslfast.kernels`.
PACKAGES = find_packages(include=["sslfast*"]) + ["sslfast.kernels"]
PACKAGES += [f"sslfast.kernels.{name}" for name in find_packages("kernels")]

# CMake decides which of them there are: by the architecture, the compiler, and whether it finds nvcc.
NAMES = ("baseline", "avx2", "avx512", "avx512_bf16", "cuda")
MODULES = [Extension(f"sslfast._C.{name}", sources=[], optional=True) for name in NAMES]

setup(
    packages=PACKAGES,
    package_dir={"sslfast.kernels": "kernels"},
    package_data={"sslfast": ["templates/*.j2", "methods/*.txt"]},
    ext_modules=MODULES,
    cmdclass={"build_ext": CMakeBuild},
)
