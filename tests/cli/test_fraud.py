"""What members hold that cannot both be is listed, written to a file, and judged by anybody who has the roster."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.conflict import Conflict, encode_conflict
from mesh.core.law.halt import Halt
from mesh.core.law.heartbeat import StreamHead
from mesh.core.law.policy import Manifest
from mesh.core.law.revocation import stream_of
from mesh.core.law.travel import Said
from mesh.core.messages import LawAsked, Sync
from tests.cli.lawmesh import Desk, code_of
from tests.support.factory import DOMAIN, MESH, T0, secret, sign

ALL = ("eu-1", "us-1", "ap-1", "sa-1")
STREAM = f"halt/{DOMAIN}"
ANNA, BERT, CARL = (f"spiffe://lab/agent/{name}" for name in ("anna", "bert", "carl"))


def _halt(desk: Desk, number: int = 1, previous: str = "", reason: str = "", signers: Sequence[SecretKey] = ()) -> Statement[Halt]:
    claims = Halt(mesh=MESH, domain=DOMAIN, sequence=number, previous=previous, since="", lifts=[], reason=reason, issued_ms=T0)
    return envelope.read(Halt, sign(claims, *(signers or (desk.lab.revoker, desk.lab.second))))


def _ls(desk: Desk) -> list[dict[str, Any]]:
    status, out, err = desk.run("-o", "json", "fraud", "ls")
    assert status == 0, err
    rows: list[dict[str, Any]] = json.loads(out)
    return rows


def _verify(desk: Desk, *files: Path, more: Sequence[str] = ()) -> tuple[int, list[dict[str, Any]]]:
    roster = desk.folder / "roster.json"
    roster.write_bytes(desk.lab.roster_envelope)
    status, out, err = desk.run("-o", "json", "fraud", "verify", *map(str, files), "--trust", str(roster), *more)
    return status, json.loads(out) if out else [{"code": code_of(err)}]


def _revoker_forks(desk: Desk) -> tuple[Statement[Said], Statement[Said]]:
    one, other = desk.lab.revocation(desk.lab.revoker, 1, ANNA), desk.lab.revocation(desk.lab.revoker, 1, BERT)
    for name in ALL:
        desk.offer(one, other, to=name)
    return one, other


# --------------------------------------------------------------------------------------------------------------- ls and show


def test_a_quiet_mesh_shows_no_conflict_and_is_asked_for_no_statement_but_rosters(desk: Desk) -> None:
    desk.revoke(ANNA)
    honest, asked = desk.ask, list[object]()

    async def ask(member: str, message: Payload) -> bytes:
        asked.append(message.stream if isinstance(message, LawAsked) else type(message))
        return await honest(member, message)

    desk.ask = ask
    assert _ls(desk) == []
    assert set(asked) == {Sync, "roster"}
    assert "no conflict is shown" in desk.run("fraud", "ls")[2]
    for name in (STREAM, "1", "0", "9" * 5_000):
        assert code_of(desk.run("-o", "json", "fraud", "show", name)[2]) == "not_found"


def test_two_statements_of_a_revoker_are_listed_with_its_key_and_written_as_a_proof(desk: Desk) -> None:
    one, other = sorted(_revoker_forks(desk), key=lambda item: item.id)
    stream = stream_of(desk.lab.revoker.public)
    (row,) = _ls(desk)
    assert (row["n"], row["kind"], row["stream"], row["numbers"], row["state"]) == (1, "stream-conflict", stream, [1, 1], "open")
    assert (row["signers"], row["held_by"], row["held"]) == ([desk.lab.revoker.public], [*ALL], "4 of 4")
    assert [item["id"] for item in row["statements"]] == [one.id, other.id]
    _, out, err = desk.run("fraud", "ls")
    assert out.splitlines()[0].split() == ["n", "kind", "stream", "numbers", "said_both", "state", "held"]
    assert f"mesh resolve {stream} --head ID" in err
    for name in ("1", stream):
        file = desk.folder / f"by-{len(name)}.json"
        status, out, err = desk.run("fraud", "show", name, "-o", str(file))
        assert (status, out, f"said both: {desk.lab.revoker.public}" in err) == (0, "", True)
        assert file.read_bytes() == encode_conflict(Conflict(one, other))
    assert desk.run("fraud", "show", "1")[1].encode() == file.read_bytes()
    status, (judged,) = _verify(desk, file)
    assert (status, judged["verdict"], judged["signers"]) == (0, "PROVED", [desk.lab.revoker.public])
    assert code_of(desk.run("-o", "json", "fraud", "show", "1", "-o", str(desk.folder / "no" / "such"))[2]) == "config_invalid"


def test_halves_that_no_member_has_seen_together_are_put_together_here(desk: Desk) -> None:
    desk.mesh.gossips = False
    first, other = _halt(desk), _halt(desk, reason="another")
    desk.mesh.nodes["us-1"].up = False
    desk.offer(first)
    desk.mesh.nodes["us-1"].up = True
    for name in ("eu-1", "ap-1", "sa-1"):
        desk.mesh.nodes[name].up = False
    desk.offer(other, to="us-1")
    for name in ALL:
        desk.mesh.nodes[name].up = True
    assert not any(node.state.governance.forked(STREAM) for node in desk.mesh.nodes.values())
    (row,) = _ls(desk)
    assert (row["stream"], row["numbers"], row["state"], row["held_by"]) == (STREAM, [1, 1], "open", [])
    assert {item["id"] for item in row["statements"]} == {first.id, other.id}


def test_what_the_root_resolved_is_listed_as_resolved_and_proves_the_same(desk: Desk) -> None:
    one, _ = _revoker_forks(desk)
    (before,) = _ls(desk)
    keys = [desk.key_file(f"root {number}", use="root") for number in range(2)]
    stream = stream_of(desk.lab.revoker.public)
    status, _, err = desk.run("resolve", stream, "--head", one.id, "--key", str(keys[0]), "--co-sign", str(keys[1]))
    assert status == 0, err
    (after,) = _ls(desk)
    assert (before["state"], after["state"], after["held"]) == ("open", "resolved", "4 of 4")
    assert after["statements"] == before["statements"]
    assert "mesh resolve" not in desk.run("fraud", "ls")[2]
    further = [desk.lab.revocation(desk.lab.revoker, 2, value, one.id) for value in (BERT, CARL)]
    desk.offer(*further)
    assert [(row["numbers"], row["state"]) for row in _ls(desk)] == [([1, 1], "open"), ([2, 2], "open")]
    assert code_of(desk.run("-o", "json", "fraud", "show", stream)[2]) == "ambiguous"
    assert desk.run("fraud", "show", "2")[0] == 0


def test_a_member_that_claims_a_fork_and_shows_none_makes_none(desk: Desk) -> None:
    desk.revoke(ANNA)
    stream = stream_of(desk.lab.second.public)
    desk.lying("eu-1", StreamHead(stream=stream, sequence=2, head="ab" * 32, forked=True, held=""))
    status, out, err = desk.run("-o", "json", "fraud", "ls")
    assert (status, json.loads(out)) == (0, [])
    assert "eu-1 claims more of revoke/" in err


def test_a_member_that_serves_nothing_hides_no_conflict_that_others_show(desk: Desk) -> None:
    _revoker_forks(desk)
    desk.losing(LawAsked, ["eu-1", "us-1"])
    assert len(_ls(desk)) == 1


def test_status_says_how_many_streams_have_forked_and_what_to_do_until_they_are_resolved(desk: Desk) -> None:
    def conflicts() -> tuple[list[int], str]:
        _, out, err = desk.run("-o", "json", "status")
        return [row["conflicts"] for row in json.loads(out)], err

    count, err = conflicts()
    assert (count, "forked" in err) == ([0] * 4, False)
    one, _ = _revoker_forks(desk)
    first = _halt(desk)
    for name in ALL[:2]:
        desk.offer(first, _halt(desk, reason="another"), to=name)
    count, err = conflicts()
    assert count == [2, 2, 1, 1]
    assert "forked streams: 2, say eu-1, us-1, ap-1, sa-1. " in err
    assert "`mesh fraud ls`" in err
    assert "`mesh resolve`" in err
    keys = [desk.key_file(f"root {number}", use="root") for number in range(2)]
    for head in (one, first):
        stream = head.claims.link[0]
        status, _, err = desk.run("resolve", stream, "--head", head.id, "--key", str(keys[0]), "--co-sign", str(keys[1]))
        assert status == 0, err
    assert conflicts()[0] == [0] * 4


# -------------------------------------------------------------------------------------------------------------------- verify


def test_what_proves_nothing_is_forged_or_cannot_be_read_ends_with_its_status(desk: Desk) -> None:
    first, other = _halt(desk), _halt(desk, reason="another")
    stranger = secret("a stranger")
    by_stranger = _halt(desk, reason="a stranger's", signers=(stranger, desk.lab.second))
    behind = _halt(desk, 2, first.id)
    signed_again = envelope.read(Halt, sign(first.claims, desk.lab.revoker, desk.lab.second))
    proof = encode_conflict(Conflict(*sorted((first, other), key=lambda item: item.id)))
    cases: list[tuple[str, bytes, int, str, str]] = [
        ("proved", proof, 0, "PROVED", ""),
        ("chained", encode_conflict(Conflict(first, behind)), 2, "NOTHING PROVED", "no_conflict"),
        ("twice", encode_conflict(Conflict(first, signed_again)), 2, "NOTHING PROVED", "no_conflict"),
        ("stranger", encode_conflict(Conflict(first, by_stranger)), 5, "FORGED", "bad_signature"),
        ("alone", encode_conflict(Conflict(first, _halt(desk, signers=(desk.lab.second,), reason="x"))), 5, "FORGED", "threshold_not_met"),
        ("cut", proof[:-1], 3, "UNREADABLE", "malformed"),
        ("other", desk.lab.roster_envelope, 3, "UNREADABLE", "malformed"),
    ]
    for name, data, wanted, verdict, code in cases:
        file = desk.folder / f"{name}.json"
        file.write_bytes(data)
        status, (judged,) = _verify(desk, file)
        assert (status, judged["verdict"], judged.get("code", "")) == (wanted, verdict, code), name
        out = desk.run("fraud", "verify", str(file), "--trust", str(desk.folder / "roster.json"))[1]
        assert out.splitlines()[0] == f"{verdict}  {file}"
    assert _verify(desk, desk.folder / "none.json")[1][0]["code"] == "config_invalid"
    assert _verify(desk, *(desk.folder / f"{name}.json" for name in ("proved", "chained", "stranger", "cut")))[0] == 5


def test_the_roster_must_be_the_pinned_one(desk: Desk) -> None:
    _revoker_forks(desk)
    file = desk.folder / "proof.json"
    desk.run("fraud", "show", "1", "-o", str(file))
    assert _verify(desk, file, more=("--pin", desk.lab.pin))[0] == 0
    status, (judged,) = _verify(desk, file, more=("--pin", "ab" * 32))
    assert (status, judged["code"]) == (2, "wrong_epoch")


def test_judging_loads_no_bus_and_no_database(desk: Desk) -> None:
    first = envelope.read(Manifest, desk.lab.manifest_envelope)
    one, twin = desk.lab.next_policy(first), desk.lab.next_policy(first, reason="another second")
    desk.offer(one)
    desk.offer(twin, to="us-1")
    (row,) = _ls(desk)
    assert (row["kind"], row["signers"]) == ("policy-conflict", sorted(key.public for key in desk.lab.signers[:2]))
    file, roster = desk.folder / "proof.json", desk.folder / "roster.json"
    desk.run("fraud", "show", f"policy/{DOMAIN}", "-o", str(file))
    roster.write_bytes(desk.lab.roster_envelope)
    heavy = ("asyncio", "nats", "sqlite3", "aiosqlite", "anyio", "cedarpy", "rich", "uvloop")
    code = (
        f"import sys; from mesh.cli import run; status = run(['fraud', 'verify', {str(file)!r}, '--trust', {str(roster)!r}, '--pin',"
        f" {desk.lab.pin!r}]); print(status, [name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
    assert done.stdout.startswith(f"PROVED  {file}\n  policy-conflict in policy/{DOMAIN}\n")


@pytest.mark.parametrize("named", [True, False])
def test_whom_a_proof_names_is_said_in_words(desk: Desk, *, named: bool) -> None:
    first = _halt(desk)
    other = _halt(desk, reason="another") if named else _halt(desk, 2, "ab" * 32)
    file = desk.folder / "proof.json"
    file.write_bytes(encode_conflict(Conflict(*sorted((first, other), key=lambda item: (item.claims.sequence, item.id)))))
    roster = desk.folder / "roster.json"
    roster.write_bytes(desk.lab.roster_envelope)
    out = desk.run("fraud", "verify", str(file), "--trust", str(roster))[1]
    both = ", ".join(sorted((desk.lab.revoker.public, desk.lab.second.public)))
    assert out.splitlines()[-1].strip() == f"said both: {both if named else 'nobody: no key must have said both'}"
