"""The house: imports only go down, and what is imported costs what it should."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import sslfast

TESTS = Path(__file__).parent
ROOT = Path(sslfast.__file__).parent
KERNELS = Path(sslfast.kernels.__file__).parent
# A module may import from its own floor and from those before it.
FLOORS = [
    ("kernels", "_C", "_version"),
    ("ops",),
    (
        "losses",
        "key_queue",
        "ema",
        "grad_cache",
        "compat",
        "augment",
        "_extras",
        "_outside",
        "_words",
        "_files",
        "_memory",
        "_info",
    ),
    ("data", "models", "config", "schedule", "checkpoint"),
    ("modality",),
    ("methods",),
    ("evaluate", "recipes"),
    ("train", "report"),
    ("api",),
    ("cli", "__main__"),
]
EXTRAS = {"torchvision", "timm", "lightning", "tyro", "sklearn", "skimage", "safetensors", "rich", "tensorboard",
          "matplotlib", "jinja2", "transformers", "tokenizers", "triton", "PIL", "tifffile"}  # fmt: skip


def floor_of(part: str) -> int:
    return next(i for i, floor in enumerate(FLOORS) if part in floor)


def sources() -> list[tuple[str, Path]]:
    own = [(path.relative_to(ROOT).parts[0].removesuffix(".py"), path) for path in ROOT.rglob("*.py")]
    return [(part, path) for part, path in own if part != "__init__"] + [("kernels", p) for p in KERNELS.rglob("*.py")]


def imported_parts(path: Path) -> set[str]:
    """The parts of sslfast that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("sslfast.")}
    return found - {"__version__", "KeyQueue"}


@pytest.mark.parametrize(("part", "path"), sources(), ids=lambda x: x if isinstance(x, str) else x.name)
def test_imports_only_go_down(part, path):
    for other in imported_parts(path):
        assert floor_of(other) <= floor_of(part), f"{path.name} of {part} imports {other} above it"


def test_every_part_stands_on_a_floor():
    assert sources()
    for part, path in sources():
        assert any(part in floor for floor in FLOORS), f"{path} belongs to no floor"


def test_files_stay_small():
    long = {str(path): n for _, path in sources() if (n := len(path.read_text().splitlines())) > 360}
    assert not long


def test_every_test_file_has_a_name_of_its_own():
    """Pytest leaves out a file whose name another folder has, and processes of one would import the other."""
    names = Counter(path.name for path in TESTS.rglob("*.py") if path.name != "conftest.py")
    assert not [name for name, times in names.items() if times > 1]


def test_tests_import_only_what_a_requirement_installs():
    """What another package brings along by chance is missing on a new machine.

    Of a package that is not installed, as those of `make test-long` are not by `make test`, only the name is known.
    """
    required = {re.match(r"[\w-]+", line)[0].lower() for line in requires("sslfast")} | {"triton", "pytest"}
    distributions = packages_distributions()
    files = list(TESTS.rglob("*.py"))
    own = {path.stem for path in files} | {path.parent.name for path in files} | {"sslfast", "benchmarks", "numerics"}
    for path in files:
        nodes = list(ast.walk(ast.parse(path.read_text())))
        names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        names += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        for name in {name.partition(".")[0] for name in names} - own - sys.stdlib_module_names:
            named = [package for package in required if re.fullmatch(rf"{name}(-.*)?", package)]
            packages = {package.lower() for package in distributions.get(name, named)}
            assert packages & required, f"{path.name} imports {name}, which no requirement of sslfast names"


def test_ops_load_torch_and_numpy_only():
    parts = "sslfast.ops, sslfast.losses, sslfast.EMA, sslfast.KeyQueue, sslfast.GradCache, sslfast.augment"
    loaded = loaded_by(f"import torch; before = set(sys.modules); import sslfast; {parts}")
    assert "sslfast.ops" in loaded
    assert not {name.partition(".")[0] for name in loaded} & EXTRAS


def test_what_is_not_used_is_not_loaded():
    """Torch takes seconds, which nobody waits for who wants to read a help text."""
    assert not loaded_by("import sslfast; dir(sslfast); from sslfast.cli import main; main(['--help'])") & {"torch"}


def test_every_name_of_the_package_resolves_after_its_import_alone():
    loaded_by("import sslfast; [getattr(sslfast, name) for name in sslfast.__all__]; assert callable(sslfast.evaluate)")
    with pytest.raises(AttributeError, match="'sslfast' has no attribute 'nothing'"):
        _ = sslfast.nothing


def loaded_by(code: str) -> set[str]:
    """The modules that a new process has after `code`, besides those in `before` if it has made such a set."""
    script = f"import sys; before = set(); {code}; print('LOADED', *(set(sys.modules) - before))"
    shown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    return set(shown.rpartition("LOADED")[2].split())


def test_reference_switch_serves_every_op():
    code = (
        "import torch, sslfast._C as c; from sslfast import ops;"
        "c.normalize_rows = None; z = torch.randn(4, 3, requires_grad=True); ops.nt_xent(z, z.detach()).backward()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"SSLFAST_REFERENCE": "1"})
