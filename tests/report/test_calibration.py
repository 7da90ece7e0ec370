"""A sweep over strengths as a table, a file and a picture."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image
from runs import SMALL

from sslfast.report.calibration import save, table
from sslfast.train.calibrate import Calibration, Point

SWEEP = Calibration(
    (Point(0.0, 0.4, 0.3, 0.1, -1.0), Point(1.0, 0.6, 0.5, 0.2, -2.0)), Point(None, 0.2, 0.1, 0.01, -0.1), 287
)


def test_files_hold_the_sweep(tmp_path: Path) -> None:
    written = save(SWEEP, SMALL, tmp_path)
    with open(written[0], newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["strength"] for row in rows] == ["0.0", "1.0", ""]
    assert [float(row["linear"]) for row in rows] == [0.4, 0.6, 0.2]
    assert [row["zone"] for row in rows] == ["too weak", "right", "random init"]
    with Image.open(written[1]) as picture:
        assert picture.width > 600


def test_table_names_the_best_and_what_it_is_of() -> None:
    lines = table(SWEEP).splitlines()
    assert lines[0] == "on 287 held-out training images"
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "random"]
    assert [line.endswith("right, the best") for line in lines[2:]] == [False, True, False]
