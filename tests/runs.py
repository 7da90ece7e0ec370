"""A real run, small enough to be made for a test: fixtures that a conftest imports."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sslfast.recipes import RECIPES
from sslfast.train import pretrain

SHORT = {"image_size": 8, "epochs": 2, "warmup_epochs": 1, "knn_every": 1, "log_every": 2, "accelerator": "cpu"}
SMALL = replace(RECIPES["simclr"].config, seed=3, **SHORT)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """SimCLR on the digits for two epochs; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    pretrain(SMALL, folder, command="sslfast pretrain simclr --epochs 2")
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    """A copy of it that the test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
