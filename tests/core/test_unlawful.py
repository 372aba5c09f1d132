"""f + 1 members who refuse one record that its owner signed are a proof by rosters alone; nothing less is, whoever makes it."""

from collections.abc import Callable, Sequence
from itertools import combinations
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import extend, put_in_force, restore
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import covers
from mesh.core.law.proofs import admit_proof, encode_proof, judge_proof, read_proof
from mesh.core.law.roster import Roster
from mesh.core.law.travel import is_known, read_law
from mesh.core.law.unlawful import Unlawful, judge_unlawful, read_unlawful, unlawful_of
from mesh.core.log.checkpoint import log_line
from mesh.core.log.note import Note, parse_note
from mesh.limits import MEMBERS_MAX, UNLAWFUL_BYTES_MAX
from tests.core.kit import refuses
from tests.support.epochs import successor
from tests.support.factory import Lab, secret, sign
from tests.support.frauds import two_roots
from tests.support.refused import Refused

LAB = Lab()
ROSTERS = LAB.governance.rosters
WRONG = Refused(LAB)
LIAR = "us-1"
STRANGER = secret("a stranger")
OTHERS = ("ap-1", "eu-1", "sa-1")


def _changed(**changes: Any) -> Statement[Unlawful]:
    return read_unlawful(canonical.encode(msgspec.structs.replace(WRONG.proof().claims, **changes)))


def _with(refusals: Sequence[bytes]) -> Statement[Unlawful]:
    """As they stand, in whatever order."""
    return _changed(refusals=[msgspec.Raw(data) for data in refusals])


# ------------------------------------------------------------------------------------------------------------ what is proved


def test_f_and_one_refusals_of_what_a_log_key_signed_are_proved_to_whoever_holds_the_roster() -> None:
    assert LAB.roster.f == 1
    proof = WRONG.proof([WRONG.by("sa-1", code="record_invalid"), WRONG.by("ap-1")])
    caught = judge_proof(read_proof(encode_proof(proof)), ROSTERS)
    assert (caught.kind, caught.member, caught.use, caught.key) == ("unlawful-decision", LIAR, "log", WRONG.key.public)
    assert (caught.origin, caught.sizes, caught.epoch, caught.id) == (WRONG.origin, (9,), 1, proof.id)
    assert caught.wrong is not None
    assert (caught.wrong.index, caught.wrong.leaf, caught.wrong.members) == (4, WRONG.leaf, ("ap-1", "sa-1"))
    assert caught.wrong.codes == ("record_invalid", "replay_mismatch")
    said = "us-1's log key signed record 4 of lab.example/us-1/e1: record_invalid, replay_mismatch, say ap-1, sa-1: unlawful-decision"
    assert str(caught).replace(WRONG.origin, "lab.example/us-1/e1") == said


@given(st.data())
def test_any_f_and_one_others_are_enough_for_a_record_anywhere_and_nobody_else_is_needed(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    wrong = Refused(LAB, index=data.draw(st.integers(0, size - 1)), size=size)
    names = data.draw(st.sampled_from([*combinations(OTHERS, 2), OTHERS]))
    caught = judge_proof(wrong.proof([wrong.by(name) for name in reversed(names)]), ROSTERS)
    assert caught.wrong is not None
    assert caught.wrong.members == names


def test_lines_of_others_on_the_note_are_left_out_of_the_proof() -> None:
    note = parse_note(WRONG.note())
    key = LAB.keys["eu-1"]["log"]
    more = log_line(LAB.roster.origin(LAB.roster.member("eu-1")), key.public, key.sign(note.text))
    both = Note(note.text, (*note.lines, more)).encode()
    refusals = [WRONG.by(name) for name in OTHERS[:2]]
    proof = unlawful_of(LAB.roster.mesh, WRONG.key.public, both, WRONG.index, WRONG.leaf, WRONG.path, refusals)
    assert proof.id == WRONG.proof().id


def test_the_largest_proof_that_there_can_be_is_readable() -> None:
    largest = (1 << 53) - 1
    longest = WRONG.claims("m" * 32, mesh="e" * 32, origin="o" * 160, index=largest, at_ms=largest, code="engine_unavailable")
    refusal = sign(longest, STRANGER)
    most = MEMBERS_MAX // 3 + 1  # 2k > n + f and k <= n - f leave f below a third
    claims = msgspec.structs.replace(
        WRONG.proof().claims, mesh="e" * 32, path=["ab" * 32] * 63, index=largest, refusals=[msgspec.Raw(refusal)] * most
    )
    data = canonical.encode(claims)
    assert UNLAWFUL_BYTES_MAX * 0.7 < len(data) < UNLAWFUL_BYTES_MAX
    assert read_law(read_unlawful(data).envelope).id == read_unlawful(data).id
    with refuses("too_large"):
        read_unlawful(b" " * (UNLAWFUL_BYTES_MAX + 1))


# ---------------------------------------------------------------------------------------------------------- what proves nothing


def _forged() -> Statement[Unlawful]:
    good = envelope.read(type(WRONG.claims("eu-1")), WRONG.by("eu-1"))
    ((key, signature),) = good.signatures.items()
    kind = envelope.kind_of(type(good.claims)).payload_type
    return _with([WRONG.by("ap-1"), envelope.assemble(kind, good.payload, {key: signature[:-1] + bytes([signature[-1] ^ 1])})])


def _two_lines() -> Statement[Unlawful]:
    good = envelope.read(type(WRONG.claims("eu-1")), WRONG.by("eu-1"))
    key = LAB.keys["ap-1"]["decision"]
    kind = envelope.kind_of(type(good.claims)).payload_type
    both = {**good.signatures, key.public: key.sign(good.message)}
    return _with([WRONG.by("ap-1"), envelope.assemble(kind, good.payload, both)])


NOTHING: dict[str, tuple[Callable[[], Statement[Unlawful]], str]] = {
    "nobody": (lambda: _with([]), "no_conflict"),
    "f members": (lambda: _with([WRONG.by("ap-1")]), "no_conflict"),
    "one member twice": (lambda: _with([WRONG.by("ap-1"), WRONG.by("ap-1")]), "non_canonical"),
    "one member twice, at other times": (lambda: _with([WRONG.by("ap-1"), WRONG.by("ap-1", at_ms=9)]), "non_canonical"),
    "another order": (lambda: _with([WRONG.by("eu-1"), WRONG.by("ap-1")]), "non_canonical"),
    "one key under two names": (lambda: _with([WRONG.by("ap-1"), WRONG.by("eu-1", key=LAB.keys["ap-1"]["decision"])]), "bad_signature"),
    "its own word": (lambda: _with([WRONG.by("ap-1"), WRONG.by(LIAR)]), "no_conflict"),
    "another key of a member": (lambda: _with([WRONG.by("ap-1"), WRONG.by("eu-1", key=LAB.keys["eu-1"]["attest"])]), "bad_signature"),
    "a stranger's key": (lambda: _with([WRONG.by("ap-1"), WRONG.by("eu-1", key=STRANGER)]), "bad_signature"),
    "a stranger": (lambda: _with([WRONG.by("ap-1"), WRONG.by("zz-9", key=STRANGER)]), "unknown_member"),
    "a forged line": (_forged, "bad_signature"),
    "two lines on one refusal": (_two_lines, "bad_signature"),
    "who only lacks it": (lambda: _with([WRONG.by("ap-1"), WRONG.by("eu-1", reason="missing", code="body_missing")]), "no_conflict"),
    "who is behind": (lambda: _with([WRONG.by("ap-1", reason="missing", code="policy_unknown"), WRONG.by("eu-1")]), "no_conflict"),
    "another record": (lambda: _with([WRONG.by("ap-1"), WRONG.by("eu-1", index=5)]), "no_conflict"),
    "another leaf there": (lambda: _with([WRONG.by("ap-1"), WRONG.by("eu-1", leaf="ab" * 32)]), "no_conflict"),
    "another log": (lambda: _with([WRONG.by("ap-1"), WRONG.by("eu-1", origin=f"{LAB.roster.mesh}/us-1/e2")]), "no_conflict"),
    "another mesh's refusal": (lambda: _with([WRONG.by("ap-1"), WRONG.by("eu-1", mesh="other")]), "wrong_mesh"),
    "another mesh": (lambda: _changed(mesh="other"), "wrong_mesh"),
    "a key that is no log's": (lambda: _changed(key=LAB.keys[LIAR]["attest"].public), "unknown_member"),
    "a key that is another log's": (lambda: _changed(key=LAB.keys["sa-1"]["log"].public), "bad_signature"),
    "a record it never signed": (lambda: _changed(leaf="ab" * 32), "bad_proof"),
    "a record elsewhere": (lambda: _changed(index=5), "bad_proof"),
    "a record beyond": (lambda: _changed(index=9), "bad_proof"),
    "another path": (lambda: _changed(path=["ab" * 32] * 4), "bad_proof"),
    "no path": (lambda: _changed(path=[]), "bad_proof"),
    "a note by somebody": (lambda: _changed(checkpoint=WRONG.note(STRANGER).decode()), "bad_signature"),
    "a note of nobody": (lambda: _changed(checkpoint=""), "malformed"),
}


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_forged_recycled_doubled_or_too_little_freezes_nobody(name: str) -> None:
    make, code = NOTHING[name]
    proof = make()
    with refuses(code):
        judge_proof(proof, ROSTERS)
    assert extend(LAB.governance, [proof]).governance.frozen == frozenset()


def test_no_f_members_freeze_anybody_whatever_they_sign() -> None:
    """All that one member can sign about a record of its own invention or of an honest log, in every combination of two."""
    for liar in OTHERS:
        key = LAB.keys[liar]["decision"]
        words = [
            WRONG.by(name, key=key, **changes)
            for name in (*OTHERS, LIAR)
            for changes in ({}, {"at_ms": 1}, {"code": "x"}, {"reason": "missing"})
        ]
        for pair in combinations(words, 2):
            with refuses("no_conflict", "non_canonical", "bad_signature"):
                judge_proof(_with(pair), ROSTERS)


def test_a_line_of_somebody_on_the_envelope_is_refused() -> None:
    proof, key = WRONG.proof(), secret("an accuser")
    data = envelope.assemble(envelope.kind_of(Unlawful).payload_type, proof.payload, {key.public: key.sign(proof.message)})
    signed = read_law(data)
    with refuses("bad_signature"):
        admit_proof(signed, ROSTERS)  # type: ignore[arg-type]  # it is one
    assert extend(LAB.governance, [signed]).governance.frozen == frozenset()


# ------------------------------------------------------------------------------------------------------------- other rosters


def _two_epochs(**keys: str) -> tuple[Lab, Any]:
    """Five members; under the next roster us-1 is the same, and eu-1 has these keys."""
    wide = Lab(members=5, k=4)
    members = [msgspec.structs.replace(member, **keys) if member.name == "eu-1" else member for member in wide.roster.members]
    taken = extend(wide.governance, [successor(envelope.read(Roster, wide.roster_envelope), members=members)])
    assert not taken.refused
    return wide, taken.governance


def test_members_of_two_rosters_are_not_added_up() -> None:
    new = secret("eu-1's next decision key")
    lab, held = _two_epochs(decision_key=new.public)
    wrong = Refused(lab)
    both_new = wrong.proof([wrong.by("ap-1"), wrong.by("eu-1", key=new)])
    both_old = wrong.proof([wrong.by("ap-1"), wrong.by("eu-1")])
    assert (judge_unlawful(both_new, held.rosters).epoch, judge_unlawful(both_old, held.rosters).epoch) == (2, 1)
    with refuses("bad_signature"):
        judge_unlawful(both_new, lab.governance.rosters)  # that roster is not known here
    gone = _two_epochs(decision_key=new.public, attest_key=secret("x").public)[1]
    assert judge_unlawful(both_old, gone.rosters).epoch == 1, "whoever holds more rosters believes no less"


def test_a_proof_against_a_key_that_is_no_members_any_more_freezes_nobody() -> None:
    wide = Lab(members=5, k=4)
    wrong = Refused(wide)
    members = [
        msgspec.structs.replace(member, log_key=secret("us-1's next").public, log_epoch=2) if member.name == LIAR else member
        for member in wide.roster.members
    ]
    taken = extend(wide.governance, [successor(envelope.read(Roster, wide.roster_envelope), members=members), wrong.proof()])
    assert not taken.refused
    assert taken.governance.frozen == {LIAR}
    assert put_in_force(taken.governance, 2).frozen == frozenset()


# ------------------------------------------------------------------------------------------------------------------ what follows


def test_it_stands_where_every_proof_against_that_key_stands_and_one_is_enough() -> None:
    history = two_roots(LAB.roster, LIAR, WRONG.key)
    for seed in range(8):
        governance, new = LAB.governance, 0
        proofs: list[Any] = [WRONG.proof(), history, Refused(LAB, index=5).proof()]
        for proof in Random(seed).sample(proofs, 3):
            taken = extend(governance, [proof])
            governance, new = taken.governance, new + len(taken.new)
            assert not taken.refused
        assert (new, governance.frozen) == (1, frozenset({LIAR}))
        assert governance.digest == extend(LAB.governance, [history]).governance.digest
    assert is_known(WRONG.proof().claims.link[0], ROSTERS)


def test_it_is_waited_for_like_every_denial_and_found_again_after_a_restart() -> None:
    held = extend(LAB.governance, [WRONG.proof()]).governance
    assert not covers(list(LAB.governance.frontier), list(held.frontier))
    again = restore(LAB.governance, [read_law(WRONG.proof().envelope)])
    assert (again.frozen, again.digest) == (held.frozen, held.digest)


# ------------------------------------------------------------------------------------------------------- whose word it is


def _replaced(lab: Lab, *names: str) -> Governance:
    """In force where these members have got other keys, one roster after the other."""
    uses = ("log_key", "witness_key", "attest_key", "decision_key")
    last, rosters = envelope.read(Roster, lab.roster_envelope), list[Statement[Roster]]()
    for name in names:
        new = {use: secret(f"{name} new {use}").public for use in uses}
        members = [msgspec.structs.replace(one, log_epoch=2, **new) if one.name == name else one for one in last.claims.members]
        last = successor(last, members=members)
        rosters.append(last)
    taken = extend(lab.governance, rosters)
    assert not taken.refused
    return put_in_force(taken.governance, 1 + len(names))


def test_keys_of_members_that_were_replaced_freeze_nobody() -> None:
    lab = Lab(members=5, k=4)
    now, wrong = _replaced(lab, "eu-1", "ap-1"), Refused(lab)
    for names in (("eu-1", "ap-1"), ("eu-1", "sa-1")):
        taken = extend(now, [wrong.proof([wrong.by(name) for name in names])])
        assert [refusal.code for refusal in taken.refused.values()] == ["unknown_member"]
        assert taken.governance.frozen == frozenset()
    assert extend(now, [wrong.proof([wrong.by(name) for name in ("af-1", "sa-1")])]).governance.frozen == {LIAR}


def test_what_members_said_freezes_nobody_once_they_have_left_and_is_said_again_by_who_is_there() -> None:
    lab = Lab(members=5, k=4)
    wrong = Refused(lab)
    old, new = (wrong.proof([wrong.by(name) for name in names]) for names in (("eu-1", "ap-1"), ("af-1", "sa-1")))
    before = extend(lab.governance, [old]).governance
    assert before.frozen == {LIAR}
    later = _replaced(lab, "eu-1")
    rosters = [item for item in later.rosters.held.values() if item.epoch == 2]
    assert len(rosters) == 1
    second = successor(envelope.read(Roster, lab.roster_envelope), members=rosters[0].members)
    held = put_in_force(extend(before, [second]).governance, 2)
    assert held.frozen == frozenset()
    assert held.frontier == put_in_force(extend(lab.governance, [second]).governance, 2).frontier, "who comes later waits for nothing"
    again = extend(held, [new]).governance
    assert again.frozen == {LIAR}
    stored = put_in_force(restore(lab.governance, [old, second, new]), 2)
    assert stored.frozen == {LIAR}, "also after a restart"
    assert stored.frontier == again.frontier
    assert put_in_force(restore(lab.governance, [new, old, second]), 2).frozen == {LIAR}


def test_who_is_named_by_members_that_have_left_is_frozen_for_two_histories_all_the_same() -> None:
    lab = Lab(members=5, k=4)
    wrong = Refused(lab)
    before = extend(lab.governance, [wrong.proof([wrong.by(name) for name in ("eu-1", "ap-1")])]).governance
    second = successor(
        envelope.read(Roster, lab.roster_envelope),
        members=[
            msgspec.structs.replace(one, decision_key=secret("eu-1 rotated").public) if one.name == "eu-1" else one
            for one in lab.roster.members
        ],
    )
    held = put_in_force(extend(before, [second]).governance, 2)
    assert held.frozen == frozenset()
    assert extend(held, [two_roots(lab.roster, LIAR, lab.keys[LIAR]["log"])]).governance.frozen == {LIAR}
