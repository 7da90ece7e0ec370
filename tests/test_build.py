"""The modules of the C++ core: which there are, which serves, and what is left out where a tool is missing."""

from __future__ import annotations

import ast
import os
import platform
import re
import shutil
import subprocess
import sys
import types
import zipfile
from importlib import import_module
from pathlib import Path

import pytest

from sslfast import _C
from sslfast._info import backends
from sslfast.ops.registry import IMPLS

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_best_instruction_set_of_this_cpu_serves():
    best = run("from sslfast import _C; print(_C.loaded, *_C.INSTRUCTION_SETS)").split()
    assert best[0] == best[1]
    assert best[-1] == "baseline"
    assert set(best) <= {"avx512_bf16", "avx512", "avx2", "baseline"}
    if platform.machine() == "x86_64" and "avx2" in Path("/proc/cpuinfo").read_text():
        assert "avx2" in best


@pytest.mark.parametrize("name", _C.INSTRUCTION_SETS)
def test_every_instruction_set_can_be_asked_for_and_has_the_same_functions(name):
    code = (
        f"from sslfast import _C; before = set(vars(_C)); _C.load({name!r});"
        f"assert set(vars(_C)) == before | {{{name!r}}};"
        f"print(_C.loaded, _C.gather_tokens is _C.{name}.gather_tokens)"
    )
    assert run(code).split() == [name, "True"]


def test_what_differs_between_instruction_sets_is_that_of_the_module():
    """The bindings are compiled once, for the least of them."""
    kept_from = {name: import_module(f"sslfast._C.{name}").kept_from(0) for name in _C.INSTRUCTION_SETS}
    assert kept_from == {name: 128 if name.startswith("avx512") else 64 for name in _C.INSTRUCTION_SETS}


def test_an_instruction_set_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"name must be one of .*baseline, got 'sse9'"):
        _C.load("sse9")


@pytest.mark.long
@pytest.mark.parametrize("name", _C.INSTRUCTION_SETS[1:])
def test_ops_keep_their_bar_on_every_instruction_set(name):
    files = [path for path in sorted((ROOT / "tests/ops").glob("test_*.py")) if "triton" not in path.name]
    options = ["-q", "-m", "not slow", "-k", "not (compile or opcheck or cuda)", "--instruction-set", name]
    done = subprocess.run([sys.executable, "-m", "pytest", *options, *files], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout


def test_modules_show_python_their_initialisation_and_the_linker_nothing_else():
    """What std:: instantiates would else be shared between modules, and might be code that this CPU cannot run."""
    if shutil.which("nm") is None:
        pytest.skip("no nm on the PATH")
    modules = [import_module(f"sslfast._C.{name}") for name in _C.INSTRUCTION_SETS] + [_C.cuda] * _C.has_cuda
    for module in modules:
        shown = subprocess.run(["nm", "-D", "--defined-only", module.__file__], capture_output=True, text=True).stdout
        names = [line.split()[-1] for line in shown.splitlines()]
        assert names
        assert all(name.startswith("PyInit_") for name in names), names


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")
def test_cuda_kernels_are_in_the_module():
    assert _C.has_cuda
    assert _C.cuda.ema_update


@pytest.mark.parametrize("stub", ["__init__", *["cuda"] * _C.has_cuda])
def test_the_stubs_have_every_function_and_as_many_arguments(stub):
    module = _C.cuda if stub == "cuda" else _C.baseline
    tree = ast.parse(Path(_C.__file__).with_name(f"{stub}.pyi").read_text())
    declared = {node.name: len(node.args.posonlyargs) for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = {
        name: len(re.findall(r"\barg\d+: ", function.__doc__))
        for name, function in vars(module).items()
        if isinstance(function, types.BuiltinFunctionType)
    }
    assert found
    assert declared == found | ({"load": 0} if stub == "__init__" else {})


def test_info_tells_the_backend_of_every_op():
    served = {backend for op in IMPLS for backend in backends(op).values()}
    assert {"cpu", "triton"} <= served <= {"cpu", "triton", "cuda", "reference"}


WITHOUT_CORE = """
import sys, warnings
import torch
with warnings.catch_warnings(record=True) as said:
    from sslfast import _C, ops
    from sslfast._info import info
assert _C.__file__.startswith(sys.argv[1])
z = torch.randn(8, 200, requires_grad=True)
torch.compile(ops.nt_xent, backend="aot_eager")(z, z.flip(0)).backward()
assert z.grad.isfinite().all()
target = torch.zeros(3)
ops.ema_update_([target], [torch.ones(3)], 0.5)
assert target.eq(0.5).all()
print(*(warning.message for warning in said), info())
"""


@pytest.mark.slow
def test_without_a_compiler_the_package_is_built_without_its_core_and_works(tmp_path):
    site = tmp_path / "site"
    command = ["setup.py", "-q", "egg_info", "--egg-base", tmp_path, "build", "--build-base", tmp_path / "build"]
    command += ["bdist_wheel", "--dist-dir", tmp_path]
    environment = {key: value for key, value in os.environ.items() if key != "CXX"}
    options = {"check": True, "capture_output": True, "text": True}
    built = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment | {"PATH": ""}, **options)
    assert "no C++ compiler was found" in built.stderr
    (wheel,) = tmp_path.glob("sslfast-*-py3-none-any.whl")
    zipfile.ZipFile(wheel).extractall(site)

    run = [sys.executable, "-W", "default", "-c", WITHOUT_CORE, site]
    shown = subprocess.run(run, cwd=tmp_path, env=environment | {"PYTHONPATH": str(site)}, **options).stdout
    assert shown.count("sslfast was built without its C++ core") == 1
    assert "not compiled (no C++ compiler at build time, or SSLFAST_NO_EXTENSION=1)" in shown
    assert re.search(r"nt_xent_forward +reference", shown)

    wanted = environment | {"SSLFAST_NO_EXTENSION": "1"}
    shown = subprocess.run(run, cwd=tmp_path, env=wanted | {"PYTHONPATH": str(site)}, **options).stdout
    assert "was built without its C++ core" not in shown
    said = subprocess.run([sys.executable, "setup.py", "--version"], cwd=ROOT, env=wanted, **options).stderr
    assert "SSLFAST_NO_EXTENSION=1: built without its C++ core" in said


@pytest.mark.slow
def test_without_nvcc_and_openmp_they_are_left_out(tmp_path):
    pybind11 = pytest.importorskip("pybind11")  # of the build, not of the package
    cmake = Path(sys.executable).with_name("cmake")
    options = {
        "CMAKE_CUDA_COMPILER": "NOTFOUND",
        "CMAKE_DISABLE_FIND_PACKAGE_OpenMP": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    command = [cmake if cmake.exists() else "cmake", "-G", "Unix Makefiles", "-S", ROOT, "-B", tmp_path]
    command += [f"-D{key}={value}" for key, value in options.items()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "no working nvcc found, building without the CUDA C++ kernels" in done.stdout
    assert "the compiler has no OpenMP, the CPU kernels will use one thread" in done.stdout
    assert not (tmp_path / "CMakeFiles/cuda.dir").exists()
    for name in ("baseline", *_C.INSTRUCTION_SETS):
        makefile = (tmp_path / f"CMakeFiles/{name}.dir/build.make").read_text()
        assert "csrc/cpu/ema.cpp" in makefile
        assert "csrc/cuda" not in makefile
        flags = (tmp_path / f"CMakeFiles/{name}.dir/flags.make").read_text().split()
        assert "-fopenmp-simd" in flags
        assert "-fopenmp" not in flags
