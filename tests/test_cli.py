from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import sslfast
from sslfast.cli import COMMANDS, main
from sslfast.cli.parse import one_line
from sslfast.cli.pretrain import explicit, read
from sslfast.methods import METHODS
from sslfast.recipes import RECIPES, recipe_for

QUICK = "--image-size 8 --epochs 1 --batch-size 128 --warmup-epochs 0 --knn-every 0 --accelerator cpu"


def test_pretrain_evaluate_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    arguments = ["pretrain", "simclr", *QUICK.split(), "--output", str(run)]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert f"next      sslfast evaluate {run} --protocol linear" in shown.out
    assert "effective batch 128 = 128 x 1 accumulated x 1 devices" in shown.err
    assert json.loads((run / "environment.json").read_text())["command"] == shlex.join(["sslfast", *arguments])
    config = json.loads((run / "config.json").read_text())
    assert (config["method"], config["batch_size"], config["backbone"]) == ("simclr", 128, "resnet20")

    assert main(["evaluate", str(run), "--protocol", "knn", "--k", "5", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"knn on digits +\d+\.\d\d%", shown)
    assert re.search(r"\nrandom init +\d+\.\d\d% ± \d+\.\d\d% over seeds\n", shown)
    assert re.search(r"\nkNN on digits: .* than .* random init \(", shown)
    results = json.loads((run / "results.json").read_text())
    assert results["knn"]["k"] == 5
    assert main(["evaluate", str(run), "--max-iter", "3", "--limit", "200", "--device", "cpu"]) == 0
    assert "not converged within --max-iter: linear on digits, raw pixels, random init\n" in capsys.readouterr().out
    several = "--protocol few-shot pretext --shots 1 5 --draws 2 --limit 300 --device cpu"
    assert main(["evaluate", str(run), *several.split()]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"few-shot on digits +\d+\.\d\d% ± \d", shown)
    assert re.search(r"pretext on digits, loss +\d+\.\d{4}\n", shown)
    assert main(["evaluate", str(run), "--protocol", "pretext", "--k", "5"]) == 2
    assert "protocol pretext has no option --k" in capsys.readouterr().err

    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert (run / "report.html").stat().st_size > 1000


WRONG = [
    ("walk", r"unknown command 'walk'; there are pretrain, evaluate, embed, report, compare, calibrate, show-views"),
    ("evalute", r"unknown command 'evalute'; did you mean evaluate\?"),
    ("pretrain byoll", r"unknown method or recipe 'byoll'; did you mean byol\?; there are simclr"),
    ("pretrain --epochs 3", r"name of a method or recipe before --epochs"),
    ("pretrain simclr --lr 0.1", r"Unrecognized option --lr; perhaps --learning-rate"),
    ("pretrain simclr --device=cpu", r"Unrecognized option --device=cpu; perhaps --accelerator"),
    ("pretrain simclr --epoch 3", r"Unrecognized options: --epoch, 3; perhaps --epochs"),
    ("pretrain simclr --epochs three", r"--epochs: invalid literal for int\(\) with base 10: 'three'"),
    ("pretrain simclr --epochs 0", r"epochs must be at least 1, got 0"),
    ("pretrain simclr --seed 99999999999999999999999", r"seed must be below 2\^63, got 9999"),
    ("pretrain simclr --epochs", r"Missing value for argument '--epochs'"),
    ("pretrain simclr --optimizer adam", r"invalid choice 'adam' for argument '--optimizer'.*lars"),
    ("pretrain simclr --temperature -1", r"temperature must be above 0, got -1"),
    ("pretrain simclr --output {tmp}/new --data faces", r"data must be one of digits.*got 'faces'"),
    ("pretrain simclr --output {tmp}/new --backbone resnet19", r"unknown backbone 'resnet19'; did you mean resnet18"),
    ("pretrain simclr --output {tmp}/new --preset strong", r"preset must be one of simclr"),
    ("pretrain simclr --output {tmp}/new --resume", r"no checkpoint to resume from"),
    ("pretrain simclr --output {tmp}/new --data cifar10 --data-root {tmp}", r"cifar10"),
    (
        "pretrain simclr --output {tmp}/full",
        r"not empty and has no config.json, so it is no run: choose another folder",
    ),
    ("pretrain simclr --output {tmp}/new --resume auto --overwrite", r"resume .* goes with neither init_from nor"),
    ("pretrain simclr --output {tmp}/new --resume perhaps", r"--resume|perhaps"),
    ("pretrain simclr --output {tmp}/new --backbone inception_v3", r"'inception_v3' cannot take image_size 8"),
    ("pretrain simclr --output {tmp}/new --init-from {tmp}/bad.safetensors", r"bad.safetensors is damaged or no"),
    ("pretrain simclr --output {tmp}/new --init-from {tmp}/bad.ckpt", r"bad.ckpt is damaged or not a checkpoint"),
    ("pretrain simclr --output {tmp}/new --keep-checkpoints 0", r"keep_checkpoints must be at least 1, got 0"),
    ("pretrain simclr --output {tmp}/new --keep-checkpoints some", r"--keep-checkpoints|some"),
    ("evaluate {tmp}/odd", r"config.json is no run's configuration: epochs must be int, got 'ten'"),
    ("report {tmp}/listed", r"config.json must hold one JSON object, got list"),
    ("pretrain clm --output {tmp}/new --download", r"download: images have this, docs is text"),
    ("evaluate", r"run"),
    ("evaluate {tmp}/new", r"no run folder .*new"),
    ("evaluate {tmp}/full --protocol magic", r"invalid choice 'magic'.*linear"),
    ("report {tmp}/full", r"is not a run"),
    ("compare {tmp}/full --output", r"--output wants one or several files"),
    ("compare", r"runs must name at least one run folder"),
    ("compare {tmp}/full", r"none of .*full is a run"),
    ("compare {tmp}/nothing", r"no run folder .*nothing"),
    ("compare {tmp}/full --output x.txt", r"output must end in .csv, .md, .html, .png, .svg or .pdf, got x.txt"),
    ("recipes --now", r"recipes takes no options, got --now"),
    ("recipes mocco", r"no recipe has mocco; did you mean moco\?"),
    ("recipes moco resnt20", r"no recipe has moco and resnt20; did you mean resnet20\?"),
    ("evaluate {tmp}/full --protocol liner", r"invalid choice 'liner'.*; did you mean linear\? \(see"),
    ("pretrain mlm --output {tmp}/new --backbone bert-tny", r"got 'bert-tny'; did you mean bert-tiny\?"),
    ("pretrain mlm --output {tmp}/new --data doc", r"got 'doc'; did you mean docs\?"),
]


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line for line, _ in WRONG])
def test_wrong_usage_is_one_clear_line(
    line: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for name in ("bad.safetensors", "bad.ckpt"):
        (tmp_path / name).write_bytes(b"\x07" * 100)
    odd = {"method": "simclr", "data": "digits", "backbone": "resnet20", "seed": 0, "epochs": "ten"}
    for name, content in (("odd", odd), ("listed", [odd])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(content))
    assert main(line.format(tmp=tmp_path).split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert shown.err.startswith("sslfast: error: ")
    assert re.search(words, shown.err), shown.err
    assert not (tmp_path / "new").exists()


def test_help_explains_every_option_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "simclr", "--help"]) == 0
    shown = capsys.readouterr().out
    for field in dataclasses.fields(RECIPES["simclr"].config):
        assert re.search(rf"--(no-)?{field.name.replace('_', '-')} ", shown), field.name
    options = [block for block in re.split(r"\n[│ ]+(?=--)", shown) if re.match(r"--[a-z]", block)]
    assert len(options) > len(dataclasses.fields(RECIPES["simclr"].config))
    without = [block for block in options if "(default: " not in re.sub(r"[\s│]+", " ", block)]
    assert not without
    assert "(default: runs/simclr)" in re.sub(r"[\s│]+", " ", shown)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert f"usage: sslfast {command or 'COMMAND'}" in capsys.readouterr().out


def test_version_recipes_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sslfast {sslfast.__version__}\n"
    assert main(["recipes"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == len(RECIPES) + 1
    assert all(name in shown for name in RECIPES)
    assert main(["recipes", "moco", "resnet20"]) == 0
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]} == {"moco"}
    for words in (["moco"], ["moco-cifar10-cpu"]):
        assert main(["recipes", *words]) == 0
        settings = capsys.readouterr().out.partition(f"\n{words[0]} (")[2].splitlines()[1:]
        assert dict(line.split(maxsplit=1) for line in settings)["queue_size"] == str(
            RECIPES[words[0]].config.queue_size
        )
    assert main(["info"]) == 0
    assert "torch" in capsys.readouterr().out


def test_recipes_belong_to_methods_and_data_decides_the_recipe_of_a_method() -> None:
    for name, recipe in RECIPES.items():
        assert type(recipe.config) is METHODS[recipe.config.method].Config
        assert recipe.config.method in name
    assert set(METHODS) <= set(RECIPES)
    found = {data: recipe_for("simclr", data)[0] for data in (None, "digits", "photos", "cifar100")}
    assert list(found.values()) == ["simclr", "simclr", "simclr-photos", "simclr-cifar10"]
    assert recipe_for("simclr-cifar10", "photos")[0] == "simclr-cifar10"


BOX = """\
╭─ Unrecognized options ───────────────╮
│ Unrecognized options: --epoch, and   │
│ another.                             │
│ ──────────────────────────────────── │
│ Perhaps you meant:                   │
│     --epochs INT                     │
│         Passes over the images.      │
│ ──────────────────────────────────── │
│ For full helptext, run sslfast --help│
╰──────────────────────────────────────╯
"""


def test_boxes_become_one_line() -> None:
    expected = "Unrecognized options: --epoch, and another.; perhaps --epochs"
    assert one_line(BOX) == expected
    ascii_only = " Unrecognized options\n" + "\n".join(BOX.replace("─", "-").replace("│", " ").splitlines()[1:-1])
    assert one_line(ascii_only.replace("Unrecognized options\n", f"Unrecognized options\n {'-' * 36}\n")) == expected


def test_resume_without_a_value_is_yes() -> None:
    assert explicit(["--resume", "--epochs", "3", "--resume", "auto", "--resume"]) == [
        "--resume=yes", "--epochs", "3", "--resume", "auto", "--resume=yes"
    ]  # fmt: skip
    assert read(["simclr", "--resume"]).run.resume == "yes"
    assert read(["simclr", "--resume", "auto", "--keep-checkpoints", "every"]).run.resume == "auto"


def test_a_terminal_that_has_ascii_only_gets_every_line() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for words, code in (("--help", 0), ("pretrain simclr --data münchen", 2)):
        done = subprocess.run([sys.executable, "-m", "sslfast", *words.split()], env=environment, capture_output=True)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, code // 2), done.stderr
        assert b"?" in done.stdout + done.stderr


def test_core_commands_load_no_extras() -> None:
    extras = "timm torchvision lightning_fabric tyro sklearn rich tensorboard"
    script = f"""
import sys
from sslfast.cli import main
for command in (["--version"], ["--help"], ["info"], ["nonsense"]):
    main(command)
print([name for name in "{extras}".split() if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "[]"
