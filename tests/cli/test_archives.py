"""Many records are proved in one file, and judged from it one by one; a sample is what chance has chosen, and nobody else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical
from mesh.core.bytes.canonical import Payload
from mesh.core.log.archive import Packer, Unpacker
from mesh.core.log.bundle import read_proof
from mesh.core.log.note import Note, parse_note
from mesh.core.messages import Find, Found, Prove, Proved, RefusedAnswer, pack, unpack
from mesh.errors import Unavailable
from mesh.limits import AUDIT_LOGS_MAX, HEADS_BYTES_MAX, SAMPLE_RECORDS_MAX
from mesh.protocol.sampling import Heads, draw, read_heads
from tests.cli.shell import Shell
from tests.core.kit import refuses


@pytest.fixture
def files(shell: Shell, tmp_path: Path) -> tuple[Path, str]:
    roster = tmp_path / "roster.json"
    roster.write_bytes(shell.story.lab.roster_envelope)
    return tmp_path / "proofs.jsonl", str(roster)


def _final(shell: Shell) -> int:
    return sum(node.state.log.certified for node in shell.story.mesh.nodes.values())


# ------------------------------------------------------------------------------------------------------------------------ export


def test_all_records_are_proved_in_one_file(shell: Shell, files: tuple[Path, str]) -> None:
    out, roster = files
    value = shell.json("audit", "export", "--out", str(out))
    assert (value["verified"], value["partial"], value["failed"], value["lacking"]) == (_final(shell), 0, 0, 0)
    status, printed, _ = shell.run("verify", str(out), "--trust", roster)
    assert (status, printed.splitlines()[0]) == (0, f"VERIFIED  {out}")
    assert f"{_final(shell)} proofs: {_final(shell)} VERIFIED" in printed
    assert "lab/us-1/e1: 4 records, 0 to 3, none missing between" in printed
    (whole,) = json.loads(shell.run("verify", "-o", "json", str(out), "--trust", roster)[1])
    assert (whole["verdict"], whole["proofs"], whole["verified"]) == ("VERIFIED", _final(shell), _final(shell))
    each = [json.loads(line) for line in shell.run("verify", "-o", "jsonl", str(out), "--trust", roster)[1].splitlines()]
    assert [value["verdict"] for value in each] == ["VERIFIED"] * (_final(shell) + 1)
    assert sum(value.get("record", {}).get("record") == "decision" for value in each) == 2


def test_a_span_and_a_node_limit_what_is_exported(own: Shell, tmp_path: Path) -> None:
    lab, mesh = own.story.lab, own.story.mesh
    late = mesh.now_ms
    mesh.run(3)
    for number in (40, 41, 42):
        mesh.request("sa-1", lab.request(*lab.intent(number, at_ms=mesh.now_ms)[1:]))
        mesh.run(4)
    out = str(tmp_path / "some.jsonl")

    def times(ms: int) -> str:
        from datetime import UTC, datetime

        return datetime.fromtimestamp(ms / 1000, UTC).isoformat()

    value = own.json("audit", "export", "--out", out, "--from", times(late))
    assert (value["verified"], [log["log"] for log in value["logs"] if log["records"]]) == (3, ["lab/sa-1/e1"])
    value = own.json("audit", "export", "--out", out, "--from", times(late), "--to", times(late))
    assert value["verified"] == 0
    value = own.json("audit", "export", "--out", out, "--to", times(late), "--node", "us-1")
    assert [(log["log"], log["first"], log["last"]) for log in value["logs"]] == [("lab/us-1/e1", 0, 3)]
    assert "error[usage]" in own.run("audit", "export", "--out", out, "--from", "yesterday")[2]
    assert own.run("audit", "export", "--out", out, "--node", "zz-1")[0] == 5


def test_an_export_whose_log_nobody_serves_says_so_and_stays_readable(own: Shell, tmp_path: Path) -> None:
    honest, out = own.ask, tmp_path / "some.jsonl"

    async def ask(member: str, message: Payload) -> bytes:
        answer = await honest(member, message)
        if isinstance(message, Prove) and message.origin.startswith("lab/us-1/"):
            return pack(Proved(batch=unpack(Proved, answer).batch, proof=""))
        return answer

    own.ask = ask
    status, _, err = own.run("audit", "export", "--out", str(out))
    assert status == 4
    assert "the log lab/us-1/e1 could not be read" in err


def test_what_would_fail_is_left_out_and_is_the_exit_status(own: Shell, tmp_path: Path) -> None:
    out, roster = tmp_path / "some.jsonl", tmp_path / "roster.json"
    roster.write_bytes(own.story.lab.roster_envelope)
    for node in own.story.mesh.nodes.values():
        node.bodies.pop(own.story.permitted)
    status, _, err = own.run("audit", "export", "--out", str(out))
    assert status == 5
    assert "eu-1/2: body_missing" in err
    status, printed, _ = own.run("verify", str(out), "--trust", str(roster))
    assert (status, "lab/eu-1/e1: 2 records, 0 to 1" in printed) == (0, True)


@pytest.mark.parametrize("command", ["export", "sample"])
def test_no_words_of_a_member_take_a_record_out_unseen(own: Shell, tmp_path: Path, command: str) -> None:
    honest, liar = own.ask, own.story.lab.roster.members[-1].name  # asked last: its words are what is told

    async def ask(member: str, message: Payload) -> bytes:
        if isinstance(message, Prove) and message.origin.startswith("lab/eu-1/") and message.index == 1:
            if member == liar:
                return pack(RefusedAnswer(code="not_found", detail="what the nodes answered is no proof"))
            raise Unavailable("unreachable", member)
        return await honest(member, message)

    own.ask = ask
    more = ["-n", str(_final(own))] if command == "sample" else []
    status, _, err = own.run("audit", command, "--out", str(tmp_path / "some.jsonl"), *more)
    assert (status, "1 lacking" in err, "0 failed" in err) == (4, True, True), err


def test_a_place_that_one_member_made_up_takes_no_permit_out(own: Shell, tmp_path: Path) -> None:
    honest = own.ask

    async def ask(member: str, message: Payload) -> bytes:
        answer = await honest(member, message)
        if member == "ap-1" and isinstance(message, Find):
            found = unpack(Found, answer)
            more = [msgspec.structs.replace(place, index=999_999) for place in found.records[:1]]
            return pack(msgspec.structs.replace(found, records=[*found.records, *more]))
        return answer

    own.ask = ask
    for name in ("eu-1/2", own.story.permitted):
        ended = own.run("prove", name, "-o", str(tmp_path / f"{name[:4]}.json"))
        assert ended[0] == 0, ended
    assert own.json("audit", "export", "--out", str(tmp_path / "some.jsonl"))["verified"] == _final(own)
    assert own.run("why", own.story.permitted)[0] == 0


def test_what_was_erased_is_partial(own: Shell, tmp_path: Path) -> None:
    for node in own.story.mesh.nodes.values():
        node.openings.clear()
    status, _, err = own.run("audit", "export", "--out", str(tmp_path / "some.jsonl"))
    assert status == 2
    assert "eu-1/2: PARTIAL, decision: the openings of its committed parameters are not here" in err


def test_a_file_that_cannot_be_written_leaves_nothing_behind(own: Shell, tmp_path: Path) -> None:
    assert own.run("audit", "export", "--out", str(tmp_path / "no" / "some.jsonl"))[0] == 3
    for node in own.story.mesh.nodes.values():
        node.up = False
    assert own.run("audit", "export", "--out", str(tmp_path / "some.jsonl"))[0] == 4
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------------------------------ verify


@pytest.mark.parametrize(
    ("change", "status", "verdict"),
    [
        (
            lambda lines: [line.replace(b'["small-payments"],"effect":"permit"', b'["small-payments"],"effect":"deny"') for line in lines],
            5,
            "FAILED",
        ),
        (lambda lines: lines[:-1], 3, "UNREADABLE"),
        (lambda lines: [*lines[:3], b"{}\n", *lines[3:]], 3, "UNREADABLE"),
        (lambda lines: [lines[0], b'{"line":"end","proofs":0}\n'], 2, "PARTIAL"),
    ],
    ids=["lied", "cut short", "something more", "empty"],
)
def test_the_worst_of_an_archive_is_its_status(
    shell: Shell, files: tuple[Path, str], change: Callable[[list[bytes]], list[bytes]], status: int, verdict: str
) -> None:
    out, roster = files
    shell.run("audit", "export", "--out", str(out))
    out.write_bytes(b"".join(change(out.read_bytes().splitlines(keepends=True))))
    done, printed, _ = shell.run("verify", "-o", "json", str(out), "--trust", roster)
    assert (done, verdict in {value["verdict"] for value in json.loads(printed)}) == (status, True)
    assert shell.run("verify", str(out), "--trust", roster)[0] == status


def test_a_record_that_was_left_out_of_an_archive_is_a_gap(shell: Shell, files: tuple[Path, str]) -> None:
    from mesh.core.log.archive import Packer, Unpacker
    from mesh.core.log.bundle import read_proof

    out, roster = files
    shell.run("audit", "export", "--out", str(out), "--node", "us-1")
    unpacker, packer = Unpacker(), Packer()
    proofs = [data for line in out.read_bytes().splitlines(keepends=True) if (data := unpacker.take(line)) is not None]
    out.write_bytes(packer.begin() + b"".join(packer.add(read_proof(data)) for data in (proofs[0], *proofs[2:])) + packer.end())
    assert "lab/us-1/e1: 3 records, 0 to 3, 1 gaps between, the first at 1" in shell.run("verify", str(out), "--trust", roster)[1]


def test_archives_and_proofs_are_judged_in_one_go(shell: Shell, files: tuple[Path, str], tmp_path: Path) -> None:
    out, roster = files
    one = tmp_path / "proof.json"
    shell.run("prove", shell.story.permitted, "-o", str(one))
    shell.run("audit", "export", "--out", str(out))
    values = json.loads(shell.run("verify", "-o", "json", str(one), str(out), str(tmp_path / "none"), "--trust", roster)[1])
    assert [value["verdict"] for value in values] == ["VERIFIED", "VERIFIED", "UNREADABLE"]


def _repacked(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    unpacker, packer = Unpacker(), Packer()
    proofs = [data for line in path.read_bytes().splitlines(keepends=True) if (data := unpacker.take(line)) is not None]
    packed = [packer.add(read_proof(data)) for data in change(proofs)]
    path.write_bytes(packer.begin() + b"".join(packed) + packer.end())


@pytest.mark.parametrize(
    ("change", "option", "missing"),
    [
        (lambda proofs: [proofs[0], *proofs[2:]], "--whole", 1),
        (lambda proofs: [proofs[0], *proofs[2:]], "--range", 1),
        (lambda proofs: proofs[1:], "--range", 0),
        (lambda proofs: proofs[:-1], "--range", -1),
        (lambda _: [], "--range", 0),
    ],
    ids=["a gap", "a gap in a range", "the beginning", "the end", "everything"],
)
def test_a_record_that_must_be_there_and_is_not_fails_and_is_named(
    shell: Shell, files: tuple[Path, str], change: Callable[[list[bytes]], list[bytes]], option: str, missing: int
) -> None:
    out, roster = files
    count = shell.json("audit", "export", "--out", str(out), "--node", "us-1")["verified"]
    span = f"lab/us-1/e1=0..{count - 1}"
    given = ["--whole"] if option == "--whole" else ["--range", span]
    assert shell.run("verify", str(out), "--trust", roster, *given)[0] == 0
    _repacked(out, change)
    status, printed, _ = shell.run("verify", str(out), "--trust", roster, *given)
    assert (status, f"record {missing % count} of lab/us-1/e1 is not there" in printed) == (5, True), printed


@pytest.mark.parametrize("change", [lambda proofs: [*proofs, proofs[0]], lambda proofs: proofs[::-1]], ids=["twice", "backwards"])
def test_records_that_are_not_in_their_order_are_refused(
    shell: Shell, files: tuple[Path, str], change: Callable[[list[bytes]], list[bytes]]
) -> None:
    out, roster = files
    shell.run("audit", "export", "--out", str(out), "--node", "us-1")
    _repacked(out, change)
    status, printed, _ = shell.run("verify", str(out), "--trust", roster)
    assert (status, "non_canonical" in printed or "stands behind record" in printed) == (3, True), printed


def test_one_proof_is_not_all_that_must_be_there(shell: Shell, files: tuple[Path, str], tmp_path: Path) -> None:
    one = tmp_path / "proof.json"
    shell.run("prove", shell.story.permitted, "-o", str(one))
    (value,) = json.loads(shell.run("verify", "-o", "json", str(one), "--trust", files[1])[1])
    origin, index = value["record"]["origin"], value["record"]["index"]
    for span, expected in ((f"{origin}={index}..{index}", "VERIFIED"), (f"{origin}={index}..{index + 1}", "FAILED")):
        status, printed, _ = shell.run("verify", "-o", "json", str(one), "--trust", files[1], "--range", span)
        (value,) = json.loads(printed)
        assert (status, value["verdict"]) == (0 if expected == "VERIFIED" else 5, expected)
        assert value["checks"][-1]["name"] == "range"
    assert value["checks"][-1]["detail"] == f"record {index + 1} of {origin} is not there"


def test_a_range_that_is_none_is_refused(shell: Shell, files: tuple[Path, str]) -> None:
    out, roster = files
    shell.run("audit", "export", "--out", str(out), "--node", "us-1")
    for written in ("us-1", "lab/us-1/e1=3..1", "lab/us-1/e1=a..b"):
        assert "error[usage]" in shell.run("verify", str(out), "--trust", roster, "--range", written)[2]


# ------------------------------------------------------------------------------------------------------------------------ sample


def test_a_sample_is_proved_and_drawn_again_from_the_same_certificates(own: Shell, tmp_path: Path) -> None:
    heads, out, roster = tmp_path / "heads.json", tmp_path / "sample.jsonl", tmp_path / "roster.json"
    roster.write_bytes(own.story.lab.roster_envelope)
    first = own.json("audit", "sample", "-n", "5", "--heads-out", str(heads), "--out", str(out))
    assert (first["verified"], len(first["records"]), first["of"]) == (5, 5, _final(own))
    assert own.run("verify", str(out), "--trust", str(roster))[0] == 0
    lab, mesh = own.story.lab, own.story.mesh
    mesh.request("sa-1", lab.request(*lab.intent(50, at_ms=mesh.now_ms)[1:]))
    mesh.run(6)
    again = own.json("audit", "sample", "-n", "5", "--heads", str(heads))
    assert again["records"] == first["records"]
    assert own.json("audit", "sample", "-n", "9", "--heads", str(heads))["records"][:5] == first["records"]
    assert own.json("audit", "sample", "-n", "5", "--heads", str(heads), "--seed", "x")["records"] != first["records"]
    assert own.json("audit", "sample", "-n", "5")["heads"] != first["heads"], "another certificate, another sample"


def test_a_log_that_a_sample_leaves_out_is_named(own: Shell, tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    own.run("audit", "sample", "--heads-out", str(path))
    heads = read_heads(path.read_bytes())
    path.write_bytes(canonical.encode(msgspec.structs.replace(heads, logs=[log for log in heads.logs if "lab/us-1/e1" not in log.note])))
    status, _, err = own.run("audit", "sample", "--heads", str(path))
    assert (status, f"{path} has no certificate of the log lab/us-1/e1" in err) == (0, True), err


def test_a_sample_ends_with_a_status_that_cron_understands(own: Shell) -> None:
    everything = str(_final(own))
    assert own.run("audit", "sample", "-n", everything)[0] == 0
    for node in own.story.mesh.nodes.values():
        node.openings.clear()
    assert own.run("audit", "sample", "-n", everything)[0] == 2
    for node in own.story.mesh.nodes.values():
        node.bodies.pop(own.story.permitted)
    assert own.run("audit", "sample", "-n", everything)[0] == 5
    for node in own.story.mesh.nodes.values():
        node.up = False
    assert own.run("audit", "sample", "-n", everything)[0] == 4


def _heads(shell: Shell) -> Heads:
    notes = [node.certificate(node.origin, 1) for node in shell.story.mesh.nodes.values()]
    return Heads.of(found[1] for found in notes if found is not None)


def test_certificates_that_are_none_are_not_drawn_from(shell: Shell, tmp_path: Path) -> None:
    heads = _heads(shell)
    log = heads.logs[0]
    note = parse_note(log.note.encode())
    fewer = Note(note.text, note.lines[:-1]).encode().decode()
    other = log.note.replace(f"\n{heads.checkpoints[0].size}\n", "\n1\n", 1)
    path = tmp_path / "heads.json"
    for wrong, code in ((fewer, "not_final"), (other, "bad_signature")):
        value = json.loads(canonical.encode(heads))
        value["logs"][0]["note"] = wrong
        path.write_bytes(canonical.encode(value))
        assert f"error[{code}]" in shell.run("audit", "sample", "--heads", str(path))[2]


def test_a_file_of_certificates_has_one_spelling(shell: Shell) -> None:
    heads = _heads(shell)
    data = canonical.encode(heads)
    assert read_heads(data) == heads
    value: dict[str, Any] = json.loads(data)
    twisted = canonical.encode({**value, "logs": value["logs"][::-1]})
    swapped = canonical.encode({**value, "logs": [{**value["logs"][0], "origin": "lab/aa-1/e1"}, *value["logs"][1:]]})
    for wrong in (twisted, swapped, b"{}", data + b"\n", canonical.encode({**value, "logs": value["logs"] * (AUDIT_LOGS_MAX // 4 + 1)})):
        with refuses("non_canonical", "bad_checkpoint", "malformed"):
            read_heads(wrong)
    with refuses("too_large"):
        read_heads(b"[" * (HEADS_BYTES_MAX + 1))
    with refuses("malformed"):
        read_heads(b"[" * HEADS_BYTES_MAX)


def test_every_record_is_as_likely_as_any_other_and_drawn_once(shell: Shell) -> None:
    heads = _heads(shell)
    everything = {(item.origin, item.index) for item in draw(heads, seed="", count=1_000)}
    assert everything == {(one.origin, index) for one in heads.checkpoints for index in range(one.size)}
    assert len(draw(heads, seed="", count=1_000)) == len(everything) == heads.total
    counted: dict[object, int] = {}
    for number in range(3_000):
        (item,) = draw(heads, seed=str(number), count=1)
        counted[item] = counted.get(item, 0) + 1
    mean = 3_000 / heads.total
    assert all(abs(count - mean) < 6 * mean**0.5 for count in counted.values())


def test_whoever_carries_certificates_has_no_say_in_the_sample(shell: Shell) -> None:
    heads = _heads(shell)
    note = parse_note(heads.logs[0].note.encode())
    fewer = Note(note.text, note.lines[:-1]).encode()
    others = Heads.of([fewer, *(log.note.encode() for log in heads.logs[1:])])
    assert draw(others, seed="", count=9) == draw(heads, seed="", count=9)
    assert draw(Heads.of([]), seed="", count=9) == []


def test_a_sample_has_a_largest_size(shell: Shell) -> None:
    assert shell.run("audit", "sample", "-n", str(SAMPLE_RECORDS_MAX))[0] == 0
    assert shell.run("audit", "sample", "-n", str(SAMPLE_RECORDS_MAX + 1))[0] == 64
