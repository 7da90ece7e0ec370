from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "drop_in_ranking.py"


def test_both_ways_give_the_same_loss_curve():
    command = [sys.executable, SCRIPT, "--loss", "both", "--epochs", "3"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    first, last = map(float, re.search(r"sslfast: loss (\S+) -> (\S+)", output).groups())
    apart = float(re.search(r"at most (\S+) apart", output).group(1))
    assert last < first - 1
    assert apart < 1e-4
