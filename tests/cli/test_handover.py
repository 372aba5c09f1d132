"""Other signers take a stream over behind all that members hold; what former ones say later counts nowhere, and nothing is lost unasked."""

import json
from typing import Any

import msgspec
import pytest

from mesh.cli import roster_words as words
from mesh.core.law.fold import extend, put_in_force
from mesh.core.law.halt import halt_stream
from mesh.core.law.policy import policy_stream
from mesh.core.law.reign import Handover, in_reign
from mesh.core.law.revocation import stream_of
from mesh.core.messages import Sync
from tests.cli.lawmesh import code_of
from tests.cli.policymesh import ALL
from tests.cli.rosterdesk import RosterDesk
from tests.support.factory import DOMAIN, secret

ANNA, BERT, CARL = (f"spiffe://lab/agent/{name}" for name in ("anna", "bert", "carl"))


def _replaced(desk: RosterDesk, *more: str) -> dict[str, Handover]:
    """The next roster, signed, in which another revoker replaces the second one; what it hands over."""
    third = desk.folder / "third-revoker.key"
    third = third if third.exists() else desk.key_file("third revoker")
    made = desk.made("set", "--add-key", f"revoker={third}", "--drop-key", f"revoker={desk.lab.second.public[:12]}", *more)
    desk.seal("roster-2.json", *desk.roots[:2])
    return made.claims.handovers


def _pushed(desk: RosterDesk, *more: str) -> tuple[int, Any, str]:
    told = desk.plan("push", "roster-2.json", "--watch", *more)
    if told[0] == 0:  # it is in force, and every command learns that before it does anything
        desk.known = put_in_force(extend(desk.lab.governance, [words.read(desk.folder / "roster-2.json")]).governance, 2)
        for node in desk.mesh.nodes.values():
            node.state = msgspec.structs.replace(node.state, governance=put_in_force(node.state.governance, 2))
    return told


def _revoker(desk: RosterDesk) -> str:
    return stream_of(desk.lab.revoker.public)


def test_a_stream_goes_on_behind_the_last_statement_that_members_hold(rosters: RosterDesk) -> None:
    first, second = rosters.revoke(ANNA)[1], rosters.revoke(BERT)[1]
    assert first["id"] != second["id"]
    handed = _replaced(rosters)
    nothing = Handover(sequence=0, head="")
    assert handed == {
        _revoker(rosters): Handover(sequence=2, head=second["id"]),
        stream_of(rosters.lab.second.public): nothing,
        stream_of(secret("third revoker").public): nothing,
        halt_stream(DOMAIN): nothing,
    }
    status, out, err = rosters.run("roster", "set", "--handover", "resolve=nothing", "--from", "roster-2.json")
    assert (status, "resolve begins anew" in out) == (0, True), err


def test_who_stays_goes_on_and_who_was_let_go_is_heard_by_nobody(rosters: RosterDesk) -> None:
    rosters.revoke(ANNA)
    late = rosters.lab.revocation(rosters.lab.second, 1, CARL)
    _replaced(rosters)
    assert _pushed(rosters)[0] == 0
    for name in ALL:
        rosters.offer(late, to=name)
    status, shown, err = rosters.revoke(BERT, "--watch")
    assert (status, shown["sequence"]) == (0, 2), err
    assert rosters.mesh.revoked() == {name: {ANNA, BERT} for name in ALL}
    assert {(row["target"], row["held"]) for row in rosters.ls()} == {(f"subject:{ANNA}", "4 of 4"), (f"subject:{BERT}", "4 of 4")}
    assert rosters.halting("halt", "--watch", keys=(rosters.key, rosters.folder / "third-revoker.key"))[0] == 0
    assert code_of(rosters.halting("halt", keys=(rosters.key, rosters.second))[2]) == "bad_signature"


def test_what_members_hold_behind_a_handover_by_then_is_not_lost_unasked(rosters: RosterDesk) -> None:
    rosters.revoke(ANNA)
    _replaced(rosters)
    rosters.revoke(BERT)
    assert code_of(_pushed(rosters)[2]) == "handover_stale"
    assert rosters.mesh.revoked() == {name: {ANNA, BERT} for name in ALL}
    assert _pushed(rosters, "--lose", _revoker(rosters))[0] == 0
    assert rosters.mesh.revoked() == {name: {ANNA} for name in ALL}
    (row,) = (row for row in rosters.ls() if row["target"] == f"subject:{BERT}")
    assert (row["held"], row["counts"]) == ("counts no more", False)


def test_a_stream_begins_anew_if_that_is_asked_for(rosters: RosterDesk) -> None:
    rosters.revoke(ANNA)
    handed = _replaced(rosters, "--handover", f"{_revoker(rosters)}=nothing")
    assert handed[_revoker(rosters)] == Handover(sequence=0, head="")
    assert code_of(_pushed(rosters)[2]) == "handover_stale"
    assert _pushed(rosters, "--lose", _revoker(rosters))[0] == 0
    assert rosters.mesh.revoked() == {name: set() for name in ALL}
    status, shown, err = rosters.revoke(BERT, "--watch")
    assert (status, shown["sequence"]) == (0, 1), err


def test_a_stream_is_handed_over_behind_the_statement_that_is_named(rosters: RosterDesk) -> None:
    first, _ = rosters.revoke(ANNA)[1], rosters.revoke(BERT)
    handed = _replaced(rosters, "--handover", f"{_revoker(rosters)}={first['id'][:10]}")
    assert handed[_revoker(rosters)] == Handover(sequence=1, head=first["id"])


@pytest.mark.parametrize(
    ("given", "code"), [("roads/a=nothing", "usage"), ("halt/payments=abcdef", "not_found"), ("halt/payments", "usage")]
)
def test_a_handover_that_nobody_could_mean_is_refused(rosters: RosterDesk, given: str, code: str) -> None:
    assert code_of(rosters.plan("set", "--handover", given)[2]) == code


def test_a_stream_is_not_handed_over_twice_in_one_roster(rosters: RosterDesk) -> None:
    twice = ("--handover", "resolve=nothing", "--handover", "resolve=nothing")
    assert code_of(rosters.plan("set", *twice)[2]) == "usage"


def test_a_stream_of_two_histories_is_resolved_before_it_is_handed_over(rosters: RosterDesk) -> None:
    one, other = (rosters.lab.revocation(rosters.lab.revoker, 1, target) for target in (ANNA, BERT))
    for name in ALL:
        rosters.offer(one, other, to=name)
    assert code_of(rosters.plan("set", "--add-key", f"revoker={secret('third revoker').public}")[2]) == "stream_forked"
    handed = _replaced(rosters, "--handover", f"{_revoker(rosters)}={one.id[:12]}")
    assert handed[_revoker(rosters)] == Handover(sequence=1, head=one.id), "which ends the fork as well"
    assert code_of(_pushed(rosters)[2]) == "handover_stale"
    assert _pushed(rosters, "--lose", _revoker(rosters))[0] == 0


@pytest.mark.parametrize("named", [False, True])
def test_what_fewer_than_k_members_hold_is_not_waited_for(rosters: RosterDesk, *, named: bool) -> None:
    """One that lies could show it to whoever plans, and to nobody else."""
    first = rosters.revoke(ANNA)[1]
    rosters.mesh.gossips = False
    second = rosters.lab.revocation(rosters.lab.revoker, 2, BERT, first["id"])
    rosters.offer(second, to="us-1")
    handed = _replaced(rosters, *(["--handover", f"{_revoker(rosters)}={second.id[:12]}"] if named else []))
    assert handed[_revoker(rosters)] == (Handover(sequence=2, head=second.id) if named else Handover(sequence=1, head=first["id"]))
    assert code_of(_pushed(rosters)[2]) == ("not_acknowledged" if named else "handover_stale")


def test_with_too_few_members_heard_nobody_says_where_a_stream_goes_on(rosters: RosterDesk) -> None:
    rosters.revoke(ANNA)
    rosters.losing(Sync, ALL[:2])
    third = rosters.key_file("third revoker")
    assert code_of(rosters.plan("set", "--add-key", f"revoker={third}")[2]) == "unreachable"


def test_who_said_two_things_since_a_roster_named_it_is_proved_with_the_rosters_that_lead_there(rosters: RosterDesk) -> None:
    rosters.revoke(ANNA)
    _replaced(rosters)
    assert _pushed(rosters)[0] == 0
    third, since = secret("third revoker"), rosters.known.rosters.ids[1]
    one, other = (rosters.lab.revocation(third, 1, target, since=since) for target in (BERT, CARL))
    for name in ALL:
        rosters.offer(one, other, to=name)
    stream = in_reign(stream_of(third.public), since)
    proof, pin = rosters.folder / "proof.json", ("--trust", str(rosters.roster))
    assert rosters.run("fraud", "show", stream, "-o", str(proof))[0] == 0
    status, out, _ = rosters.run("-o", "json", "fraud", "verify", str(proof), *pin)
    assert (status, json.loads(out)[0]["code"]) == (5, "wrong_epoch"), "by the first roster alone nobody can tell"
    status, out, err = rosters.run("-o", "json", "fraud", "verify", str(proof), *pin, "--roster", "roster-2.json")
    assert (status, json.loads(out)[0]["signers"]) == (0, [third.public]), err


def test_a_draft_after_a_draft_hands_on_what_that_one_did(rosters: RosterDesk) -> None:
    rosters.revoke(ANNA)
    handed = _replaced(rosters)
    fourth = rosters.key_file("fourth revoker")
    made = rosters.made("set", "--add-key", f"revoker={fourth}", "--from", "roster-2.json")
    assert made.claims.handovers[_revoker(rosters)] == handed[_revoker(rosters)]


def test_a_revoker_that_comes_again_goes_on_behind_what_it_said(rosters: RosterDesk) -> None:
    """Else all that it ever denied would be allowed again."""
    said = rosters.revoke(ANNA, key=rosters.second)[1]
    _replaced(rosters)
    assert _pushed(rosters)[0] == 0
    made = rosters.made("set", "--add-key", f"revoker={rosters.second}")
    assert made.claims.handovers[stream_of(rosters.lab.second.public)] == Handover(sequence=1, head=said["id"])


def test_policy_is_made_by_the_signers_of_the_newest_roster(rosters: RosterDesk) -> None:
    gone, new = rosters.lab.signers[0].public, rosters.key_file("policy new", use="policy")
    made = rosters.made("set", "--add-key", f"policy/{DOMAIN}={new}", "--drop-key", f"policy/{DOMAIN}={gone[:12]}")
    rosters.seal("roster-2.json", *rosters.roots[:2])
    assert made.claims.handovers[policy_stream(DOMAIN)].sequence == 1
    assert _pushed(rosters)[0] == 0
    streams = json.loads(rosters.run("-o", "json", "streams", "ls")[1])
    states = {row["stream"]: (row["state"], row["length"]) for row in streams}
    assert states[in_reign(policy_stream(DOMAIN), made.id)] == ("one history", 1)


def test_a_stream_that_is_not_handed_over_cannot_be_lost(rosters: RosterDesk) -> None:
    _replaced(rosters)
    assert code_of(_pushed(rosters, "--lose", "revoke/nobody")[2]) == "usage"
