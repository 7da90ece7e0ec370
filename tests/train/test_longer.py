"""A run is continued by its folder alone, and may be made longer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sslfast
from sslfast.cli import main
from sslfast.cli.pretrain import read
from sslfast.evaluate import Run
from sslfast.recipes import RECIPES

SHORT = {"image_size": 8, "batch_size": 8, "warmup_epochs": 0, "knn_every": 0, "log_every": 1, "accelerator": "cpu"}
IMAGES = torch.randint(0, 256, (16, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_finished_run_is_made_longer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = sslfast.pretrain("simclr", data=IMAGES, output=tmp_path / "run", epochs=2, temperature=0.3, **SHORT)
    before = run.backbone().state_dict()
    assert main(["pretrain", "--resume", str(run.folder), "--epochs", "3"]) == 0
    longer = Run(run.folder)
    assert (longer.config["epochs"], longer.config["temperature"], longer.progress) == (3, 0.3, (3, 6))
    assert any(not torch.equal(before[name], weight) for name, weight in longer.backbone().state_dict().items())
    log = (run.folder / "train.log").read_text()
    assert "epochs 2 -> 3: after step 4 the learning rate is 0.000938 instead of 0, on the cosine of 3 epochs" in log
    rates = [json.loads(line)["lr"] for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [round(rate / rates[0], 4) for rate in rates] == [1, 0.8536, 0.5, 0.1464, 0.25, 0.067]
    capsys.readouterr()
    assert main(["pretrain", "--resume", str(run.folder), "--epochs", "2"]) == 2
    assert "epochs: 3 -> 2" in capsys.readouterr().err
    assert main(["pretrain", "--resume", str(run.folder), "--temperature", "0.5"]) == 2
    assert "temperature: 0.3 -> 0.5" in capsys.readouterr().err
    assert sslfast.pretrain(longer, resume=True, epochs=4).progress[0] == 4


def test_what_resumes_is_read_from_the_folder(tmp_path: Path) -> None:
    run, config = tmp_path / "run", RECIPES["simclr"].config.to_dict() | {"temperature": 0.3}
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config))
    chosen = read(["--resume", str(run), "--checkpoint-every", "5"])
    assert (chosen.run.output, chosen.run.resume) == (run, "yes")
    assert chosen.training.to_dict() == config | {"checkpoint_every": 5}
    assert main(["pretrain", "--resume"]) == 2
    assert main(["pretrain", "--resume", "nowhere"]) == 2


def test_whoever_does_not_listen_is_not_shouted_at() -> None:
    code = "from sslfast.cli import main; import sys; sys.exit(main(['recipes']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
