"""Of several files that a command is given, the one that is not as it should be is named."""

from pathlib import Path

import pytest

from mesh.cli import run
from tests.cli.shell import Shell
from tests.support.proofs import Happened


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("verify proof.json --trust wrong.json", "malformed"),
        ("fraud verify proof.json --trust wrong.json", "malformed"),
        ("fraud push wrong.json", "malformed"),
        ("fraud push large.json", "too_large"),
        ("lineage open --from wrong.json --key auditor.key", "malformed"),
        ("audit run --once --proofs large.json/under", "config_invalid"),
    ],
)
def test_a_file_of_another_kind_is_refused_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: str, code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("wrong.json").write_text("# Notes\n")
    Path("large.json").write_text(" " * 9_000)
    assert run(["key", "gen", "auditor.key", "--use", "auditor-seal"]) == 0
    capsys.readouterr()
    assert run(arguments.split()) == 3
    told = capsys.readouterr().err
    assert f"error[{code}]" in told
    assert next(word for word in arguments.split() if word.startswith(("wrong", "large"))) in told


def test_of_a_log_in_plain_files_the_statement_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(Happened(), monkeypatch, capsys)
    roster, folder = tmp_path / "roster.json", tmp_path / "eu-1"
    roster.write_bytes(shell.story.lab.roster_envelope)
    assert shell.run("lineage", "archive", "eu-1", "--to", str(folder))[0] == 0
    broken = min((folder / "statements").rglob("*.json"))
    broken.write_bytes(broken.read_bytes() + b"x")
    status, out, _ = shell.run("verify", str(folder), "--trust", str(roster))
    assert status == 5
    assert broken.name in out
