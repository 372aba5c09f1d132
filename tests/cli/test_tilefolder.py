"""A log in plain files is judged by a roster alone: every byte counts, nothing erasable is in it, and half a folder never stands there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.core.bytes.canonical import Payload
from mesh.core.messages import LineageBatch, Pull, pack, unpack
from tests.cli.lawmesh import code_of
from tests.cli.shell import Shell
from tests.support.proofs import Happened


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(Happened(), monkeypatch, capsys)


def _archive(shell: Shell, folder: Path, node: str = "eu-1") -> tuple[int, Any, str]:
    status, out, err = shell.run("-o", "json", "lineage", "archive", node, "--to", str(folder))
    return status, json.loads(out) if out else None, err


def _verify(shell: Shell, folder: Path, *more: str) -> tuple[int, Any]:
    roster = folder.parent / "trusted.json"
    roster.write_bytes(shell.story.lab.roster_envelope)
    status, out, _ = shell.run("-o", "json", "verify", str(folder), "--trust", str(roster), *more)
    return status, json.loads(out)[0]


def test_an_archive_holds_all_final_records_and_is_verified_by_a_roster_alone(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "eu-1"
    status, told, err = _archive(shell, folder)
    assert (status, told["verdict"]) == (0, "VERIFIED"), err
    node = shell.story.mesh.nodes["eu-1"]
    assert (told["records"], told["origin"]) == (node.state.log.certified, node.origin)
    shell.story.mesh.nodes.clear()  # no mesh is needed
    status, report = _verify(shell, folder)
    assert (status, report["verdict"], [check["name"] for check in report["checks"]]) == (0, "VERIFIED", ["tree", "final", "statements"])
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"checkpoint", f"tile/0/000.p/{told['records']}", f"tile/entries/000.p/{told['records']}", "rosters/1.json"} <= files


def test_what_committed_parameters_hide_is_in_no_file_of_it(shell: Shell, tmp_path: Path) -> None:
    assert _archive(shell, tmp_path / "eu-1")[0] == 0
    assert any(b"for the flat" in data for data in shell.story.mesh.nodes["eu-1"].openings.values())
    assert not any(b"for the flat" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("pattern", ["tile/entries/*/*", "tile/0/*/*", "checkpoint", "rosters/1.json", "statements/*/*"])
@pytest.mark.parametrize("harm", [_flip, Path.unlink], ids=["flipped", "gone"])
def test_no_file_can_be_changed_or_left_out_unseen(shell: Shell, tmp_path: Path, pattern: str, harm: Callable[[Path], None]) -> None:
    folder = tmp_path / "eu-1"
    assert _archive(shell, folder)[0] == 0
    harm(min(folder.glob(pattern)))
    status, report = _verify(shell, folder)
    if harm is Path.unlink and pattern == "rosters/1.json":
        assert report["verdict"] == "VERIFIED"  # the trusted one is enough
    elif harm is Path.unlink and pattern.startswith("statements"):
        assert (status, report["verdict"], report["checks"][-1]["code"]) == (2, "PARTIAL", "body_missing")
    else:
        assert (status, report["verdict"]) == (5, "FAILED")


def test_a_certificate_with_too_few_lines_makes_nothing_final(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "eu-1"
    assert _archive(shell, folder)[0] == 0
    lines = (folder / "checkpoint").read_text().splitlines(keepends=True)
    (folder / "checkpoint").write_text("".join(lines[:-2]))
    status, report = _verify(shell, folder)
    said = [(check["name"], check["result"], check["code"]) for check in report["checks"]]
    assert (status, report["verdict"], said[:2]) == (2, "PARTIAL", [("tree", "passed", ""), ("final", "skipped", "not_final")])


def test_a_folder_that_is_there_is_not_touched_and_half_of_one_never_stands_there(shell: Shell, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    assert code_of(_archive(shell, there)[2]) == "config_invalid"
    assert list(there.iterdir()) == []
    for node in shell.story.mesh.nodes.values():
        node.up = False
    assert code_of(_archive(shell, tmp_path / "eu-1")[2]) == "unreachable"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_statement_that_one_member_withholds_is_had_from_another_and_what_nobody_has_is_said(shell: Shell, tmp_path: Path) -> None:
    honest, without = shell.ask, {"eu-1"}

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if isinstance(message, Pull) and member in without:
            batch = unpack(LineageBatch, data)
            data = pack(msgspec.structs.replace(batch, bodies=[], openings=[]))
        return data

    shell.ask = ask
    assert _archive(shell, tmp_path / "one")[:2][0] == 0
    without |= set(shell.story.mesh.nodes)
    status, told, _ = _archive(shell, tmp_path / "two")
    assert (status, told["verdict"]) == (2, "PARTIAL")
