"""The tests test the sslfast that is installed, not the checkout's folder of that name where it is not."""

from __future__ import annotations

from importlib.metadata import distribution
from pathlib import Path

import sslfast


def test_what_is_tested_is_what_is_installed():
    installed = distribution("sslfast").locate_file("sslfast")
    editable = not Path(installed).is_dir()
    assert Path(sslfast.__file__).parent == (Path(__file__).parents[1] / "sslfast" if editable else Path(installed))
