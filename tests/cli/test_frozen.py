"""A member that is caught is listed, shown, judged by anybody, and named wherever people look, with the command that ends it."""

import json
from pathlib import Path

from mesh.core.bytes.envelope import Statement
from mesh.core.law.fraud import Fraud
from mesh.core.law.proofs import encode_proof
from mesh.core.messages import Offer
from tests.cli.lawmesh import Desk, code_of
from tests.support.factory import secret
from tests.support.frauds import two_roots
from tests.support.refused import Refused

LIAR = "us-1"
ALL = ("eu-1", "us-1", "ap-1", "sa-1")


def _caught(desk: Desk, *holders: str) -> Statement[Fraud]:
    proof = two_roots(desk.lab.roster, LIAR, desk.lab.keys[LIAR]["log"])
    for name in holders or ALL:
        desk.offer(proof, to=name)
    return proof


def _verify(desk: Desk, file: Path) -> tuple[int, list[dict[str, object]], str]:
    roster = desk.folder / "roster.json"
    roster.write_bytes(desk.lab.roster_envelope)
    status, out, err = desk.run("-o", "json", "fraud", "verify", str(file), "--trust", str(roster))
    return status, json.loads(out) if out else [], err


def test_a_caught_member_is_listed_with_who_holds_the_proof_and_the_command_that_ends_it(desk: Desk) -> None:
    proof = _caught(desk, "eu-1", "ap-1")
    status, out, err = desk.run("-o", "json", "fraud", "ls")
    (row,) = json.loads(out)
    assert status == 0
    assert (row["kind"], row["member"], row["use"], row["state"], row["id"]) == ("same-size", LIAR, "log", "frozen", proof.id)
    assert (row["held"], row["held_by"], row["numbers"]) == ("2 of 4", ["eu-1", "ap-1"], [3, 3])
    assert f"mesh roster remove {LIAR}" in err


def test_a_file_is_written_for_a_member_by_its_name_and_proves_it_to_whoever_has_the_roster(desk: Desk) -> None:
    proof, file = _caught(desk), desk.folder / "proof.json"
    for name in (LIAR, "1", f"fraud/{proof.claims.key}", desk.lab.roster.origin(desk.lab.roster.member(LIAR))):
        status, _, err = desk.run("fraud", "show", name, "-o", str(file))
        assert status == 0, err
        assert file.read_bytes() == encode_proof(proof)
        assert f"mesh roster remove {LIAR}" in err
    status, (verdict,), _ = _verify(desk, file)
    assert (status, verdict["verdict"], verdict["member"], verdict["kind"]) == (0, "PROVED", LIAR, "same-size")
    status, _, err = desk.run("-o", "json", "fraud", "show", "ap-1")
    assert (status, code_of(err)) == (3, "not_found")


def test_every_kind_goes_through_one_door_and_what_is_forged_ends_with_five(desk: Desk) -> None:
    stranger = two_roots(desk.lab.roster, LIAR, secret("nobody"))
    file = desk.folder / "forged.json"
    file.write_bytes(encode_proof(stranger))
    status, (verdict,), _ = _verify(desk, file)
    assert (status, verdict["verdict"], verdict["code"]) == (5, "FORGED", "unknown_member")
    file.write_bytes(encode_proof(stranger) + b"\n")
    status, (verdict,), _ = _verify(desk, file)
    assert (status, verdict["verdict"]) == (3, "UNREADABLE")


def test_a_decision_that_others_find_wrong_is_listed_shown_and_judged_with_the_checks_that_failed(desk: Desk) -> None:
    wrong, file = Refused(desk.lab, LIAR), desk.folder / "proof.json"
    proof = wrong.proof([wrong.by("eu-1"), wrong.by("ap-1", code="record_invalid")])
    for name in ALL:
        desk.offer(proof, to=name)
    status, out, err = desk.run("-o", "json", "fraud", "ls")
    (row,) = json.loads(out)
    assert (status, row["kind"], row["member"], row["state"], row["numbers"]) == (0, "unlawful-decision", LIAR, "frozen", [wrong.index])
    assert (row["codes"], row["members"], row["leaf"]) == (["record_invalid", "replay_mismatch"], ["ap-1", "eu-1"], wrong.leaf)
    assert f"mesh roster remove {LIAR}" in err
    status, _, err = desk.run("fraud", "show", LIAR, "-o", str(file))
    assert (status, file.read_bytes()) == (0, encode_proof(proof))
    assert "the check that failed: record_invalid, replay_mismatch" in err
    status, (verdict,), _ = _verify(desk, file)
    assert (status, verdict["verdict"], verdict["member"], verdict["id"]) == (0, "PROVED", LIAR, proof.id)
    for few in ([], [wrong.by("eu-1")]):
        file.write_bytes(encode_proof(wrong.proof(few)))
        status, (verdict,), _ = _verify(desk, file)
        assert (status, verdict["verdict"], verdict["code"]) == (2, "NOTHING PROVED", "no_conflict")
    file.write_bytes(encode_proof(wrong.proof([wrong.by("eu-1"), wrong.by("sa-1", key=secret("nobody"))])))
    status, (verdict,), _ = _verify(desk, file)
    assert (status, verdict["verdict"], verdict["code"]) == (5, "FORGED", "bad_signature")


def test_status_and_peers_name_a_frozen_member(desk: Desk) -> None:
    _caught(desk)
    _, out, err = desk.run("-o", "json", "status")
    assert {row["node"]: row["state"] for row in json.loads(out)}[LIAR] == "frozen"
    assert {name for row in json.loads(out) for name in row["frozen"]} == {LIAR}
    assert f"{LIAR} is frozen, say {', '.join(ALL)}" in err
    assert f"mesh roster remove {LIAR}" in err
    _, out, err = desk.run("-o", "json", "peer", "ls")
    states = {row["node"]: row["state"] for row in json.loads(out)}
    assert (states[LIAR], "frozen" in {states[name] for name in ALL if name != LIAR}) == ("frozen", False)
    assert f"mesh roster remove {LIAR}" in err


def test_a_proof_is_pushed_to_every_member_which_then_sign_that_they_hold_it_and_what_proves_nothing_is_offered_to_nobody(
    desk: Desk,
) -> None:
    wrong, file = Refused(desk.lab, LIAR), desk.folder / "proof.json"
    file.write_bytes(encode_proof(wrong.proof([wrong.by("eu-1")])))
    status, _, err = desk.run("-o", "json", "fraud", "push", str(file))
    assert (status, code_of(err)) == (2, "no_conflict")
    assert all(not node.state.governance.frozen for node in desk.mesh.nodes.values())
    for proof in (two_roots(desk.lab.roster, LIAR, desk.lab.keys[LIAR]["log"]), wrong.proof()):  # the second is held already
        file.write_bytes(encode_proof(proof))
        status, out, err = desk.run("-o", "json", "fraud", "push", str(file))
        (row,) = json.loads(out)
        assert (status, row["member"], row["id"]) == (0, LIAR, proof.id), err
        assert len(row["held_by"]) >= desk.lab.roster.k
    assert {frozenset(node.state.governance.frozen) for node in desk.mesh.nodes.values()} == {frozenset({LIAR})}


def test_a_proof_that_too_few_take_is_not_acknowledged(desk: Desk) -> None:
    file = desk.folder / "proof.json"
    file.write_bytes(encode_proof(two_roots(desk.lab.roster, LIAR, desk.lab.keys[LIAR]["log"])))
    desk.losing(Offer, ALL)
    status, _, err = desk.run("-o", "json", "fraud", "push", str(file), "--wait", "0.3")
    assert (status, code_of(err)) == (4, "not_acknowledged")
