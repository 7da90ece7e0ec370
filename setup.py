"""Builds sslfast._C from csrc/ with CMake and Ninja; everything declarative is in pyproject.toml."""

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
    def build_extension(self, extension: Extension) -> None:
        import pybind11

        target = Path(self.get_ext_fullpath(extension.name)).resolve()
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
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

setup(
    packages=PACKAGES,
    package_dir={"sslfast.kernels": "kernels"},
    package_data={"sslfast": ["templates/*.j2", "methods/*.txt"]},
    ext_modules=[Extension("sslfast._C", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
