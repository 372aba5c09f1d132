"""The root threshold says which history of a forked stream counts; an operator sees what there is to choose between first."""

import json
from typing import Any

import pytest

from mesh.cli import streams
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.halt import Halt
from mesh.core.law.revocation import stream_of
from mesh.core.messages import Offer
from tests.cli.lawmesh import Desk, code_of
from tests.support.factory import DOMAIN, MESH, T0, sign

ALL = ("eu-1", "us-1", "ap-1", "sa-1")
STREAM = f"halt/{DOMAIN}"


def _halt(desk: Desk, number: int = 1, previous: str = "", reason: str = "") -> Statement[Halt]:
    claims = Halt(mesh=MESH, domain=DOMAIN, sequence=number, previous=previous, since="", lifts=[], reason=reason, issued_ms=T0)
    return envelope.read(Halt, sign(claims, desk.lab.revoker, desk.lab.second))


def _resolve(desk: Desk, head: str, *more: str, stream: str = STREAM, keys: int = 2) -> tuple[int, Any, str]:
    paths = [desk.folder / f"root-{number}.key" for number in range(keys)]
    first, *others = [path if path.exists() else desk.key_file(f"root {number}", use="root") for number, path in enumerate(paths)]
    signing = [part for path in others for part in ("--co-sign", str(path))]
    status, out, err = desk.run("-o", "json", "resolve", stream, "--head", head, "--key", str(first), *signing, *more)
    return status, json.loads(out) if out else None, err


def _ls(desk: Desk) -> dict[str, dict[str, Any]]:
    status, out, err = desk.run("-o", "json", "streams", "ls")
    assert status == 0, err
    return {row["stream"]: row for row in json.loads(out)}


def _forked(desk: Desk) -> tuple[Statement[Halt], Statement[Halt]]:
    """A halt by command, and another under its number."""
    first = desk.halting("halt")[1]
    other = _halt(desk, reason="another")
    for name in ALL:
        desk.offer(other, to=name)
    return envelope.read(Halt, desk.mesh.law[first["id"]].envelope), other


def test_a_forked_halt_stream_is_resolved_and_resumed_by_commands(desk: Desk) -> None:
    first, other = _forked(desk)
    assert code_of(desk.halting("resume")[2]) == "stream_forked"
    status, shown, err = _resolve(desk, first.id[:16], "--reason", "the key was stolen", "--watch")
    assert (status, shown["acknowledged"], shown["sequence"]) == (0, True, 1), err
    assert (shown["stream"], shown["head"], shown["aside"], shown["reason"]) == (STREAM, first.id, [other.id], "the key was stolen")
    status, shown, err = desk.halting("resume")
    assert (status, shown["sequence"], shown["lifts"]) == (0, 2, sorted([first.id, other.id])), err
    assert desk.halted() == dict.fromkeys(ALL, 0)


@pytest.mark.parametrize("kept", [1, 2])
def test_whose_own_word_was_resolved_against_goes_on_behind_what_counts(desk: Desk, kept: int) -> None:
    first, other = _forked(desk)
    if kept == 2:
        more = _halt(desk, 2, first.id, "further")
        for name in ALL:
            desk.offer(more, to=name)
    assert _resolve(desk, other.id)[0] == 0
    status, shown, err = desk.halting("resume")
    assert (status, shown["sequence"], shown["previous"]) == (0, 2, other.id), err
    assert desk.halted() == dict.fromkeys(ALL, 0)


def test_a_revoker_whose_stream_was_resolved_revokes_on(desk: Desk) -> None:
    name = desk.revoke("subject:spiffe://lab/agent/one")[1]
    other = desk.lab.revocation(desk.lab.revoker, 1, "spiffe://lab/agent/other")
    further = desk.lab.revocation(desk.lab.revoker, 2, "spiffe://lab/agent/further", other.id)
    for member in ALL:
        desk.offer(other, further, to=member)
    stream = stream_of(desk.lab.revoker.public)
    assert code_of(desk.revoke("subject:spiffe://lab/agent/two")[2]) == "stream_forked"
    assert _resolve(desk, further.id, stream=stream)[0] == 0
    status, shown, err = desk.revoke("subject:spiffe://lab/agent/two")
    assert (status, shown["sequence"], shown["previous"]) == (0, 3, further.id), err
    assert all("spiffe://lab/agent/one" in revoked for revoked in desk.mesh.revoked().values())
    rows = desk.ls()
    assert {row["held"] for row in rows} == {"4 of 4"}
    assert name["id"] in {row["id"] for row in rows}


def test_a_liar_that_shows_the_fork_without_its_resolve_stops_no_command(desk: Desk) -> None:
    first, _ = _forked(desk)
    assert _resolve(desk, first.id)[0] == 0
    forked = next(head for head in desk.mesh.nodes["eu-1"].state.governance.frontier if head.stream == STREAM)
    assert forked.held
    honest = {head.stream: head for head in desk.mesh.nodes["eu-1"].state.governance.frontier}
    lie = type(forked)(stream=STREAM, sequence=2, head=forked.held, forked=True, held="")
    assert lie != honest[STREAM]
    desk.lying("sa-1", lie)
    status, shown, err = desk.halting("resume")
    assert (status, shown["sequence"]) == (0, 2), err


def test_streams_are_listed_with_both_ends_and_where_they_differ(desk: Desk) -> None:
    first, other = _forked(desk)
    beside = _halt(desk, 2, other.id, "behind the other")
    desk.mesh.gossips = False
    desk.offer(beside, to="us-1")
    row = _ls(desk)[STREAM]
    assert (row["state"], row["length"], row["differ_from"], row["held_by"]) == ("forked", 3, 1, ["us-1"])
    assert [(tip["id"], tip["number"], tip["reason"]) for tip in row["tips"]] == [(first.id, 1, ""), (beside.id, 2, "behind the other")]
    _, _, err = desk.run("streams", "ls")
    assert f"{STREAM} ends in {beside.id} (number 2" in err
    assert f"{STREAM}: its histories differ from number 1 on" in err
    assert "mesh resolve STREAM --head ID" in err
    status, shown, err = _resolve(desk, first.id)
    assert (status, shown["aside"]) == (0, [beside.id]), err
    assert {node.state.governance.forked(STREAM) for node in desk.mesh.nodes.values()} == {False}, "what it chooses between came first"
    row = _ls(desk)[STREAM]
    assert (row["state"], row["length"], row["head"], row["held"]) == ("resolved", 1, first.id, "4 of 4")
    assert [tip["stands"] for tip in row["tips"]] == [", counts", ", aside"]
    assert _ls(desk)["resolve"]["state"] == "one history"


def test_what_did_not_arrive_is_offered_again(desk: Desk) -> None:
    first, _ = _forked(desk)
    honest = desk.ask
    desk.losing(Offer, ALL)
    assert code_of(_resolve(desk, first.id)[2]) == "unreachable"
    desk.ask = honest
    status, shown, err = _resolve(desk, first.id)
    assert (status, shown["sequence"], shown["signed_before"]) == (0, 1, True), err


def test_below_the_threshold_and_with_other_keys_nothing_is_signed(desk: Desk) -> None:
    first, _ = _forked(desk)
    assert code_of(_resolve(desk, first.id, keys=1)[2]) == "threshold_not_met"
    pair = ("--key", str(desk.key), "--co-sign", str(desk.second))
    assert code_of(desk.run("-o", "json", "resolve", STREAM, "--head", first.id, *pair)[2]) == "config_invalid"
    strangers = [desk.key_file(name, use="root") for name in ("one stranger", "other stranger")]
    pair = ("--key", str(strangers[0]), "--co-sign", str(strangers[1]))
    assert code_of(desk.run("-o", "json", "resolve", STREAM, "--head", first.id, *pair)[2]) == "bad_signature"
    assert not list(desk.folder.glob("*resolve.signed"))


def test_what_is_not_there_is_not_resolved(desk: Desk) -> None:
    desk.halting("halt")
    assert code_of(_resolve(desk, "ab")[2]) == "not_found"
    first, other = _forked(desk)
    for head in ("ab" * 32, ""):
        assert code_of(_resolve(desk, head)[2]) == "not_found"
    behind = [_halt(desk, 2, first.id, reason) for reason in ("one", "two")]
    desk.offer(*behind)
    assert code_of(_resolve(desk, first.id)[2]) == "stream_forked"
    status, shown, _ = _resolve(desk, behind[0].id)
    assert (status, shown["aside"]) == (0, sorted([behind[1].id, other.id]))


def test_of_more_histories_than_fit_the_longest_are_named(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "ASIDE_MAX", 1)
    first, other = _forked(desk)
    beside, third = _halt(desk, 2, other.id), _halt(desk, reason="a third")
    desk.offer(beside, third)
    status, shown, err = _resolve(desk, first.id)
    assert (status, shown["aside"]) == (0, [beside.id])
    assert "2 other histories: the 1 longest are named" in err
