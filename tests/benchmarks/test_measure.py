"""The gate lets nothing wrong be timed, and rows say what was measured."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import compare, memory
from benchmarks import measure as measuring
from benchmarks.cases import augment, cases, gather_tokens, nt_xent, random_patch_mask
from benchmarks.measure import Settings, gate, measure
from benchmarks.peers import PEERS, contrastive, mae
from benchmarks.peers.make import drawing, plain
from benchmarks.report import table
from benchmarks.timing import alternate, busy, matrix_rate, once, peak_rate

QUICK = Settings(seconds=0.01, peers=("wrong",), memory=False)
CASE = nt_xent("cpu", 32, 16)


def nan(z1, z2):
    return contrastive.nt_xent_eager(z1, z2) + float("nan")


def wrong_value(z1, z2):
    return contrastive.nt_xent_eager(z1, z2) * 1.001


def wrong_gradient(z1, z2):
    loss = contrastive.nt_xent_eager(z1, z2)
    return loss.detach() + 1.001 * (loss - loss.detach())


def raises(z1, z2):
    raise RuntimeError("out of everything\nand more")


@pytest.mark.parametrize("peer", [nan, wrong_value, wrong_gradient, raises])
def test_a_wrong_peer_gets_no_time(monkeypatch, peer):
    monkeypatch.setitem(PEERS["nt_xent"], "wrong", plain(peer))
    rows = {row["peer"]: row for row in measure(CASE, QUICK)}
    assert set(rows) == {"eager", "sslfast", "wrong"}
    assert "median_ms" not in rows["wrong"]
    expected = "RuntimeError: out of everything" if peer is raises else "failed the gate"
    assert rows["wrong"]["note"] == expected
    assert float(rows["sslfast"]["median_ms"]) > 0


def test_a_wrong_index_fails(monkeypatch):
    def peer(noise):
        keep, restore, mask = mae.mask_eager(noise)
        return keep.flip(1), restore, mask

    monkeypatch.setitem(PEERS["random_patch_mask"], "wrong", plain(peer))
    calls, errors, notes = gate(random_patch_mask("cpu", 2, 16), QUICK)
    assert errors["wrong"] == float("inf")
    assert "wrong" not in calls
    assert notes["wrong"] == "failed the gate"


def test_a_gradient_to_the_wrong_tokens_fails(monkeypatch):
    def peer(tokens, keep):
        return mae.gather_eager(tokens.detach(), keep) + 0 * mae.gather_eager(tokens, keep)

    monkeypatch.setitem(PEERS["gather_tokens"], "wrong", plain(peer))
    assert "wrong" not in gate(gather_tokens("cpu", 2, 16, 4), QUICK)[0]


def test_a_missing_package_costs_its_row_only(monkeypatch, capsys):
    def missing(inputs):
        raise ImportError("No module named 'somewhere'")

    monkeypatch.setitem(PEERS["nt_xent"], "wrong", missing)
    assert {row["peer"] for row in measure(CASE, QUICK)} == {"eager", "sslfast"}
    assert "wrong is left out: No module named 'somewhere'" in capsys.readouterr().err


def test_a_large_case_is_gated_small_and_held_to_eager(monkeypatch):
    def wrong_when_large(z1, z2):
        return contrastive.nt_xent_eager(z1, z2) * (1.01 if len(z1) == 32 else 1)

    monkeypatch.setitem(PEERS["nt_xent"], "wrong", plain(wrong_when_large))
    calls, errors, _ = gate(replace(nt_xent("cpu", 64, 16), gate=nt_xent("cpu", 32, 16).make), QUICK)
    assert set(calls) == {"eager", "sslfast"}
    assert errors["wrong"] == pytest.approx(0.01, rel=0.2)
    assert {len(z) for z in nt_xent("cpu", 8200, 2).inputs("cpu", gate=True).values()} == {4096}


def test_rows_of_a_whole_case():
    settings = Settings(seconds=0.01, memory=False, without=("torch.compile",))
    rows = measure(gather_tokens("cpu", 2, 16, 4, bars={"times eager": 1e9}), settings)
    by_peer = {row["peer"]: row for row in rows}
    for row in rows:
        assert float(row["median_ms"]) > 0
        assert float(row["floor_ms"]) > 0
        assert row["dtype"] == "float32"
        assert row["rounds"] >= 5
    assert by_peer["eager"]["times_eager"] == "1.00"
    assert "times eager ≥ 1e+09: MISSED" in by_peer["sslfast"]["bar"]
    assert "bar" not in by_peer["eager"]


def test_calls_alternate():
    order = []
    times = alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 0, once)
    assert order == ["a", "b"] * 5
    assert [len(x) for x in times.values()] == [5, 5]


def running() -> set[int]:
    """The children of this process that are alive."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def ticks(pid: int) -> int:
    """Of a core, that a process has had."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def test_busy_processes_take_cores_until_they_are_ended():
    before = running()
    with busy(2):
        others = running() - before
        assert len(others) == 2
        had = {pid: ticks(pid) for pid in others}
        while any(ticks(pid) <= had[pid] for pid in others):  # they do not sleep
            time.sleep(0.01)
    assert running() == before


def test_rows_say_how_busy_the_machine_was(monkeypatch):
    asked = []

    @contextlib.contextmanager
    def counted(processes):
        asked.append(processes)
        yield

    monkeypatch.setattr(measuring, "busy", counted)
    settings = Settings(seconds=0.01, memory=False, without=("torch.compile",), busy=3)
    case = gather_tokens("cpu", 2, 16, 4, bars={"milliseconds": 1e9})
    rows = measure(case, settings)
    assert asked == [3]
    assert {row["busy"] for row in rows} == {3}
    assert rows[-1]["bar"].startswith("times eager ≥ 1: ")
    assert ", beside 3 busy processes |" in table(rows)


def test_peak_is_that_of_multiply_adds():
    """No matrix product can be faster, and a good one reaches half of it."""
    peak, product = (max(f() for _ in range(3)) for f in (lambda: peak_rate(1), one_thread_product))
    assert 0.9 * product < peak < 20 * product


def one_thread_product() -> float:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    rate = matrix_rate("cpu", torch.float32)
    torch.set_num_threads(before)
    return rate


def test_kept_results_belong_to_a_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(measuring, "commit", lambda: "abc1234-dirty")
    assert "commit your changes" in measuring.refusal(measuring.RESULTS)
    assert measuring.refusal(tmp_path) == ""
    monkeypatch.setattr(measuring, "commit", lambda: "abc1234")
    assert measuring.refusal(measuring.RESULTS) == ""


def test_a_tree_is_dirty_by_its_sources_not_by_its_results(monkeypatch, tmp_path):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    results = tmp_path / "benchmarks" / "results"
    results.mkdir(parents=True)
    (results / "x.csv").write_text("1")
    (tmp_path / "source.py").write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(measuring, "RESULTS", results)
    (results / "x.csv").write_text("2")
    assert re.fullmatch("[0-9a-f]{7,}", measuring.commit())
    (tmp_path / "source.py").write_text("2")
    assert re.fullmatch("[0-9a-f]{7,}-dirty", measuring.commit())


@pytest.mark.slow
def test_memory_is_that_of_one_call():
    case = next(case for case in cases("nt_xent", "cpu") if case.name == "M=2048 D=128")
    matrix = 2048 * 2048 * 4
    assert memory.peak_bytes(case, "eager", "cpu") > 2 * matrix
    assert memory.peak_bytes(case, "sslfast", "cpu") < matrix


@pytest.mark.slow
def test_two_revisions_are_timed_by_turns(monkeypatch, capsys):
    monkeypatch.setattr(compare, "built", lambda revision: contextlib.nullcontext(None))  # this tree beside itself
    assert compare.compare("HEAD", [case for case in cases("gather_tokens", "cpu") if case.overhead], "cpu", 0.05) == 0
    row = re.search(r"\| gather_tokens \| (.*) \|", capsys.readouterr().out)
    base, this, ratio = map(float, row.group(1).split(" | ")[1:])
    assert ratio == pytest.approx(base / this, rel=0.1)


@pytest.mark.parametrize("broken", [None, lambda x: x / 0, lambda x: x[1:]])
def test_a_peer_with_random_numbers_of_its_own(monkeypatch, broken):
    def peer(images, view):
        views = torch.rand(len(images), 3, *view.shape)
        return broken(views) if broken else views

    monkeypatch.setitem(PEERS["augment"], "wrong", lambda inputs: drawing(peer))
    row = next(row for row in measure(augment("cpu", 2, 16, 16), QUICK) if row["peer"] == "wrong")
    assert ("median_ms" in row) == (broken is None)
    assert row["note"] == ("failed the gate" if broken else "random numbers of its own")
    assert broken or row["error"] == ""
