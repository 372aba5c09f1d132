"""`mesh policy`: exit codes and what is said."""

import json
from pathlib import Path

import pytest

from mesh.cli import run


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["policy", "init", str(tmp_path / "policy"), "--mesh", "dev"]) == 0
    capsys.readouterr()
    return tmp_path / "policy"


def test_init_lists_what_it_wrote_and_says_what_is_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "new"
    assert run(["policy", "init", str(target), "-o", "json"]) == 0
    said = capsys.readouterr()
    assert {Path(row["file"]).name for row in json.loads(said.out)} >= {"domain.toml", "send.cedar", "entities.json"}
    assert said.err == f"next: mesh policy test {target}\n"
    assert run(["policy", "init", str(target)]) == 3
    assert "error[usage]" in capsys.readouterr().err


def test_check_names_domain_and_digest(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "check", str(folder), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["domain"] == "payments"
    assert found["digest"].startswith("blake3:")
    assert (found["policies"], found["actions"], found["cases"]) == (3, 1, 4)


def test_check_lists_all_that_is_wrong_and_exits_3(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "a.cedar").write_text("permit")
    (folder / "b.cedar").write_text("((((")
    for verb in ("check", "test"):
        assert run(["policy", verb, str(folder)]) == 3
        said = capsys.readouterr().err
        assert said.count("error[policy_invalid]: ") == 2
        assert f"fix: mend a.cedar in {folder}" in said


def test_test_prints_a_line_for_each_case(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["policy", "test", str(folder)]) == 0
    said = capsys.readouterr()
    assert said.out.count("PASS") == 4
    assert "4 passed, 0 failed" in said.err


def test_test_exits_2_when_a_case_fails_or_there_are_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = folder / "tests" / "send.toml"
    cases.write_text(cases.read_text().replace('expect = "permit"', 'expect = "deny"'))
    assert run(["policy", "test", str(folder), "-o", "jsonl"]) == 2
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    assert [row["result"] for row in rows] == ["FAIL", "PASS", "PASS", "PASS"]
    assert json.loads(said.err.splitlines()[-1])["error"]["code"] == "policy_tests_failed"
    cases.unlink()
    assert run(["policy", "test", str(folder)]) == 2
    assert "has no cases" in capsys.readouterr().err
