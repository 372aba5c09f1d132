"""A domain is halted and resumed by the threshold of revokers, in one stream that no command forks; what is lifted is named."""

import json
import os

import pytest

from mesh.adapters.store import hold
from mesh.core.bytes import envelope
from mesh.core.law.halt import Halt
from mesh.core.messages import Offer, Sync
from tests.cli.lawmesh import Desk, code_of
from tests.support.factory import DOMAIN, MESH, T0, sign

ALL = ("eu-1", "us-1", "ap-1", "sa-1")


def _kept(desk: Desk, name: str = "revoker") -> list[int]:
    path = desk.folder / f"{name.replace(' ', '-')}.key.halt-{DOMAIN}.signed"
    return [entry["sequence"] for entry in json.loads(path.read_bytes())["signed"]]


def test_a_halt_reaches_every_member_and_is_kept_beside_every_key_that_signed(desk: Desk) -> None:
    status, shown, _ = desk.halting("halt", "--reason", "books do not balance")
    assert status == 0
    assert {row["node"]: row["answer"] for row in shown["members"]} == dict.fromkeys(ALL, "held")
    assert (shown["domain"], shown["sequence"], shown["previous"], shown["lifts"]) == (DOMAIN, 1, "", [])
    assert (shown["reason"], shown["held"], shown["signed_before"]) == ("books do not balance", 4, False)
    assert shown["signed_by"] == sorted([desk.lab.revoker.public, desk.lab.second.public])
    assert desk.halted() == dict.fromkeys(ALL, 1)
    assert _kept(desk) == _kept(desk, "second revoker") == [1]
    assert not desk.signed.exists(), "what a key revokes is another stream"


def test_a_resume_lifts_all_halts_that_members_show_and_names_them(desk: Desk) -> None:
    first = desk.halting("halt")[1]
    again = desk.halting("halt", "--reason", "the same")[1]
    assert (again["id"], again["signed_before"]) == (first["id"], True)
    other = envelope.read(Halt, sign(_claims(2, first["id"]), desk.lab.revoker, desk.lab.second))
    for name in ALL:
        desk.offer(other, to=name)
    status, shown, _ = desk.halting("resume")
    assert (status, shown["sequence"], shown["previous"]) == (0, 3, other.id)
    assert shown["lifts"] == sorted([first["id"], other.id])
    assert desk.halted() == dict.fromkeys(ALL, 0)
    repeated = desk.halting("resume")[1]
    assert (repeated["id"], repeated["signed_before"]) == (shown["id"], True)
    third = desk.halting("halt")[1]
    assert (third["sequence"], desk.halted()) == (4, dict.fromkeys(ALL, 1))
    assert desk.halting("resume")[1]["lifts"] == [third["id"]]


def test_people_are_told_what_is_lifted_and_what_follows(desk: Desk) -> None:
    halted = desk.halting("halt")[1]
    pair = ("--key", str(desk.second), "--co-sign", str(desk.key))
    status, _, err = desk.run("resume", DOMAIN, *pair, "--watch")
    assert status == 0
    assert f"resumes {DOMAIN}, lifting {halted['id'][:12]}…" in err
    assert "whoever holds it lets work start there again" in err
    status, _, err = desk.run("halt", DOMAIN, *pair, "--watch")
    assert status == 0
    assert "from now every enforcer denies new starts there within Δ = " in err


def test_the_status_says_what_is_halted_in_each_nodes_own_words(desk: Desk) -> None:
    assert "is halted" not in desk.run("status")[2]
    desk.mesh.gossips = False
    desk.losing(Offer, ["sa-1"])
    desk.halting("halt")
    _, out, _ = desk.run("-o", "json", "status")
    assert {row["node"]: row["halted"] for row in json.loads(out)} == {"eu-1": [DOMAIN], "us-1": [DOMAIN], "ap-1": [DOMAIN], "sa-1": []}
    assert f"{DOMAIN} is halted, say eu-1, us-1, ap-1: nothing starts there until it is resumed" in desk.run("status")[2]


@pytest.mark.parametrize("command", ["halt", "resume"])
def test_less_than_the_threshold_signs_nothing(desk: Desk, command: str) -> None:
    status, shown, err = desk.halting(command, keys=[desk.key])
    assert (status, shown, code_of(err)) == (5, None, "threshold_not_met")
    assert "2 revokers must sign, and 1 did; add --co-sign FILE for each" in err
    assert code_of(desk.halting(command, keys=[desk.key, desk.key])[2]) == "threshold_not_met", "one key twice is one key"
    assert not list(desk.folder.glob("*.signed"))


def test_a_domain_that_the_roster_does_not_name_is_not_halted(desk: Desk) -> None:
    status, _, err = desk.run("-o", "json", "halt", "elsewhere", "--key", str(desk.key), "--co-sign", str(desk.second))
    assert (status, code_of(err)) == (2, "domain_unknown")
    assert DOMAIN in err


def test_there_is_nothing_to_resume_where_nothing_is_halted(desk: Desk) -> None:
    status, _, err = desk.halting("resume")
    assert (status, code_of(err)) == (3, "not_found")
    assert not list(desk.folder.glob("*.signed"))


@pytest.mark.parametrize("first", [0, 1])
def test_what_did_not_arrive_is_offered_again_by_whoever_of_them_comes_next(desk: Desk, first: int) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    assert code_of(desk.halting("halt")[2]) == "unreachable"
    desk.ask = honest
    keys = [desk.key, desk.second]
    status, shown, _ = desk.halting("halt", keys=[keys[first], keys[1 - first]])
    assert (status, shown["sequence"], shown["signed_before"]) == (0, 1, True)
    assert len(desk.mesh.law) == 1
    assert desk.halted() == dict.fromkeys(ALL, 1)


def test_a_halt_that_only_its_signers_know_is_lifted_too(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    desk.halting("halt")
    desk.ask = honest
    status, shown, _ = desk.halting("resume")
    assert (status, shown["sequence"], len(shown["lifts"])) == (0, 2, 1)
    assert desk.halted() == dict.fromkeys(ALL, 0)


def test_without_k_members_nothing_is_signed_for_others_sign_in_this_stream_too(desk: Desk) -> None:
    desk.halting("halt")
    desk.losing(Sync, ["us-1", "ap-1"])
    status, _, err = desk.halting("resume")
    assert (status, code_of(err)) == (4, "unreachable")
    assert _kept(desk) == [1]


def test_what_is_kept_and_contradicts_what_members_hold_is_not_offered(desk: Desk) -> None:
    honest = desk.ask
    desk.losing(Offer, ALL)
    desk.halting("halt")
    desk.ask = honest
    desk.offer(envelope.read(Halt, sign(_claims(1, ""), desk.lab.revoker, desk.lab.second)))
    for command in ("halt", "resume"):
        status, _, err = desk.halting(command)
        assert (status, code_of(err)) == (5, "stream_forked")
        assert "nothing was signed or offered" in err
    assert len(desk.mesh.law) == 1


def test_a_forked_stream_cannot_be_resumed_and_says_so(desk: Desk) -> None:
    for reason in ("one", "other"):
        desk.offer(envelope.read(Halt, sign(_claims(1, "", reason), desk.lab.revoker, desk.lab.second)))
    status, _, err = desk.halting("resume")
    assert (status, code_of(err)) == (5, "stream_forked")
    assert "every halt in it is in force, and no resume counts" in err


def test_revocations_and_halts_of_one_key_do_not_count_each_other(desk: Desk) -> None:
    desk.revoke("spiffe://lab/agent/anna")
    assert desk.halting("halt")[1]["sequence"] == 1
    assert desk.revoke("spiffe://lab/agent/bert")[1]["sequence"] == 2
    assert [row["number"] for row in desk.ls()] == [1, 2]


def test_only_one_command_at_a_time_signs_with_any_of_the_keys(desk: Desk) -> None:
    for name in ("revoker", "second-revoker"):
        held = hold(desk.folder / f"{name}.key.halt-{DOMAIN}.signed.lock")
        assert held is not None
        status, _, err = desk.halting("halt")
        os.close(held)
        assert (status, code_of(err)) == (4, "unavailable")
    assert desk.halting("halt")[0] == 0


def _claims(number: int, previous: str, reason: str = "by others") -> Halt:
    return Halt(mesh=MESH, domain=DOMAIN, sequence=number, previous=previous, since="", lifts=[], reason=reason, issued_ms=T0)
