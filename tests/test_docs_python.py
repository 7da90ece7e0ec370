"""Every block of Python of the pages runs as it stands: in order, in one namespace a page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from runs import trained  # noqa: F401
from safetensors.torch import save_file

from sslfast.evaluate import evaluate
from sslfast.models import build_backbone

ROOT = Path(__file__).parents[1]
PYTHON = re.compile(r"^```python\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
PAGES = [
    str(path.relative_to(ROOT))
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
    if PYTHON.search(path.read_text(encoding="utf-8")) and path.name != "own-data.md"  # test_own_data_page.py
]


def exported(name: str, backbone: str) -> None:
    folder = Path("runs", name, "exported")
    folder.mkdir(parents=True)
    save_file(build_backbone(backbone).state_dict(), folder / "backbone.safetensors")


@pytest.fixture
def runs(request: pytest.FixtureRequest, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs that a page speaks of, in the folder where its blocks run."""
    monkeypatch.chdir(tmp_path)
    if page == "README.md":
        exported("cifar10", "resnet18")
    elif page == "docs/methods/mae.md":
        exported("mae", "vit_tiny_patch4")
    elif page == "docs/evaluation.md":
        shutil.copytree(request.getfixturevalue("trained"), "runs/simclr")
        evaluate("runs/simclr", "knn")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("runs")
def test_blocks_run(page: str) -> None:
    text, namespace = (ROOT / page).read_text(encoding="utf-8"), {"__name__": "page"}
    torch.manual_seed(0)
    for block in PYTHON.finditer(text):
        above = "\n" * text[: block.start(1)].count("\n")  # so that an error names the line of the page
        exec(compile(above + block[1], ROOT / page, "exec"), namespace)
