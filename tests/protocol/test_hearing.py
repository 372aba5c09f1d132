"""What an enforcer says that it has heard is recorded once, whoever sends it and however often; nobody else's word is."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import extend, put_in_force
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import StreamHead, reaches
from mesh.core.law.roster import Roster
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.record import AttestRefused, EnforcerHeard, Refusal, encode_record, read_record
from mesh.core.messages import HeardAsked, HeardGiven, OutcomeAnswer, RefusedAnswer, pack, unpack, unpack_answer
from mesh.core.run.authorization import Receipt, RecordRef
from mesh.core.run.heard import Heard, check_heard
from mesh.core.run.identity import Identity
from mesh.errors import Refused
from mesh.limits import BATCH_RECORDS_MAX, FRONTIER_STREAMS_MAX, HEARD_ENFORCERS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol.attester import Material, examine_records, located_ids
from mesh.protocol.documents import Documents
from mesh.protocol.events import HeartbeatArrived, LineageArrived, OutcomesArrived, Tick
from mesh.protocol.hearing import META, NOBODY, RECORD_MS, Hearing, Word, Words, answer, is_heard, newest, page, restored, word_of
from mesh.protocol.lineage import Writer
from mesh.protocol.serving import body_ids, leaf_ids
from mesh.protocol.step import Append, Effect, Locate, PutBody, SetMeta, Sign
from mesh.protocol.stored import Stored, StoredLog
from tests.protocol.machines import (
    LAB,
    ME,
    MESH,
    NOW,
    OWNER,
    Governor,
    Owner,
    altered,
    answers,
    batch,
    beat,
    empty_log,
    only,
    secret,
    sign,
    started,
)
from tests.support.epochs import successor
from tests.support.heard import BOOT, another_enforcer, heads, request, word
from tests.support.littlemesh import LittleMesh

ORIGIN = LAB.roster.origin(ME)
OTHER_BOOT = "b1" * 32
STRANGER = secret("stranger")
KEY = LAB.place_key.public
FIRST, SECOND = heads(("roster", 1)), heads(("revoke/" + "ab" * 32, 1), ("roster", 1))


class Desk:
    """Words at the first governor, one step after another."""

    def __init__(self, words: Words = NOBODY) -> None:
        self.words = words
        self.leaves: list[bytes] = []
        self.effects: list[Effect] = []
        self.noise = ""

    def take(self, data: bytes, *, at_ms: int = NOW) -> Any:
        log = empty_log(ORIGIN)
        log = msgspec.structs.replace(log, frontier=log.frontier.extend(map(leaf_hash, self.leaves)))
        writer = Writer(log, mesh=MESH, now_ms=at_ms)
        hearing = Hearing(self.words, me=ME, origin=ORIGIN, documents=Documents())
        self.effects, self.noise = hearing.take(7, data, LAB.governance, writer)
        self.words = hearing.words
        for append in only(Append, writer.finish(log)[1]):
            self.leaves += append.leaves
        (said,) = answers(self.effects).values()
        return unpack_answer(said) if self.noise else unpack(OutcomeAnswer, said)

    def say(self, said: Statement[Heard], *, at_ms: int = NOW) -> Any:
        return self.take(request(said.envelope, LAB.place_envelope), at_ms=at_ms)

    def mirror(self, leaf: bytes, *bodies: bytes, index: int = 0, origin: str = LAB.roster.origin(OWNER)) -> list[Effect]:
        hearing = Hearing(self.words, me=ME, origin=ORIGIN, documents=Documents())
        put = [PutBody(envelope.identify(data)[1], "", data) for data in bodies]
        effects = hearing.mirrored([Append(origin, index, (leaf,), (leaf_hash(leaf),)), *put], LAB.governance)
        self.words = hearing.words
        return effects


def _receipt(answered: OutcomeAnswer) -> Receipt:
    (raw,) = answered.receipts
    return envelope.read(Receipt, bytes(raw)).verify(ME.decision_key)


def _record(said: Statement[Heard] | bytes, *, index: int = 0, at_ms: int = NOW, **changes: Any) -> bytes:
    identity = said.id if isinstance(said, Statement) else envelope.identify(said)[1]
    place: dict[str, Any] = {"mesh": MESH, "origin": LAB.roster.origin(OWNER), "index": index, "at_ms": at_ms}
    record = EnforcerHeard(**place, heard=identity, identity=envelope.draft(LAB.place).id, subject=LAB.place.subject)
    return encode_record(msgspec.structs.replace(record, **changes))


# --------------------------------------------------------------------------------------------------------------- to take in


def test_a_word_is_recorded_with_its_statement_and_receipted() -> None:
    desk, said = Desk(), word(LAB, at_ms=NOW)
    receipt = _receipt(desk.say(said))
    (leaf,) = desk.leaves
    record = read_record(leaf)
    assert isinstance(record, EnforcerHeard)
    assert (record.heard, record.identity, record.subject) == (said.id, envelope.draft(LAB.place).id, LAB.place.subject)
    assert (receipt.statement, receipt.issuer) == (said.id, ME.name)
    assert receipt.record == RecordRef(origin=ORIGIN, index=0, leaf=leaf_hash(leaf).hex())
    assert {(body.id, body.kind) for body in only(PutBody, desk.effects)} == {(said.id, "heard"), (record.identity, "identity")}
    assert [place.id for place in only(Locate, desk.effects)] == [said.id]
    assert body_ids(record) == (said.id, record.identity)
    assert leaf_ids(leaf) == (body_ids(record), ())
    assert located_ids(record) == (said.id,)


def test_a_word_said_again_is_receipted_again_and_not_recorded_again() -> None:
    desk, said = Desk(), word(LAB, at_ms=NOW)
    first = _receipt(desk.say(said))
    assert _receipt(desk.say(said, at_ms=NOW + 60_000)) == first
    assert len(desk.leaves) == 1


def test_a_word_by_which_nothing_has_changed_in_that_boot_is_receipted_by_the_record_that_is_there() -> None:
    desk = Desk()
    first = _receipt(desk.say(word(LAB, at_ms=NOW, frontier=FIRST)))
    assert _receipt(desk.say(word(LAB, at_ms=NOW + 60_000, sequence=2, frontier=FIRST), at_ms=NOW + 60_000)) == first
    assert len(desk.leaves) == 1
    desk.say(word(LAB, at_ms=NOW + 60_000, boot=OTHER_BOOT, frontier=FIRST), at_ms=NOW + 60_000)
    assert len(desk.leaves) == 2, "another boot promises for itself"


def test_what_an_enforcer_said_before_is_superseded_in_whichever_log_the_newer_word_is() -> None:
    desk = Desk()
    old, new = word(LAB, at_ms=NOW - 5_000, boot=OTHER_BOOT, sequence=9, frontier=SECOND), word(LAB, at_ms=NOW, frontier=SECOND)
    desk.say(new)
    refused = desk.say(old, at_ms=NOW + 5_000)
    assert (refused.code, desk.noise, len(desk.leaves)) == ("superseded", "superseded", 1)
    mirror = Desk()
    assert mirror.mirror(_record(new), new.envelope, LAB.place_envelope)
    assert mirror.say(old, at_ms=NOW + 5_000).code == "superseded"
    assert isinstance(mirror.say(new, at_ms=NOW + 5_000), OutcomeAnswer), "the newest may stand in each log, once"


def test_an_enforcer_gets_one_record_a_second_and_then_the_newest() -> None:
    desk = Desk()
    desk.say(word(LAB, at_ms=NOW, frontier=FIRST))
    flood = [heads(("revoke/" + "ab" * 32, number), ("roster", 1)) for number in range(1, 50)]
    for number, frontier in enumerate(flood, 2):
        said = desk.say(word(LAB, at_ms=NOW + number, sequence=number, frontier=frontier), at_ms=NOW + RECORD_MS - 1)
        assert said.code == "overloaded"
    newest_ = word(LAB, at_ms=NOW + 51, sequence=51, frontier=flood[-1])
    assert isinstance(desk.say(newest_, at_ms=NOW + RECORD_MS), OutcomeAnswer)
    assert len(desk.leaves) == 2
    other, document = another_enforcer(LAB, "other", at_ms=NOW)
    assert isinstance(desk.take(request(other, document), at_ms=NOW + RECORD_MS), OutcomeAnswer), "nobody else's second is used up"


SAID = word(LAB, at_ms=NOW)
UNSORTED = heads(("roster", 1), ("policy/payments", 1))
FOREIGN = altered(LAB.place_envelope, Identity, LAB.issuer, key=STRANGER.public)


def _claims(**changes: Any) -> bytes:
    return request(altered(SAID.envelope, Heard, LAB.place_key, **changes), LAB.place_envelope)


def _with_document(**changes: Any) -> bytes:
    return request(*another_enforcer(LAB, "other", at_ms=NOW, **changes))


def _too_many() -> bytes:
    more = [msgspec.to_builtins(head) for head in heads(*((f"revoke/{number:04}", 1) for number in range(FRONTIER_STREAMS_MAX + 1)))]
    claims = {**msgspec.to_builtins(SAID.claims), "frontier": more}
    payload = msgspec.json.encode(dict(sorted(claims.items())))
    draft = envelope.draft(SAID.claims)
    message = b"DSSEv1 %d %s %d %s" % (len(draft.payload_type), draft.payload_type.encode(), len(payload), payload)
    return request(envelope.assemble(draft.payload_type, payload, {KEY: LAB.place_key.sign(message)}), LAB.place_envelope)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b'{"heard":garbage', "malformed"),
        (request(b"{}", LAB.place_envelope), "malformed"),
        (request(SAID.envelope, b"{}"), "malformed"),
        (request(LAB.place_envelope, LAB.place_envelope), "wrong_kind"),
        (request(SAID.envelope, altered(LAB.place_envelope, Identity, STRANGER)), "identity_unknown"),
        (request(SAID.envelope, LAB.identity_envelope), "identity_mismatch"),
        (request(SAID.envelope, FOREIGN), "identity_mismatch"),
        (_claims(mesh="other"), "wrong_mesh"),
        (_claims(identity="cc" * 32), "identity_mismatch"),
        (_claims(enforcer=STRANGER.public), "identity_mismatch"),
        (request(altered(SAID.envelope, Heard, STRANGER), LAB.place_envelope), "bad_signature"),
        (request(altered(SAID.envelope, Heard), LAB.place_envelope), "bad_signature"),
        (request(altered(SAID.envelope, Heard, LAB.place_key, STRANGER), LAB.place_envelope), "bad_signature"),
        (_with_document(role="workload", enforcer_class=""), "identity_mismatch"),
        (_with_document(expires_ms=NOW), "identity_expired"),
        (_with_document(not_before_ms=NOW + 1), "identity_expired"),
        (_claims(sequence=0), "malformed"),
        (_claims(frontier=UNSORTED), "malformed"),
        (_claims(frontier=[*FIRST, *FIRST]), "malformed"),
        (_claims(frontier=heads(("roster", 0))), "malformed"),
        (_too_many(), "malformed"),
        (_claims(at_ms=NOW + LAB.roster.bounds.skew_ms + 1), "clock_unsure"),
    ],
)
def test_what_the_enforcer_of_the_document_did_not_say_is_refused_unsigned_and_counted(data: bytes, code: str) -> None:
    desk = Desk()
    assert is_heard(data)
    said = desk.take(data)
    assert isinstance(said, RefusedAnswer)
    assert (said.code, desk.noise, desk.leaves, desk.words) == (code, code, [], NOBODY)
    assert not only(Sign, desk.effects)


def test_a_frontier_of_as_many_streams_as_there_may_be_is_taken() -> None:
    most = heads(*((f"revoke/{number:064x}", 1) for number in range(FRONTIER_STREAMS_MAX)))
    assert isinstance(Desk().say(word(LAB, at_ms=NOW + LAB.roster.bounds.skew_ms, frontier=most)), OutcomeAnswer)


def test_outcomes_are_not_taken_for_it() -> None:
    assert not is_heard(LAB.report(LAB.lived("aa" * 32, "bb" * 32, at_ms=NOW)))


# ---------------------------------------------------------------------------------------------------------------- to attest


def _examined(leaf: bytes, *bodies: bytes, now_ms: int = NOW, governance: Governance = LAB.governance) -> tuple[str, str]:
    held = {envelope.identify(data)[1]: data for data in bodies}
    (found,) = examine_records(
        [leaf],
        Material(held, {}),
        owner=OWNER,
        first=0,
        after_ms=0,
        governance=governance,
        documents=Documents(),
        engine=LAB.engine,
        now_ms=now_ms,
    )
    return found.code, found.detail


def _resigned(said: Statement[Heard], *keys: Any) -> bytes:
    return sign(said.claims, *keys)


BY_STRANGER = altered(SAID.envelope, Heard, STRANGER, enforcer=STRANGER.public)
OUT_OF_ORDER = altered(SAID.envelope, Heard, LAB.place_key, frontier=UNSORTED)
LATER = altered(SAID.envelope, Heard, LAB.place_key, at_ms=NOW + LAB.roster.bounds.skew_ms + 1)
ELSEWHERE = altered(SAID.envelope, Heard, LAB.place_key, mesh="other")


@pytest.mark.parametrize(
    ("leaf", "bodies", "code"),
    [
        (_record(SAID), [SAID.envelope, LAB.place_envelope], ""),
        (_record(SAID), [LAB.place_envelope], "body_missing"),
        (_record(SAID), [SAID.envelope], "body_missing"),
        (_record(SAID), [_resigned(SAID, STRANGER), LAB.place_envelope], "body_missing"),
        (_record(SAID), [_resigned(SAID), LAB.place_envelope], "body_missing"),
        (_record(SAID, subject="spiffe://lab/enforcer/other"), [SAID.envelope, LAB.place_envelope], "record_invalid"),
        (_record(BY_STRANGER), [BY_STRANGER, LAB.place_envelope], "record_invalid"),
        (_record(OUT_OF_ORDER), [OUT_OF_ORDER, LAB.place_envelope], "record_invalid"),
        (_record(LATER), [LATER, LAB.place_envelope], "record_invalid"),
        (_record(ELSEWHERE), [ELSEWHERE, LAB.place_envelope], "record_invalid"),
        (_record(SAID, at_ms=LAB.place.expires_ms), [SAID.envelope, LAB.place_envelope], "identity_expired"),
    ],
)
def test_a_record_is_attested_if_it_is_what_its_enforcer_signed(leaf: bytes, bodies: Sequence[bytes], code: str) -> None:
    found, detail = _examined(leaf, *bodies, now_ms=max(NOW, LAB.place.expires_ms))
    assert found == code, detail


@pytest.mark.parametrize("changed", [0.5, 2])
def test_who_has_gone_over_to_other_bounds_refuses_no_word_that_was_taken_in_before(changed: float) -> None:
    """An enforcer chooses what its clock says; the governor that took it in must not be caught for it."""
    first = envelope.read(Roster, LAB.roster_envelope)
    skew_ms = first.claims.bounds.skew_ms
    bounds = msgspec.structs.replace(first.claims.bounds, skew_ms=int(skew_ms * changed))
    taken = extend(LAB.governance, [successor(first, bounds=bounds)])
    assert not taken.refused
    later = put_in_force(taken.governance, 2)
    widest = max(skew_ms, bounds.skew_ms)
    for by_ms, code in ((widest, ""), (widest + 1, "record_invalid")):
        said = word(LAB, at_ms=NOW + by_ms)
        for governance in (taken.governance, later):
            assert _examined(_record(said), said.envelope, LAB.place_envelope, governance=governance)[0] == code


def test_a_governor_that_puts_words_into_an_enforcers_mouth_is_found() -> None:
    never = altered(SAID.envelope, Heard, STRANGER, frontier=SECOND)  # says that it is the enforcer's, and is signed by another
    code, _ = _examined(_record(never), never, LAB.place_envelope)
    assert code == "body_missing", "nobody can show the enforcer's signature, so it is never attested"
    desk = Desk()
    assert desk.mirror(_record(never), never, LAB.place_envelope) == []
    assert desk.words == NOBODY


# --------------------------------------------------------------------------------------------------------------- to remember


def test_the_newest_word_of_all_logs_is_known_and_found_again_from_what_is_durable() -> None:
    desk = Desk()
    old, new = word(LAB, at_ms=NOW, frontier=FIRST), word(LAB, at_ms=NOW + 9, sequence=2, frontier=SECOND)
    desk.say(old)
    facts = {effect.key: effect.value for effect in only(SetMeta, desk.effects)}
    leaf = _record(new, index=4, at_ms=NOW + 9)
    facts |= {effect.key: effect.value for effect in only(SetMeta, desk.mirror(leaf, new.envelope, LAB.place_envelope, index=4))}
    origin = LAB.roster.origin(OWNER)
    assert {key: (log, found.id) for key, (log, found) in newest(desk.words).items()} == {KEY: (origin, new.id)}
    assert restored(facts) == {(ORIGIN, KEY): 0, (origin, KEY): 4}
    assert all(key.startswith(META) for key in facts)
    assert word_of(desk.leaves[0], old.envelope, index=0) == desk.words[ORIGIN][KEY]
    assert word_of(leaf, new.envelope, index=4) == desk.words[origin][KEY]
    assert desk.mirror(leaf, new.envelope, LAB.place_envelope, index=4) == [], "the same again is nothing new"


def _crowd(count: int) -> dict[str, dict[str, Word]]:
    return {ORIGIN: {f"{number:064x}": Word("aa" * 32, "bb" * 32, BOOT, 1, NOW, "", number, "", NOW + number) for number in range(count)}}


@pytest.mark.parametrize(("held", "left"), [(HEARD_ENFORCERS_MAX - 1, HEARD_ENFORCERS_MAX), (HEARD_ENFORCERS_MAX, HEARD_ENFORCERS_MAX)])
def test_of_many_enforcers_the_oldest_word_is_forgotten(held: int, left: int) -> None:
    desk = Desk(_crowd(held))
    desk.say(word(LAB, at_ms=NOW))
    assert len(desk.words[ORIGIN]) == left
    assert KEY in desk.words[ORIGIN]
    assert (f"{0:064x}" in desk.words[ORIGIN]) is (held < HEARD_ENFORCERS_MAX)
    facts = {effect.key: effect.value for effect in only(SetMeta, desk.effects)}
    assert restored(facts) == {(ORIGIN, KEY): 0}, "what was forgotten is not found again"


@pytest.mark.parametrize("count", [0, 1, BATCH_RECORDS_MAX - 1, BATCH_RECORDS_MAX, BATCH_RECORDS_MAX + 1])
def test_all_words_are_answered_page_by_page(count: int) -> None:
    words, after, seen = _crowd(count), "", list[int]()
    bodies = {"aa" * 32: SAID.envelope, "bb" * 32: LAB.place_envelope}
    while True:
        given = unpack(HeardGiven, answer(page(words, after), bodies))
        seen += [item.index for item in given.words]
        after = given.after
        if not after:
            break
    assert seen == list(range(count))


def test_no_answer_is_larger_than_a_message_and_what_is_not_held_is_left_out() -> None:
    most = heads(*((f"revoke/{number:064x}", 1) for number in range(FRONTIER_STREAMS_MAX)))
    large = word(LAB, at_ms=NOW, frontier=most)
    bodies = {"aa" * 32: large.envelope, "bb" * 32: LAB.place_envelope}
    data = answer(page(_crowd(40), ""), bodies)
    given = unpack(HeardGiven, data)
    assert len(data) <= MESSAGE_BYTES_MAX
    assert 0 < len(given.words) < 40
    assert given.after == f"{len(given.words) - 1:064x}"
    assert unpack(HeardGiven, answer(page(_crowd(2), ""), {})) == HeardGiven(words=[], after="")


def test_a_word_is_not_believed_with_another_document_or_key() -> None:
    for claims in ({"mesh": "other"}, {"document": "cc" * 32}, {"key": STRANGER.public}):
        expected = {"mesh": MESH, "document": envelope.draft(LAB.place).id, "key": KEY, **claims}
        with pytest.raises(Refused):
            check_heard(SAID, **expected)
    assert canonical.encode(check_heard(SAID, mesh=MESH, document=envelope.draft(LAB.place).id, key=KEY)) == SAID.payload


def test_only_who_holds_it_that_far_has_heard_it() -> None:
    (two,) = heads(("halt/payments", 2))
    forked = StreamHead(stream="halt/payments", sequence=9, head="ab" * 32, forked=True, held="")
    assert reaches([two], two.stream, 2, two.head)
    assert reaches([two], two.stream, 1, "cd" * 32)
    assert not reaches([two], two.stream, 2, "cd" * 32)
    assert not reaches([two], two.stream, 3, two.head)
    assert not reaches([two], "halt/other", 1, two.head)
    assert not reaches([forked], two.stream, 1, two.head)


# ---------------------------------------------------------------------------------------------------------------- in a mesh


def test_a_word_is_attested_by_all_becomes_final_and_is_known_to_every_member() -> None:
    mesh = LittleMesh(LAB)
    said = word(LAB, at_ms=mesh.now_ms)
    mesh.report("us-1", request(said.envelope, LAB.place_envelope))
    mesh.run(6)
    origin = LAB.roster.origin(LAB.roster.member("us-1"))
    index = 0
    for node in mesh.nodes.values():
        found = newest(node.state.words)[KEY]
        assert (found[0], found[1].id) == (origin, said.id), node.name
        index = found[1].index
        given = unpack(HeardGiven, node.answer(pack(HeardAsked(after=""))))
        assert [bytes(item.heard) for item in given.words] == [said.envelope]
        assert node.state.mirrors.get(origin) is None or node.state.mirrors[origin].refused < 0
    assert mesh.nodes["us-1"].state.log.certified > index


# ----------------------------------------------------------------------------------------------------------- at one governor


def _trusting() -> Governor:
    """One whose clock others have borne out, and that is fresh."""
    governor, empty = Governor(), StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
    governor.state = started(governor.machine, Stored(incarnation=0, own=empty, mirrors={})).state
    governor.take(*(HeartbeatArrived(beat(name, 1, NOW, echo=[BOOT])) for name in ("us-1", "ap-1", "sa-1")), Tick())
    return governor


def _published(owner: Owner) -> LineageArrived:
    return LineageArrived(pack(batch(owner, note=owner.note())), pulled=False, node=OWNER.name)


def _written(said: bytes) -> Owner:
    """Another governor that has this in its log, whoever said it."""
    owner = Owner()
    owner.append(_record(said))
    owner.bodies |= {envelope.identify(said)[1]: said, envelope.draft(LAB.place).id: LAB.place_envelope}
    return owner


def test_a_true_word_in_anothers_log_is_attested_and_known() -> None:
    governor = _trusting()
    effects = governor.take(_published(_written(SAID.envelope)))
    assert {sign.use for sign in only(Sign, effects)} == {"witness", "attest"}
    assert {key: found.id for key, (_, found) in newest(governor.state.words).items()} == {KEY: SAID.id}


def test_a_word_that_nobody_signed_is_neither_attested_nor_known_and_is_said_to_be_missing() -> None:
    governor, owner = _trusting(), _written(altered(SAID.envelope, Heard, STRANGER, frontier=SECOND))
    said = list[Refusal]()
    for _ in range(2 * LAB.roster.bounds.attest_stall_ms // 300):
        governor.now_ms += 300
        beats = [HeartbeatArrived(beat(name, 2, governor.now_ms)) for name in ("us-1", "ap-1", "sa-1")]
        governor.take(*beats, _published(owner), Tick())
        said += [record.refusal for record in governor.records() if isinstance(record, AttestRefused)]
    assert governor.state.mirrors[owner.origin].attested is None
    assert [(refusal.reason, refusal.code, refusal.index) for refusal in said] == [("missing", "body_missing", 0)]
    assert newest(governor.state.words) == {}


def test_while_the_clock_is_unsure_nothing_is_recorded() -> None:
    governor = _trusting()
    arrived = OutcomesArrived(7, request(SAID.envelope, LAB.place_envelope))
    effects = governor.take(arrived, wall_ms=NOW + LAB.roster.bounds.skew_ms + 1)
    (said,) = answers(effects).values()
    refused = unpack_answer(said)
    assert isinstance(refused, RefusedAnswer)
    assert refused.code == "clock_unsure"
    assert [type(record) for record in governor.records()] == []
    assert EnforcerHeard in [type(record) for record in (governor.take(arrived), governor.records())[1]]
