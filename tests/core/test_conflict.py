"""A proof of a conflict verifies exactly if a node that takes both in calls the stream forked, and never names who was honest."""

import base64
import json
from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.bytes.keys import SecretKey
from mesh.core.law.activation import Activation
from mesh.core.law.conflict import Conflict, clash, conflicts_of, encode_conflict, judge, read_conflict
from mesh.core.law.fold import extend, restore, unsaid
from mesh.core.law.policy import Manifest
from mesh.core.law.revocation import Target
from mesh.core.law.streams import Chain, Fork
from mesh.core.law.succession import Rosters
from mesh.core.law.travel import Said, link_of
from mesh.limits import CONFLICT_BYTES_MAX
from tests.core.kit import refuses
from tests.support.factory import MESH, Lab, secret, sign
from tests.support.halts import halt
from tests.support.resolves import LAB, WORLD, resolve
from tests.support.revocations import REVOKERS, branch, chained, governance, revocation
from tests.support.revocations import WORLD as REVOKED

PLAIN = unsaid(governance(LAB))
ROSTER = PLAIN.rosters
ONE, TWO, THREE = REVOKERS
ALL: Sequence[Statement[Said]] = tuple({item.id: item for item in (*WORLD.values(), *REVOKED)}.values())
STRANGER = secret("a stranger")


def _signed(statement: Statement[Said], *keys: SecretKey) -> Statement[Said]:
    """The same words by other keys."""
    return envelope.read_any((type(statement.claims),), sign(statement.claims, *keys))


def _apart(one: Statement[Said], other: Statement[Said]) -> bool:
    """What the design says, said again: they contradict one another."""
    (stream, low), (other_stream, high) = sorted((link_of(one), link_of(other)), key=lambda place: place[1].sequence)
    if stream != other_stream or low.id == high.id:
        return False
    return low.sequence == high.sequence or (low.sequence + 1 == high.sequence and high.previous != low.id)


# ------------------------------------------------------------------------------------------------------------ yes and no


@given(st.sampled_from(ALL), st.sampled_from(ALL))
def test_two_statements_are_a_conflict_exactly_if_a_node_that_takes_in_both_calls_their_stream_forked(
    one: Statement[Said], other: Statement[Said]
) -> None:
    taken = extend(PLAIN, [one, other])
    assert taken.refused == {}
    forked = any(isinstance(stream, Fork) for stream in taken.governance.streams.values())
    assert forked == _apart(one, other)
    if not forked:
        with refuses("no_conflict"):
            judge(one, other, ROSTER)
        return
    conflict = judge(one, other, ROSTER)
    assert conflict == judge(other, one, ROSTER)
    data = encode_conflict(conflict)
    assert len(data) <= CONFLICT_BYTES_MAX
    assert read_conflict(data, ROSTER) == conflict
    assert encode_conflict(read_conflict(data, ROSTER)) == data
    assert {conflict.first.id, conflict.second.id} == {one.id, other.id}
    assert conflict.stream == link_of(one)[0]


def test_two_manifests_of_one_epoch_are_a_policy_conflict_and_everything_else_a_stream_conflict() -> None:
    one, twin, behind = WORLD["next"], WORLD["twin"], WORLD["behind the twin"]
    conflict = judge(one, twin, ROSTER)
    assert (conflict.kind, conflict.stream, conflict.numbers) == ("policy-conflict", "policy/payments", (2, 2))
    assert conflict.signers == tuple(sorted(key.public for key in LAB.signers[:2]))
    assert judge(one, behind, ROSTER).kind == "stream-conflict", "an epoch that follows another than the one there is"
    for first, second in (("first", "other"), ("begins", "late"), ("choose lifted", "forked resolve"), ("revoked 1", "revoked beside")):
        assert judge(WORLD[first], WORLD[second], ROSTER).kind == "stream-conflict"


def test_the_same_words_signed_again_or_by_others_are_no_conflict() -> None:
    first = halt(None)
    for again in (first, _signed(first, ONE, THREE), _signed(first, ONE, TWO, THREE)):
        assert again.id == first.id
        with refuses("no_conflict"):
            judge(first, again, ROSTER)


def test_statements_that_chain_stand_apart_or_belong_to_two_streams_are_no_conflict() -> None:
    trunk, other = chained(3), chained(3, TWO)
    for one, two in ((trunk[0], trunk[1]), (trunk[0], trunk[2]), (trunk[0], other[0]), (trunk[0], halt(None)), (WORLD["next"], halt(None))):
        with refuses("no_conflict"):
            judge(one, two, ROSTER)


# ----------------------------------------------------------------------------------------------------------------- believed


def test_what_a_stranger_too_few_or_another_mesh_signed_proves_nothing() -> None:
    first, other = halt(None), halt(None, reason="another first")
    for spoilt, code in (
        (_signed(other, STRANGER, TWO), "bad_signature"),
        (_signed(other, ONE, TWO, STRANGER), "bad_signature"),
        (_signed(other), "bad_signature"),
        (_signed(other, ONE), "threshold_not_met"),
        (halt(None, mesh="elsewhere"), "wrong_mesh"),
        (halt(None, domain="elsewhere"), "domain_unknown"),
        (halt(None, sequence=0), "malformed"),
        (halt(None, previous=first.id, reason="a first one behind another"), "malformed"),
        (revocation(1, "", key=STRANGER), "bad_signature"),
    ):
        for one, two in ((first, spoilt), (spoilt, first)):
            with refuses(code):
                judge(one, two, ROSTER)
    key = Target(type="enrolled", value=LAB.issuer.public)
    with refuses("threshold_not_met"):
        judge(chained(1)[0], revocation(1, "", target=key), ROSTER)
    begins = WORLD["begins"].claims
    assert isinstance(begins, Activation)
    twice = msgspec.structs.replace(begins, rings=[begins.rings[0]] * 2)
    with refuses("policy_invalid"):
        judge(WORLD["begins"], envelope.read(Activation, sign(twice, *LAB.signers[:2])), ROSTER)


def test_by_another_roster_nothing_is_proven() -> None:
    other = governance(Lab(members=7, f=2, k=5)).rosters
    assert judge(WORLD["next"], WORLD["twin"], other).signers, "other members, the same signers"
    elsewhere = Rosters.begin(msgspec.structs.replace(PLAIN.roster, mesh="elsewhere"), "00" * 32)
    with refuses("wrong_mesh"):
        judge(WORLD["next"], WORLD["twin"], elsewhere)


PROOF = encode_conflict(judge(WORLD["first"], WORLD["other"], ROSTER))


@given(st.integers(0, len(PROOF) * 8 - 1))
def test_a_file_with_one_bit_flipped_proves_nothing(bit: int) -> None:
    spoilt = bytearray(PROOF)
    spoilt[bit // 8] ^= 1 << (bit % 8)
    with refuses("malformed", "non_canonical", "bad_signature", "wrong_kind", "wrong_mesh", "domain_unknown"):
        read_conflict(bytes(spoilt), ROSTER)


def test_a_file_has_one_spelling() -> None:
    value = json.loads(PROOF)
    assert list(value) == ["first", "format", "second"]
    swapped = {**value, "first": value["second"], "second": value["first"]}
    for spelled, code in (
        (json.dumps(value), "non_canonical"),
        (json.dumps(swapped, separators=(",", ":")), "non_canonical"),
        (json.dumps({**value, "why": ""}, separators=(",", ":")), "malformed"),
        (json.dumps({**value, "format": "govmesh/conflict/v2"}, separators=(",", ":")), "malformed"),
        (json.dumps({**value, "second": value["first"]}, separators=(",", ":")), "no_conflict"),
        (PROOF.decode() + "\n", "non_canonical"),
        (PROOF.decode().replace('"first":{', '"first": {'), "non_canonical"),
        ("", "malformed"),
    ):
        with refuses(code):
            read_conflict(spelled.encode(), ROSTER)
    document = {**value, "second": json.loads(LAB.identity_envelope)}
    with refuses("wrong_kind"):
        read_conflict(json.dumps(document, separators=(",", ":")).encode(), ROSTER)


def test_a_file_of_its_largest_size_is_read_and_one_byte_more_is_not() -> None:
    with refuses("malformed"):
        read_conflict(b"{" * CONFLICT_BYTES_MAX, ROSTER)
    with refuses("too_large"):
        read_conflict(b"{" * (CONFLICT_BYTES_MAX + 1), ROSTER)


# ------------------------------------------------------------------------------------------------------------------- blamed


def test_named_is_who_signed_both_and_nobody_else() -> None:
    one, two, three = (halt(None, *keys, reason=f"{at}") for at, keys in enumerate(((ONE, TWO), (TWO, THREE), (THREE, ONE))))
    assert [judge(first, second, ROSTER).signers for first, second in ((one, two), (two, three), (three, one))] == [
        (TWO.public,),
        (THREE.public,),
        (ONE.public,),
    ]


def test_a_fork_without_a_common_signer_is_proven_and_names_nobody() -> None:
    roster = PLAIN.roster
    alone = msgspec.structs.replace(roster, revoker=msgspec.structs.replace(roster.revoker, threshold=1))
    halves = Rosters.begin(alone, PLAIN.roster_id)
    conflict = judge(halt(None, ONE), halt(None, TWO, reason="another"), halves)
    assert conflict.signers == ()


def test_whose_draft_was_never_completed_and_who_went_on_behind_another_is_not_named() -> None:
    """One of three begins a second statement, lets the others' stand and signs the third, as its tools do; then its draft is completed."""
    first = halt(None)
    begun, stood = halt(first, ONE, TWO, reason="begun"), halt(first, TWO, THREE, reason="stood")
    third = halt(stood, ONE, THREE)
    assert judge(begun, stood, ROSTER).signers == (TWO.public,)
    assert judge(begun, third, ROSTER).signers == ()


def test_who_was_resolved_against_and_signs_that_number_again_is_not_named() -> None:
    first, other = halt(None, ONE, TWO), halt(None, TWO, THREE, reason="another first")
    before, after = halt(first, ONE, TWO), halt(other, ONE, TWO, reason="behind what the root chose")
    assert judge(before, after, ROSTER).signers == ()
    named = {key for conflict in conflicts_of([first, other, before, after]) for key in conflict.signers}
    assert named == {TWO.public}


def test_in_a_revokers_stream_its_key_is_named_and_no_co_signer() -> None:
    key = Target(type="enrolled", value=LAB.issuer.public)
    one, other = (revocation(1, "", ONE, TWO, target=key, reason=reason) for reason in ("one", "other"))
    behind = revocation(2, other.id, ONE, TWO, target=key)
    assert judge(one, other, ROSTER).signers == (ONE.public,)
    assert judge(one, behind, ROSTER).signers == (ONE.public,)


# ------------------------------------------------------------------------------------------------------ all of one stream


@given(st.sets(st.sampled_from(range(len(ALL)))))
def test_of_a_set_there_is_a_proof_exactly_if_it_is_forked_and_it_names_all_who_said_two_things_in_one_place(chosen: set[int]) -> None:
    said = [ALL[number] for number in sorted(chosen)]
    for stream, held in extend(PLAIN, said).governance.streams.items():
        of_it = [item for item in said if link_of(item)[0] == stream]
        found = conflicts_of(reversed(of_it))
        assert bool(found) == isinstance(held, Fork)
        for conflict in found:
            assert judge(conflict.second, conflict.first, ROSTER) == conflict
        named = {key for conflict in found for key in conflict.signers}
        everybody = [_conflict(one, other) for one in of_it for other in of_it if one.id < other.id and _same_place(one, other)]
        assert named >= {key for conflict in everybody for key in conflict.signers}
        assert len({(conflict.first.id, conflict.second.id) for conflict in found}) == len(found)


def _same_place(one: Statement[Said], other: Statement[Said]) -> bool:
    return one.claims.link == other.claims.link


def _conflict(one: Statement[Said], other: Statement[Said]) -> Conflict:
    return judge(one, other, ROSTER)


@given(st.permutations(range(len(ALL))), st.integers(1, 4))
def test_whoever_forks_a_stream_is_shown_with_what_it_contradicts(order: list[int], batch: int) -> None:
    held = PLAIN
    for first in range(0, len(order), batch):
        new = [ALL[number] for number in order[first : first + batch]]
        after = extend(held, new).governance
        for stream, now in after.streams.items():
            if not isinstance(now, Fork) or isinstance(held.streams.get(stream, Chain()), Fork):
                continue
            ids = {item.id for item in new}
            one, other = clash(now, ids)
            assert {one, other} & ids
            by_id = {item.id: item for item in ALL}
            conflict = judge(by_id[one], by_id[other], ROSTER)
            assert (conflict.stream, conflict.first.id, conflict.second.id) == (stream, one, other)
        held = after


def test_a_fork_of_which_only_pieces_are_held_is_shown_by_what_contradicts() -> None:
    first, behind = chained(1)[0], branch([2, 3], branch([1], None, "another first")[0], "behind it")
    held = restore(PLAIN, [first, behind[0]]).streams[link_of(first)[0]]
    assert isinstance(held, Fork)
    assert clash(held, {behind[0].id}) == clash(held, {first.id}) == clash(held, ()) == (first.id, behind[0].id)
    (conflict,) = conflicts_of([behind[0], behind[1], first])
    assert (conflict.first.id, conflict.second.id) == (first.id, behind[0].id)


def test_two_behind_one_statement_are_shown_rather_than_two_under_one_number() -> None:
    trunk = chained(3)
    aside = branch([2, 3], branch([1], None, "another first")[0], "aside")
    twin = revocation(3, trunk[1].id, reason="another third")
    held = restore(PLAIN, [*trunk, *aside, twin]).streams[link_of(twin)[0]]
    assert isinstance(held, Fork)
    assert set(clash(held, {twin.id})) == {trunk[2].id, twin.id}


def test_a_resolve_takes_no_proof_away() -> None:
    first, other = halt(None), halt(None, reason="another first")
    held = extend(PLAIN, [first, other, resolve(None, first, other)]).governance
    assert not held.forked("halt/payments")
    assert len(conflicts_of([first, other])) == 1


def test_the_proof_of_a_manifest_conflict_needs_no_bundle() -> None:
    data = encode_conflict(judge(WORLD["next"], WORLD["twin"], ROSTER))
    value = json.loads(data)
    said = [json.loads(base64.b64decode(value[half]["payload"])) for half in ("first", "second")]
    assert [item["epoch"] for item in said] == [2, 2]
    assert {item["mesh"] for item in said} == {MESH}
    assert isinstance(read_conflict(data, ROSTER).first.claims, Manifest)
