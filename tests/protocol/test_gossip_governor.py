"""A governor that learns of a revocation denies by it in that very step, says so at once, and records it when its clock can be trusted."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import restore
from mesh.core.law.heartbeat import Heartbeat, StreamHead, frontier_digest
from mesh.core.law.revocation import Target, stream_of
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import Said
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import DecisionMade, Denied, GovernanceChanged
from mesh.core.messages import (
    Authorized,
    DeniedAnswer,
    LawBatch,
    Offer,
    RefusedAnswer,
    pack,
    unpack,
    unpack_answer,
)
from mesh.core.run.authorization import Denial
from mesh.limits import BATCH_EVENTS_MAX
from mesh.protocol.events import Event, HeartbeatArrived, IntentArrived, Stopping, Tick
from mesh.protocol.gossip import LawArrived, OfferArrived, put
from mesh.protocol.state import Facts
from mesh.protocol.step import Append, AskLaw, Effect, PutLaw, Send
from mesh.protocol.stored import Stored, StoredLog
from tests.protocol.machines import BOOT, LAB, ME, NOW, Governor, answers, beat, only, perform, started
from tests.support import halts
from tests.support.factory import secret, sign
from tests.support.revocations import REVOKERS, STREAM, branch, chained, governance, revocation

PLAIN = governance(LAB)
SECOND = stream_of(REVOKERS[1].public)
GOOD = chained(4)
STRANGER = secret("mallory")


def _batch(*statements: bytes) -> bytes:
    return pack(LawBatch(statements=[msgspec.Raw(data) for data in statements]))


def _offer(*statements: bytes) -> bytes:
    return pack(Offer(statements=[msgspec.Raw(data) for data in statements]))


OTHERS = [member.name for member in LAB.roster.members if member.name != ME.name]
ANNA = Target(type="subject", value="spiffe://lab/agent/anna")


def _beats(now_ms: int, sequence: int = 1, **changes: Any) -> list[HeartbeatArrived]:
    return [HeartbeatArrived(beat(name, sequence, now_ms, echo=[BOOT], **changes)) for name in OTHERS]


def _fresh() -> Governor:
    governor = Governor(PLAIN)
    empty = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
    governor.state = started(governor.machine, Stored(incarnation=0, own=empty, mirrors={})).state
    governor.take(*_beats(NOW), Tick())
    assert governor.state.was_fresh
    return governor


def _offered(*statements: Statement[Said], waiter: int = 9) -> OfferArrived:
    return OfferArrived(waiter, _offer(*(item.envelope for item in statements)))


def _intent(number: int = 1, *, waiter: int = 1) -> IntentArrived:
    _, intent, openings = LAB.intent(number, at_ms=NOW)
    return IntentArrived(waiter, LAB.request(intent, openings))


def _changes(governor: Governor) -> list[tuple[str, str]]:
    return [(record.change, record.about) for record in governor.records() if isinstance(record, GovernanceChanged)]


def _own_beats(effects: Sequence[Effect]) -> list[Heartbeat]:
    signed = perform(effects)
    found = [effect.build(signed) for effect in only(Send, effects) if effect.to == subjects.hb(ME.name)]
    return [envelope.read(Heartbeat, data).verify(ME.decision_key) for data in found]


@pytest.mark.parametrize(
    "event",
    [_offered(GOOD[0]), LawArrived(_batch(GOOD[0].envelope)), LawArrived(_batch(GOOD[0].envelope), "us-1")],
    ids=["offered", "published", "pulled"],
)
def test_a_heartbeat_says_at_once_what_was_taken_in(event: Event) -> None:
    governor = _fresh()
    governor.now_ms += 50
    (said,) = _own_beats(governor.take(event))
    assert [(head.sequence, head.head) for head in said.frontier if head.stream == STREAM] == [(1, GOOD[0].id)]
    assert only(Send, governor.take(LawArrived(_batch(GOOD[0].envelope)))) == []


def test_whoever_signs_without_end_makes_nobody_shout_but_the_last_word_is_said() -> None:
    governor = _fresh()
    governor.now_ms += 50
    beats = [_own_beats(governor.take(_offered(statement))) for statement in GOOD[:3]]
    assert [len(said) for said in beats] == [1, 0, 0]
    governor.now_ms += 50
    (said,) = _own_beats(governor.take(Tick()))
    assert [head.sequence for head in said.frontier if head.stream == STREAM] == [3]
    governor.now_ms += 50
    assert _own_beats(governor.take(Tick())) == []


def test_what_is_taken_in_is_recorded_at_the_next_tick() -> None:
    governor = _fresh()
    governor.take(_offered(*GOOD[:3]), _offered(revocation(1, "", key=REVOKERS[1])))
    assert _changes(governor) == []
    governor.take(Tick())
    (first, second) = _changes(governor)
    assert first == ("revocation", f"{STREAM} 1..3 {GOOD[2].id}")
    assert second[1].startswith(f"{SECOND} 1 ")
    governor.take(Tick())
    assert _changes(governor) == []


def test_while_the_clock_is_not_trusted_what_is_taken_in_denies_and_its_record_waits() -> None:
    governor = _fresh()
    for statement in GOOD[:3]:
        effects = governor.take(_offered(statement), Tick(), wall_ms=NOW - 301)
        assert only(Append, effects) == []
        assert [effect.id for effect in only(PutLaw, effects)] == [statement.id]
        assert ("subject", statement.claims.target.value) in governor.state.governance.revoked
    governor.take(Tick())
    assert [about for change, about in _changes(governor) if change == "revocation"] == [
        f"{STREAM} {item.claims.sequence} {item.id}" for item in GOOD[:3]
    ]
    assert governor.state.untold == ()


def test_a_record_of_what_was_taken_in_comes_before_the_last_word() -> None:
    governor = _fresh()
    governor.take(_offered(GOOD[0]))
    governor.take(Stopping(), Tick())
    assert [change for change, _ in _changes(governor)] == ["revocation", "stopped"]


def test_a_fork_is_recorded_as_one() -> None:
    governor = _fresh()
    governor.take(_offered(*GOOD[:2], *branch([2], GOOD[0], "another")), Tick())
    assert [about.split(" ")[0] for change, about in _changes(governor) if change == "revocation"] == ["forked"]
    assert governor.state.was_fresh


@pytest.mark.parametrize("first", ["the intent", "the revocation"])
def test_an_intent_in_the_batch_of_the_revocation_is_denied(first: str) -> None:
    governor = _fresh()
    pair: list[Event] = [_intent(), _offered(revocation(1, "", target=ANNA))]
    told = answers(governor.take(*(pair if first == "the intent" else pair[::-1])))
    answer = unpack_answer(told[1])
    assert isinstance(answer, DeniedAnswer)
    assert envelope.read(Denial, bytes(answer.denial)).claims.code == "revoked"
    assert [record.code for record in governor.records() if isinstance(record, Denied)] == ["revoked"]


HALT, SECOND_HALT, RESUME = halts.SAID[:3]


@pytest.mark.parametrize("first", ["halt", "intent"])
def test_an_intent_in_the_batch_of_the_halt_is_denied_and_after_the_resume_it_is_not(first: str) -> None:
    governor = _fresh()
    events: list[Event] = [_offered(HALT, SECOND_HALT), _intent()]
    effects = governor.take(*(events if first == "halt" else events[::-1]))
    answer = unpack_answer(answers(effects)[1])
    assert isinstance(answer, DeniedAnswer)
    assert envelope.read(Denial, bytes(answer.denial)).verify(ME.decision_key).code == "halted"
    assert [record.code for record in governor.records() if isinstance(record, Denied)] == ["halted"]
    assert {effect.id for effect in only(PutLaw, effects)} == {HALT.id, SECOND_HALT.id}
    told = [effect for effect in only(Send, effects) if effect.to == subjects.law(subjects.short(halts.STREAM))]
    assert len(told) == 1
    assert isinstance(unpack_answer(answers(governor.take(_offered(RESUME), _intent(2)))[1]), Authorized)


def test_a_resume_that_comes_before_what_stands_between_allows_nothing_yet() -> None:
    governor = _fresh()
    answer = unpack_answer(answers(governor.take(_offered(HALT, RESUME), _intent()))[1])
    assert isinstance(answer, DeniedAnswer)
    assert isinstance(unpack_answer(answers(governor.take(_offered(SECOND_HALT), _intent(2)))[1]), Authorized)


def test_halts_and_revocations_are_recorded_as_what_they_are() -> None:
    governor = _fresh()
    governor.take(_offered(HALT, GOOD[0], SECOND_HALT))
    governor.take(Tick())
    assert _changes(governor) == [
        ("halt", f"{halts.STREAM} 1..2 {SECOND_HALT.id}"),
        ("revocation", f"{STREAM} 1 {GOOD[0].id}"),
    ]


def test_a_halt_that_a_member_holds_is_asked_for() -> None:
    governor = _fresh()
    claims = [*PLAIN.frontier, StreamHead(stream=halts.STREAM, sequence=2, head=SECOND_HALT.id, forked=False, held="")]
    governor.take(*_beats(NOW, 2, frontier=sorted(claims, key=lambda head: head.stream)))
    (asked,) = only(AskLaw, governor.take(Tick()))
    assert (asked.stream, asked.after) == (halts.STREAM, Cursor(1))
    governor.take(LawArrived(_batch(HALT.envelope, SECOND_HALT.envelope), asked.member))
    assert governor.state.governance.halted == {halts.DOMAIN: tuple(sorted((HALT.id, SECOND_HALT.id)))}


def test_a_start_remembers_what_is_halted() -> None:
    empty = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
    stored = Stored(incarnation=0, own=empty, mirrors={}, law=(SECOND_HALT, GOOD[0], HALT))
    state = started(Governor(PLAIN).machine, stored).state
    assert state.governance.digest == restore(PLAIN, [HALT, SECOND_HALT, GOOD[0]]).digest
    assert list(state.governance.halted) == [halts.DOMAIN]


def test_who_asks_again_gets_the_same_authorization_with_the_frontier_that_it_names_until_that_is_forgotten() -> None:
    governor = _fresh()
    first = answers(governor.take(_intent()))[1]
    (record,) = [record for record in governor.records() if isinstance(record, DecisionMade)]
    (leaf,) = [leaf for append in only(Append, governor.effects) for leaf in append.leaves]
    facts = Facts(intents={record.intent: leaf})
    authorized = unpack_answer(first)
    assert isinstance(authorized, Authorized)
    assert frontier_digest(authorized.frontier) == record.attested.frontier
    said = chained(32)
    for statement in said[:-1]:
        governor.take(_offered(statement))
        assert answers(governor.take(_intent(), facts=facts))[1] == first
    governor.take(_offered(said[-1]))
    answer = unpack_answer(answers(governor.take(_intent(), facts=facts))[1])
    assert isinstance(answer, DeniedAnswer)
    assert envelope.read(Denial, bytes(answer.denial)).claims.code == "intent_conflict"


@pytest.mark.parametrize("data", [b"", b"{}", _offer()[:-1], _offer(), _offer(*[b"1"] * (BATCH_EVENTS_MAX + 1)), _batch()])
def test_an_offer_that_cannot_be_read_is_answered_and_counted(data: bytes) -> None:
    governor = _fresh()
    told = answers(governor.take(OfferArrived(3, data)))
    assert unpack(RefusedAnswer, told[3]).code == "malformed"
    assert governor.state.noise == {"malformed": 1}


def test_what_cannot_be_believed_is_counted_and_changes_nothing() -> None:
    forged = [
        revocation(1, "", STRANGER, reason="forged"),
        revocation(1, "", key=STRANGER),
        revocation(1, "", mesh="other"),
        revocation(2, ""),
        revocation(1, "", target=Target(type="enrolled", value=ME.decision_key)),
    ]
    governor = _fresh()
    before = governor.state
    effects = governor.take(*(LawArrived(_batch(item.envelope)) for item in forged), LawArrived(b"junk"), LawArrived(_batch(b"1")))
    assert effects == []
    assert governor.state.noise == {"bad_signature": 2, "wrong_mesh": 1, "malformed": 3, "threshold_not_met": 1}
    assert governor.state.governance is before.governance


def test_a_member_that_is_ahead_is_asked_and_its_answers_are_followed_up() -> None:
    governor, said = _fresh(), chained(3)
    full = restore(PLAIN, said)
    governor.take(HeartbeatArrived(beat("us-1", 2, NOW, frontier=list(full.frontier))))
    (ask,) = only(AskLaw, governor.take(Tick()))
    assert ask == AskLaw("us-1", STREAM, Cursor(1))
    for statement in said[:2]:
        (ask,) = only(AskLaw, governor.take(LawArrived(_batch(statement.envelope), "us-1")))
        assert ask == AskLaw("us-1", STREAM, Cursor(statement.claims.sequence + 1))
    assert only(AskLaw, governor.take(LawArrived(_batch(said[2].envelope), "us-1"))) == []
    assert governor.state.governance.digest == full.digest
    assert governor.state.asking == {}


def test_a_start_takes_up_what_was_kept_and_keeps_what_it_is_given_once() -> None:
    machine = Governor(restore(PLAIN, GOOD[:2])).machine
    empty = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
    stored = Stored(incarnation=0, own=empty, mirrors={}, law=(GOOD[3], GOOD[1], GOOD[2]))
    step = started(machine, stored, given=GOOD[:2])
    assert only(PutLaw, step.effects) == [put(GOOD[0])]
    assert step.state.governance.digest == restore(PLAIN, GOOD).digest
    assert step.state.governance.revoked == restore(PLAIN, GOOD).revoked


def test_a_head_of_number_zero_stops_no_governor() -> None:
    governor = _fresh()
    claims = [StreamHead(stream=STREAM, sequence=0, head="ab" * 32, forked=False, held="")]
    governor.take(
        HeartbeatArrived(sign(envelope.read(Heartbeat, beat("us-1", 2, NOW, frontier=claims)).claims, LAB.keys["us-1"]["decision"]))
    )
    assert only(AskLaw, governor.take(Tick())) == []
