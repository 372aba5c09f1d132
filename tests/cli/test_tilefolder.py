"""A log in plain files is judged by a roster alone: every byte counts, nothing erasable is in it, and half a folder never stands there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.cli.tilefolder import judge_folder
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.keys import SecretKey
from mesh.core.messages import LineageBatch, Pull, pack, unpack
from mesh.core.run.heard import Heard
from mesh.core.run.identity import Identity
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Outcome
from tests.cli.lawmesh import code_of
from tests.cli.shell import Shell
from tests.support.factory import sign
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
    assert (status, report["verdict"], [check["name"] for check in report["checks"]]) == (
        0,
        "VERIFIED",
        ["tree", "final", "statements", "files"],
    )
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
        assert (status, report["verdict"], report["checks"][-2]["code"]) == (2, "PARTIAL", "body_missing")
    else:
        assert (status, report["verdict"]) == (5, "FAILED")


def test_no_byte_of_any_file_can_be_another(shell: Shell, tmp_path: Path) -> None:
    folder, roster = tmp_path / "eu-1", shell.story.lab.roster_envelope
    assert _archive(shell, folder)[0] == 0
    unseen = list[tuple[str, int]]()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        for at in range(0, len(whole), max(1, len(whole) // 60)):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            if judge_folder(folder, roster, None).verdict == "VERIFIED":
                unseen.append((str(path.relative_to(folder)), at))
        path.write_bytes(whole)
    assert unseen == []
    assert judge_folder(folder, roster, None).verdict == "VERIFIED"


@pytest.mark.parametrize("extra", ["notes.txt", "tile/1/000", "tile/entries/000", "statements/ab/" + "ab" * 32 + ".json", "rosters/3.json"])
def test_a_file_that_nothing_names_is_named_and_makes_the_folder_partial(shell: Shell, tmp_path: Path, extra: str) -> None:
    folder = tmp_path / "eu-1"
    assert _archive(shell, folder)[0] == 0
    (folder / extra).parent.mkdir(parents=True, exist_ok=True)
    (folder / extra).write_bytes(b"{}")
    status, report = _verify(shell, folder)
    last = report["checks"][-1]
    assert (status, report["verdict"], last["name"], last["code"]) == (2, "PARTIAL", "files", "file_foreign")
    assert extra in last["detail"]


def test_a_certificate_with_too_few_lines_makes_nothing_final(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "eu-1"
    assert _archive(shell, folder)[0] == 0
    lines = (folder / "checkpoint").read_text().splitlines(keepends=True)
    (folder / "checkpoint").write_text("".join(lines[:-2]))
    status, report = _verify(shell, folder)
    said = [(check["name"], check["result"], check["code"]) for check in report["checks"]]
    assert (status, report["verdict"], said[:2]) == (2, "PARTIAL", [("tree", "passed", ""), ("final", "skipped", "not_final")])


def test_a_certificate_has_its_lines_in_one_order(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "eu-1"
    assert _archive(shell, folder)[0] == 0
    *head, one, other = (folder / "checkpoint").read_text().splitlines(keepends=True)
    (folder / "checkpoint").write_text("".join([*head, other, one]))
    status, report = _verify(shell, folder)
    assert (status, report["verdict"], report["checks"][-1]["code"]) == (5, "FAILED", "non_canonical")


def test_records_that_must_be_there_and_are_not_are_named(shell: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "eu-1"
    told = _archive(shell, folder)[1]
    origin, size = told["origin"], told["records"]
    assert _verify(shell, folder, "--range", f"{origin}=0..{size - 1}")[0] == 0
    for span, lacks in ((f"{origin}=0..{size + 3}", f"record {size} of {origin}"), ("lab/us-1/e1=1..2", "record 1 of lab/us-1/e1")):
        status, report = _verify(shell, folder, "--range", span)
        assert (status, report["verdict"], report["checks"][-1]["code"]) == (5, "FAILED", "not_found")
        assert lacks in report["checks"][-1]["detail"]


def test_a_folder_that_is_there_is_not_touched_and_half_of_one_never_stands_there(shell: Shell, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    assert code_of(_archive(shell, there)[2]) == "config_invalid"
    assert list(there.iterdir()) == []
    for node in shell.story.mesh.nodes.values():
        node.up = False
    assert code_of(_archive(shell, tmp_path / "eu-1")[2]) == "unreachable"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def _resigned(data: bytes) -> bytes:
    """The same statement, with a signature by nobody that it names: its id stays."""
    return sign(envelope.read_any((Intent, Identity, Outcome, Heard), data).claims, SecretKey(bytes(32)))


@pytest.mark.parametrize("spoilt", [False, True])
def test_a_statement_that_one_member_withholds_or_spoils_is_had_from_another_and_what_nobody_has_is_said(
    shell: Shell, tmp_path: Path, *, spoilt: bool
) -> None:
    honest, without = shell.ask, {"eu-1"}

    async def ask(member: str, message: Payload) -> bytes:
        data = await honest(member, message)
        if isinstance(message, Pull) and member in without:
            batch = unpack(LineageBatch, data)
            bodies = [msgspec.Raw(_resigned(bytes(body))) for body in batch.bodies] if spoilt else []
            data = pack(msgspec.structs.replace(batch, bodies=bodies, openings=[]))
        return data

    shell.ask = ask
    assert _archive(shell, tmp_path / "one")[:2][0] == 0
    without |= set(shell.story.mesh.nodes)
    status, told, _ = _archive(shell, tmp_path / "two")
    assert (status, told["verdict"]) == (2, "PARTIAL")
