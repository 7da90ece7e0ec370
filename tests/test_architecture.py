"""The house: imports only go down, and what is imported costs what it should."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import sslfast

ROOT = Path(sslfast.__file__).parent
KERNELS = Path(sslfast.kernels.__file__).parent
# A module may import from its own floor and from those before it.
FLOORS = [
    ("kernels", "_C", "_version"),
    ("ops",),
    ("losses", "key_queue", "ema", "grad_cache", "compat", "augment", "_extras", "_files", "_memory", "_info"),
    ("data", "models", "config", "schedule", "checkpoint"),
    ("modality",),
    ("methods",),
    ("evaluate", "recipes"),
    ("train", "report"),
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


def test_import_loads_torch_and_numpy_only():
    code = "import sys, torch; before = set(sys.modules); import sslfast; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "sslfast.ops" in loaded
    assert not {name.partition(".")[0] for name in loaded} & EXTRAS


def test_reference_switch_serves_every_op():
    code = (
        "import torch, sslfast._C as c; from sslfast import ops;"
        "c.normalize_rows = None; z = torch.randn(4, 3, requires_grad=True); ops.nt_xent(z, z.detach()).backward()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"SSLFAST_REFERENCE": "1"})
