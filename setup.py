"""Builds the modules of sslfast._C from csrc/ with CMake and Ninja; everything declarative is in pyproject.toml.

SSLFAST_NO_EXTENSION=1, or a machine without a C++ compiler, gives a package without them: the reference serves the CPU.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
KERNELS = ROOT / "sslfast" / "kernels"  # a link to the folder at the top, which archives and copies may lose
if not KERNELS.is_dir():
    KERNELS.unlink(missing_ok=True)
    KERNELS.symlink_to(Path("..") / "kernels", target_is_directory=True)


def tool(name: str) -> str:
    """A build tool of this Python environment, else one of the machine."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise RuntimeError(f"building sslfast needs {name}: pip install {name}")
    return found


def why_no_extension() -> str | None:
    """Why the C++ core is left out, or None if it is built."""
    if os.environ.get("SSLFAST_NO_EXTENSION") == "1":
        return "SSLFAST_NO_EXTENSION=1"
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        return "no C++ compiler was found (c++, g++, clang++, or what CXX names)"
    return None


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


# CMake decides which of them there are: by the architecture, the compiler, and whether it finds nvcc.
NAMES = ("baseline", "avx2", "avx512", "avx512_bf16", "cuda")
MODULES = [Extension(f"sslfast._C.{name}", sources=[], optional=True) for name in NAMES]
if reason := why_no_extension():
    print(f"sslfast: WARNING: {reason}: built without its C++ core, CPUs are served by plain PyTorch", file=sys.stderr)

setup(
    packages=find_packages(include=["sslfast*"]),
    package_dir={"": "."},  # an editable installation is this folder on the path, which type checkers follow
    package_data={"sslfast": ["py.typed", "_C/*.pyi", "templates/*.j2", "methods/*.txt"]},
    ext_modules=[] if reason else MODULES,
    cmdclass={"build_ext": CMakeBuild},
)
