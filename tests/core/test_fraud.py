"""A proof against a member verifies by rosters alone, for two histories and for nothing else, and never names who was honest."""

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.fold import extend, put_in_force, restore
from mesh.core.law.fraud import Fraud, accuse, judge_fraud, read_fraud
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import covers
from mesh.core.law.proof import Caught, fraud_stream
from mesh.core.law.proofs import admit_proof, encode_proof
from mesh.core.law.roster import Member, Roster, frauds_max
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import is_known, link_of, read_law
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosignature_line, cosignature_message, log_line, witness_name
from mesh.core.log.merkle import EMPTY_ROOT, Frontier, consistency_beyond, consistency_path, leaf_hash, tree_get
from mesh.core.log.note import Line, parse_note
from mesh.limits import FRAUD_BYTES_MAX, FRAUD_NOTE_CHARS_MAX
from tests.core.kit import refuses
from tests.support.epochs import successor
from tests.support.factory import MESH, Lab, secret

LAB = Lab()
ROSTERS = LAB.governance.rosters
LIAR = LAB.roster.member("us-1")
ORIGIN = LAB.roster.origin(LIAR)
USES = ("log", "witness", "attest")
LEAVES = tuple(leaf_hash(f"record {number}".encode()) for number in range(40))
OTHER = tuple(leaf_hash(f"record {number} as told to others".encode()) for number in range(40))
"""Another history, from the first record on."""


def _root(leaves: Sequence[bytes], size: int) -> bytes:
    return Frontier.empty().extend(leaves[:size]).root()


def _checkpoint(size: int, leaves: Sequence[bytes] = LEAVES, origin: str = ORIGIN) -> Checkpoint:
    return Checkpoint(origin, size, _root(leaves, size))


def _key(use: str, member: Member = LIAR) -> SecretKey:
    return LAB.keys[member.name][use]


def _line(use: str, checkpoint: Checkpoint, *, time_s: int = 1_000, member: Member = LIAR, key: SecretKey | None = None) -> Line:
    key, text = key or _key(use, member), checkpoint.to_text()
    if use == "log":
        return log_line(LAB.roster.origin(member), key.public, key.sign(text))
    name = {"witness": witness_name, "attest": attest_name}[use](MESH, member.name)
    return cosignature_line(name, key.public, time_s, key.sign(cosignature_message(text, time_s)))


def _half(use: str, checkpoint: Checkpoint, **how: Any) -> tuple[bytes, Line]:
    return checkpoint.to_text(), _line(use, checkpoint, **how)


def _same_size(use: str = "log", size: int = 7) -> Statement[Fraud]:
    halves = [_half(use, _checkpoint(size)), _half(use, _checkpoint(size, OTHER))]
    return accuse(MESH, _key(use).public, halves)


def _prefix(use: str = "log", small: int = 5, large: int = 9) -> Statement[Fraud]:
    """At the larger size of one history, at the smaller of another."""
    halves = [_half(use, _checkpoint(small, OTHER)), _half(use, _checkpoint(large))]
    path = consistency_path(tree_get(LEAVES[:large]), small, large)
    return accuse(MESH, _key(use).public, halves, root=_root(LEAVES, small), path=path)


def _changed(proof: Statement[Fraud], **changes: Any) -> Statement[Fraud]:
    return read_fraud(canonical.encode(msgspec.structs.replace(proof.claims, **changes)))


def _swapped(proof: Statement[Fraud]) -> Statement[Fraud]:
    return _changed(proof, first=proof.claims.second, second=proof.claims.first)


# ------------------------------------------------------------------------------------------------------------ what is proved


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(("make", "sizes"), [(_same_size, (7, 7)), (_prefix, (5, 9))])
def test_two_histories_by_one_key_are_proved_to_whoever_holds_the_roster(
    use: str, make: Callable[[str], Statement[Fraud]], sizes: tuple[int, int]
) -> None:
    proof = make(use)
    caught = judge_fraud(read_fraud(encode_proof(proof)), ROSTERS)
    kind = "witness-conflict" if use != "log" else "same-size" if sizes[0] == sizes[1] else "prefix"
    assert (caught.member, caught.use, caught.kind, caught.sizes) == (LIAR.name, use, kind, sizes)
    assert (caught.key, caught.origin, caught.epoch, caught.id) == (_key(use).public, ORIGIN, 1, proof.id)
    assert len(encode_proof(proof)) <= FRAUD_BYTES_MAX


@given(st.data())
def test_a_prefix_proof_can_be_made_of_any_two_sizes_also_without_the_tree(data: st.DataObject) -> None:
    small = data.draw(st.integers(1, 38))
    large = data.draw(st.integers(small + 1, 39))
    assert judge_fraud(_prefix(small=small, large=large), ROSTERS).kind == "prefix"
    held = data.draw(st.integers(0, small))
    frontier = Frontier.empty().extend(LEAVES[:held])
    path = consistency_beyond(frontier, LEAVES[held:large], small, large)
    assert path == consistency_path(tree_get(LEAVES[:large]), small, large)


def test_nobody_holds_a_tree_of_less_than_is_held() -> None:
    with refuses("not_found"):
        consistency_beyond(Frontier.empty().extend(LEAVES[:5]), LEAVES[5:9], 4, 9)
    with refuses("not_found"):
        consistency_beyond(Frontier.empty().extend(LEAVES[:5]), LEAVES[5:9], 6, 10)


def test_lines_on_another_members_log_name_who_signed_them() -> None:
    origin = LAB.roster.origin(LAB.roster.member("eu-1"))
    halves = [_half("witness", _checkpoint(7, leaves, origin)) for leaves in (LEAVES, OTHER)]
    caught = judge_fraud(accuse(MESH, LIAR.witness_key, halves), ROSTERS)
    assert (caught.member, caught.origin) == ("us-1", origin)


# ---------------------------------------------------------------------------------------------------------- what proves nothing


def _forged(proof: Statement[Fraud]) -> Statement[Fraud]:
    note = parse_note(proof.claims.second.encode())
    line = note.lines[0]
    bad = msgspec.structs.replace(line, signature=line.signature[:-1] + bytes([line.signature[-1] ^ 1]))
    return _changed(proof, second=msgspec.structs.replace(note, lines=(bad,)).encode().decode())


def _two_lines(proof: Statement[Fraud]) -> Statement[Fraud]:
    note = parse_note(proof.claims.second.encode())
    more = _line("attest", Checkpoint.from_text(note.text), member=LAB.roster.member("eu-1"))
    return _changed(proof, second=msgspec.structs.replace(note, lines=(*note.lines, more)).encode().decode())


def _by(key: SecretKey, use: str = "log") -> Statement[Fraud]:
    return accuse(MESH, key.public, [_half(use, _checkpoint(7, leaves), key=key) for leaves in (LEAVES, OTHER)])


def _of(origins: Sequence[str], use: str) -> Statement[Fraud]:
    halves = [_half(use, _checkpoint(7, leaves, origin)) for leaves, origin in zip((LEAVES, OTHER), origins, strict=True)]
    return accuse(MESH, _key(use).public, halves)


def _recycled() -> Statement[Fraud]:
    """One half by the key of an epoch before, under the same name."""
    halves = [_half("witness", _checkpoint(7)), _half("witness", _checkpoint(7, OTHER), key=secret("us-1's witness, before"))]
    return accuse(MESH, LIAR.witness_key, halves)


@pytest.mark.parametrize(
    ("proof", "codes"),
    [
        (_forged(_same_size()), {"bad_signature"}),
        (_forged(_prefix("attest")), {"bad_signature"}),
        (_two_lines(_same_size()), {"malformed"}),
        (_swapped(_same_size()), {"non_canonical"}),
        (_swapped(_prefix()), {"non_canonical"}),
        (_changed(_same_size(), mesh="another"), {"wrong_mesh"}),
        (_of(["another/us-1/e1"] * 2, "witness"), {"wrong_mesh"}),
        (_of([f"{MESH}/us-1/e2"] * 2, "log"), {"bad_checkpoint"}),
        (_of([ORIGIN, f"{MESH}/eu-1/e1"], "attest"), {"no_conflict", "non_canonical"}),
        (_by(secret("an external witness"), "witness"), {"unknown_member"}),
        (_by(_key("decision")), {"unknown_member"}),
        (_by(_key("log", LAB.roster.member("eu-1"))), {"bad_signature"}),
        (_changed(_same_size(), key=LIAR.witness_key), {"bad_signature"}),
        (_recycled(), {"bad_signature"}),
        (_changed(_prefix(), root=""), {"no_conflict"}),
        (_changed(_prefix(), root=_root(OTHER, 5).hex()), {"no_conflict"}),
        (_changed(_prefix(), root=_root(LEAVES, 6).hex()), {"bad_proof"}),
        (_changed(_prefix(), path=[]), {"bad_proof"}),
        (_changed(_prefix(), path=[*_prefix().claims.path, "00" * 32]), {"bad_proof"}),
        (_changed(_same_size(), root="00" * 32), {"malformed"}),
        (_changed(_same_size(), path=["00" * 32]), {"malformed"}),
        (_changed(_same_size(), second=_same_size().claims.first), {"no_conflict"}),
    ],
)
def test_what_is_forged_recycled_or_no_contradiction_is_refused_by_a_stable_code(proof: Statement[Fraud], codes: set[str]) -> None:
    with refuses(*codes):
        judge_fraud(proof, ROSTERS)
    assert extend(LAB.governance, [proof]).governance.frozen == frozenset()


def test_the_same_tree_signed_again_under_another_time_is_no_conflict() -> None:
    for sizes in [(7, 7), (5, 9)]:
        halves = [_half("witness", _checkpoint(size), time_s=time_s) for size, time_s in zip(sizes, (2_000, 1_000), strict=True)]
        with refuses("no_conflict"):
            judge_fraud(accuse(MESH, LIAR.witness_key, halves), ROSTERS)


def test_a_smaller_size_at_a_later_time_is_no_conflict() -> None:
    halves = [_half("attest", _checkpoint(9), time_s=1_000), _half("attest", _checkpoint(5), time_s=9_000)]
    path = consistency_path(tree_get(LEAVES[:9]), 5, 9)
    with refuses("no_conflict"):
        judge_fraud(accuse(MESH, LIAR.attest_key, halves, root=_root(LEAVES, 5), path=path), ROSTERS)


def test_a_line_of_somebody_on_the_envelope_is_refused() -> None:
    proof, key = _same_size(), secret("an accuser")
    data = envelope.assemble(envelope.kind_of(Fraud).payload_type, proof.payload, {key.public: key.sign(proof.message)})
    signed = read_law(data)
    with refuses("bad_signature"):
        admit_proof(signed, ROSTERS)  # type: ignore[arg-type]  # it is one
    assert extend(LAB.governance, [signed]).governance.frozen == frozenset()
    assert extend(extend(LAB.governance, [signed]).governance, [proof]).governance.frozen == {"us-1"}, "nobody can spoil it for others"


def test_a_note_longer_than_any_is_refused_and_one_at_the_limit_is_read() -> None:
    value = json.loads(encode_proof(_same_size()))
    for spare, codes in ((0, ()), (1, ("malformed",))):
        value["first"] = "a" * (FRAUD_NOTE_CHARS_MAX + spare)
        data = json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
        if codes:
            with refuses(*codes):
                read_fraud(data)
        else:
            assert read_fraud(data).claims.first == value["first"]


def test_a_file_longer_than_any_is_refused() -> None:
    with refuses("too_large"):
        read_fraud(b" " * (FRAUD_BYTES_MAX + 1))
    longest = _prefix().claims
    longest = msgspec.structs.replace(
        longest, path=["ab" * 32] * 63, first="\u2014" * FRAUD_NOTE_CHARS_MAX, second="\u2014" * (FRAUD_NOTE_CHARS_MAX // 4), mesh="m" * 32
    )
    with refuses("too_large", "malformed"):
        read_fraud(canonical.encode(msgspec.structs.replace(longest, second="\u2014" * FRAUD_NOTE_CHARS_MAX)))


# --------------------------------------------------------------------------------------------------- nobody honest is ever named


@given(st.integers(0, 10_000))
def test_whatever_an_honest_key_signs_no_two_of_it_are_a_proof(seed: int) -> None:
    """Sizes of one history in any order, again and again, under times that go back: every pair, with every path that there is."""
    random = Random(seed)
    for use in USES:
        sizes = [random.randrange(40) for _ in range(4)]
        halves = [_half(use, _checkpoint(size), time_s=random.randrange(1, 5_000)) for size in sizes]
        one, other = random.sample(halves, 2)
        small, large = sorted(Checkpoint.from_text(text).size for text, _ in (one, other))
        roots = [b"", EMPTY_ROOT, _root(OTHER, small), _root(LEAVES, small), _root(LEAVES, large)]
        for leaves in (LEAVES, OTHER):
            path = consistency_path(tree_get(leaves[:large]), small, large) if 0 < small < large else ()
            for root in roots:
                with refuses("no_conflict", "bad_proof", "malformed"):
                    judge_fraud(accuse(MESH, _key(use).public, [one, other], root=root, path=path), ROSTERS)


def test_two_keys_that_a_member_had_one_after_the_other_are_two_signers() -> None:
    halves = [_half("attest", _checkpoint(7)), _half("attest", _checkpoint(7, OTHER), key=secret("us-1's next attest key"))]
    for key in (LIAR.attest_key, secret("us-1's next attest key").public):
        with refuses("bad_signature", "unknown_member"):
            judge_fraud(accuse(MESH, key, halves), ROSTERS)


# ------------------------------------------------------------------------------------------------------------------ what follows


def _frozen(*proofs: Statement[Fraud]) -> Governance:
    return extend(LAB.governance, proofs).governance


def test_whoever_is_caught_is_frozen_whatever_the_order_and_however_often() -> None:
    eu = LAB.roster.member("eu-1")
    another = accuse(MESH, eu.attest_key, [_half("attest", _checkpoint(7, leaves), member=eu) for leaves in (LEAVES, OTHER)])
    proofs = [_same_size(), _prefix(), _same_size("witness"), another]
    states = []
    for seed in range(20):
        order = Random(seed).choices(proofs, k=12) + proofs
        governance = LAB.governance
        for proof in order:
            governance = extend(governance, [proof]).governance
        states.append(governance)
    assert {state.digest for state in states} == {_frozen(*proofs).digest}
    assert {state.frozen for state in states} == {frozenset({"us-1", "eu-1"})}


def test_one_proof_a_key_is_kept_however_many_a_liar_makes() -> None:
    governance, kept = LAB.governance, 0
    for size in range(1, 30):
        taken = extend(governance, [_same_size(size=size)])
        governance, kept = taken.governance, kept + len(taken.new)
        assert not taken.refused
    assert kept == 1
    assert governance.digest == _frozen(_prefix()).digest, "whoever holds another proof against the same key agrees"


def test_a_proof_is_waited_for_like_every_denial() -> None:
    """Who vouches by a heartbeat that names a proof vouches only for whoever holds one against that key."""
    theirs = list(_frozen(_same_size()).frontier)
    assert not covers(list(LAB.governance.frontier), theirs)
    assert covers(list(_frozen(_prefix()).frontier), theirs)


def test_a_restart_finds_the_proofs_again() -> None:
    proof = _same_size()
    again = restore(LAB.governance, [read_law(proof.envelope)])
    assert (again.frozen, again.digest) == (frozenset({"us-1"}), _frozen(proof).digest)


def test_a_frontier_names_no_more_proofs_than_f_liars_can_make() -> None:
    proofs = [
        accuse(
            MESH,
            _key(use, member).public,
            [_half(use, _checkpoint(7, leaves, LAB.roster.origin(member)), member=member) for leaves in (LEAVES, OTHER)],
        )
        for member in LAB.roster.members
        for use in USES
    ]
    everybody = _frozen(*proofs)
    named = [head.stream for head in everybody.frontier if head.stream.startswith("fraud/")]
    assert len(named) == frauds_max(LAB.roster) == 3
    assert everybody.frozen == {member.name for member in LAB.roster.members}
    few = _frozen(*proofs[:2])
    assert covers(list(everybody.frontier), list(few.frontier), everybody.whole), "what is held and not named is not waited for"


def _rotated(**keys: str) -> Governance:
    """The next roster in force, in which one member has other keys; of five, so that this is one step."""
    wide = Lab(members=5, k=4)
    members = [msgspec.structs.replace(member, **keys) if member.name == LIAR.name else member for member in wide.roster.members]
    taken = extend(wide.governance, [successor(envelope.read(Roster, wide.roster_envelope), members=members), _same_size("witness")])
    assert not taken.refused
    assert taken.governance.frozen == {LIAR.name}
    return put_in_force(taken.governance, 2)


def test_other_keys_end_a_freeze_and_the_same_key_does_not() -> None:
    fresh = _rotated(witness_key=secret("new").public)
    assert fresh.roster.epoch == 2
    assert fresh.frozen == frozenset()
    assert fraud_stream(LIAR.witness_key) not in [head.stream for head in fresh.frontier], "nobody waits for what is over"
    assert _rotated(attest_key=secret("new").public).frozen == {"us-1"}
    assert fresh.under(1).frozen == {"us-1"}


def test_only_streams_of_keys_that_a_roster_names_are_asked_for() -> None:
    assert is_known(fraud_stream(LIAR.log_key), ROSTERS)
    assert not is_known(fraud_stream(LIAR.decision_key), ROSTERS)
    assert not is_known(fraud_stream(secret("nobody").public), ROSTERS)
    name, link = link_of(_same_size())
    assert (name, link.sequence, link.previous, link.id) == (fraud_stream(LIAR.log_key), 1, "", _prefix().claims.place)


def test_who_is_caught_is_said_in_one_line() -> None:
    caught: Caught = judge_fraud(_prefix(), ROSTERS)
    assert str(caught) == f"us-1's log key signed two histories of {ORIGIN}: prefix at 5 and 9"
    assert isinstance(ROSTERS, Rosters)
