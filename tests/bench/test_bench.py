"""The benchmarks run and say sane things; how fast anything is, is never a test."""

import json
import os
import pstats
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mesh.bench.cores import Cores, choose, cpu_s, pinned_here
from mesh.bench.floor import read_requests, write_requests
from mesh.bench.report import Pair, percentile, report, row
from mesh.bench.run import NAMES
from mesh.cli import run


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One quick run of everything, as the command prints it."""
    profile = tmp_path_factory.mktemp("bench") / "governor.pstats"
    command = [sys.executable, "-m", "mesh.cli", "bench", "--quick", "--rounds", "2", "--json", "--profile", str(profile)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    found["profile"] = profile
    return found


def test_every_figure_stands_beside_its_floor(measured: dict[str, Any]) -> None:
    assert [row["id"] for row in measured["rows"]] == ["P1", "P2 p50", "P2 p99", "P3"]
    for figure in measured["rows"]:
        assert figure["ours"] > 0
        assert figure["floor"] > 0
        assert len(figure["ratios"]) == figure["rounds"] == 2
        assert min(figure["ratios"]) <= figure["ratio"] <= max(figure["ratios"])
        assert figure["unit"]
        assert figure["reach"][:2] in {">=", "<="}


def test_a_report_says_where_it_was_measured(measured: dict[str, Any]) -> None:
    assert measured["host"]
    assert measured["cores"] >= 1
    assert measured["pinned"] == choose().pinned
    assert measured["versions"].keys() >= {"python", "nats-server", "cedarpy", "pynacl", "msgspec", "nats-py"}
    assert all(measured["versions"].values())
    assert isinstance(measured["commit"], str)


def test_each_load_was_really_authorized_and_each_signature_really_checked(measured: dict[str, Any]) -> None:
    by_id = {figure["id"]: figure["detail"] for figure in measured["rows"]}
    assert by_id["P1"]["in_flight"] == 64
    assert by_id["P3"]["signatures"] == 2, "authorization, possession"


def test_a_profile_is_of_the_loop_that_decides(measured: dict[str, Any]) -> None:
    names = {name for _, _, name in pstats.Stats(str(measured["profile"])).stats}  # type: ignore[attr-defined]  # typeshed leaves it out
    assert {"fold", "authenticate", "conclude"} <= names


def test_a_benchmark_that_is_none_is_a_mistake_of_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "P99"]) == 64
    said = capsys.readouterr()
    assert said.out == ""
    assert all(name in said.err for name in NAMES)


def test_a_ratio_is_the_median_of_the_pairs_not_of_the_sides() -> None:
    pairs = [Pair(10, 10), Pair(100, 50), Pair(30, 10)]
    found = row("X", "x", pairs, unit="s", least=1.5, detail={})
    assert (found.ours, found.floor, found.ratio, found.reached, found.reach) == (30, 10, 2, True, ">= 1.5")
    slow = row("X", "x", pairs, unit="s", most=1.5, detail={"bytes": 3})
    assert (slow.reached, slow.reach, slow.detail) == (False, "<= 1.5", {"bytes": 3})


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert percentile([1.0], 0.5) == 1.0


def test_requests_come_back_as_they_were(tmp_path: Path) -> None:
    requests = [b"", b"x", bytes(range(256)) * 300]
    write_requests(tmp_path / "requests", requests)
    assert read_requests(tmp_path / "requests") == requests


def test_a_single_core_is_shared_and_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {3}, raising=False)
    assert choose() == Cores(-1, -1)
    with pinned_here(choose()):
        assert not report([], choose()).pinned


def test_processor_time_of_a_process_only_grows() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            before = cpu_s(busy.pid)
            while cpu_s(busy.pid) <= before:
                pass
        finally:
            busy.kill()
    assert cpu_s(1 << 30) == 0.0
