"""One governor as a value: whatever a batch holds, everybody is answered, garbage changes nothing, and what changed is recorded."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Note
from mesh.core.log.record import DecisionMade, Denied, GovernanceChanged, Noise, OutcomeRecorded
from mesh.core.messages import Authorized, OutcomeAnswer, RefusedAnswer, SyncAnswer, pack, unpack, unpack_answer
from mesh.core.run.authorization import Receipt, RecordRef
from mesh.limits import BATCH_EVENTS_MAX
from mesh.protocol.events import (
    CosigArrived,
    Event,
    HeartbeatArrived,
    IntentArrived,
    LineageArrived,
    NoteArrived,
    OutcomesArrived,
    Shed,
    Stopping,
    SyncArrived,
    Tick,
)
from mesh.protocol.governor import NOISE_MS
from mesh.protocol.state import Facts
from mesh.protocol.step import Announce, Append, Ask, Reply, Send, SetHead, Sign
from mesh.protocol.stored import Stored, StoredLog
from tests.protocol.machines import (
    BOOT,
    LAB,
    ME,
    NOW,
    OWNER,
    Governor,
    Owner,
    ahead,
    answers,
    batch,
    beat,
    line,
    only,
    perform,
    secret,
    started,
)

OTHERS = [member.name for member in LAB.roster.members if member.name != ME.name]
EMPTY = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)


def _governor() -> Governor:
    """A governor that has just started."""
    governor = Governor()
    governor.state = started(governor.machine, Stored(incarnation=0, own=EMPTY, mirrors={})).state
    return governor


def _trusting() -> Governor:
    """One whose clock enough others have borne out, though nobody has answered its boot."""
    governor = _governor()
    governor.take(*(HeartbeatArrived(beat(name, 0, NOW)) for name in OTHERS[: LAB.roster.f + 1]), Tick())
    return governor


def _beats(now_ms: int, members: Sequence[str] = tuple(OTHERS), *, sequence: int = 1, **changes: Any) -> list[HeartbeatArrived]:
    return [HeartbeatArrived(beat(name, sequence, now_ms, echo=[BOOT], **changes)) for name in members]


def _fresh() -> Governor:
    """One that k members have answered."""
    governor = _governor()
    governor.take(*_beats(NOW), Tick())
    assert governor.state.was_fresh
    return governor


def _intent(number: int = 1, *, waiter: int = 1, at_ms: int = NOW, **named: Any) -> IntentArrived:
    _, intent, openings = LAB.intent(number, at_ms=at_ms, **named)
    return IntentArrived(waiter, LAB.request(intent, openings))


def _own_beats(effects: Sequence[Any]) -> list[Heartbeat]:
    signed = perform(effects)
    found = [effect.build(signed) for effect in only(Send, effects) if effect.to == subjects.hb(ME.name)]
    return [envelope.read(Heartbeat, data).verify(ME.decision_key) for data in found]


# ---------------------------------------------------------------------------------------------------------------- intents


def test_a_decision_sees_the_heartbeats_of_its_own_batch_wherever_they_stand() -> None:
    governor = _governor()
    beats = _beats(NOW)
    (answer,) = answers(governor.take(_intent(), *beats)).values()
    assert isinstance(unpack_answer(answer), Authorized)
    governor = _governor()
    (answer,) = answers(governor.take(_intent(), *beats[:1])).values()
    assert b'"clock_unsure"' in answer, "one other alone may lie about the time"
    assert governor.records() == []
    governor = _trusting()
    (answer,) = answers(governor.take(_intent(), *beats[:1])).values()
    assert b'"denied"' in answer
    (record,) = governor.records()
    assert isinstance(record, Denied)
    assert record.code == "stale"


@pytest.mark.parametrize(("later_ms", "fresh"), [(2_700, True), (2_701, False)])
def test_a_permit_needs_heartbeats_young_by_signed_time(later_ms: int, fresh: bool) -> None:
    governor = _fresh()
    governor.now_ms += later_ms
    governor.take(_intent(at_ms=governor.now_ms))
    (record,) = governor.records()
    assert isinstance(record, DecisionMade if fresh else Denied)


def test_a_clock_that_disagrees_with_its_peers_permits_nothing() -> None:
    governor = _fresh()
    (answer,) = answers(governor.take(_intent(), wall_ms=NOW - 301)).values()
    assert unpack(RefusedAnswer, answer).code == "clock_unsure"
    assert governor.records() == []
    assert governor.state.noise == {"clock_unsure": 1}


def test_while_its_clock_is_ahead_a_governor_records_nothing_and_goes_on_when_it_is_right_again() -> None:
    governor = _fresh()
    governor.take(SyncArrived(1, "cc" * 32))
    hour = 3_600_000
    governor.now_ms += hour  # time made a leap, nobody has said anything since
    outcomes = LAB.lived("aa" * 32, "bb" * 32, at_ms=NOW)
    effects = governor.take(Tick(), _intent(), OutcomesArrived(2, LAB.report(outcomes)), Stopping(), wall_ms=NOW + hour)
    effects += governor.take(*_beats(NOW + 100, sequence=2), Tick(), _intent(), wall_ms=NOW + hour)
    effects += governor.take(Tick(), wall_ms=NOW + hour)
    assert only(Append, effects) == []
    assert {unpack(RefusedAnswer, data).code for data in answers(effects[:]).values()} == {"clock_unsure"}
    governor.now_ms = NOW + 500
    governor.take(*_beats(NOW + 500, sequence=3), Tick())
    governor.take(_intent())
    assert isinstance(governor.records()[-1], DecisionMade)


def test_a_pause_is_over_when_enough_were_heard_again() -> None:
    governor = _fresh()
    governor.now_ms += 60_000
    (answer,) = answers(governor.take(_intent(at_ms=governor.now_ms), Tick())).values()
    assert unpack(RefusedAnswer, answer).code == "clock_unsure"
    governor.take(*_beats(governor.now_ms, sequence=2), Tick())
    (answer,) = answers(governor.take(_intent(at_ms=governor.now_ms))).values()
    assert isinstance(unpack_answer(answer), Authorized)


def test_before_the_members_have_answered_this_start_nothing_is_permitted() -> None:
    governor = _governor()
    governor.take(*(HeartbeatArrived(beat(name, 1, NOW, echo=["aa" * 32])) for name in OTHERS), Tick())
    governor.take(_intent())
    (record,) = governor.records()
    assert isinstance(record, Denied)
    assert record.code == "stale"


def test_everybody_who_asked_is_answered_exactly_once() -> None:
    governor = _fresh()
    outcomes = LAB.lived("aa" * 32, "bb" * 32, at_ms=NOW)
    events: list[Event] = [
        _intent(1, waiter=1), _intent(1, waiter=2), _intent(2, waiter=3, amount=5_000), IntentArrived(4, b"garbage"),
        OutcomesArrived(5, LAB.report(outcomes)), OutcomesArrived(6, b"garbage"), OutcomesArrived(7, LAB.report(outcomes)),
        SyncArrived(8, "cc" * 32), Tick(),
    ]  # fmt: skip
    effects = governor.take(*events)
    told = [effect.to.waiter for effect in only(Send, effects) if isinstance(effect.to, Reply)]
    assert sorted(told) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_what_storage_knows_is_repeated_not_decided_again() -> None:
    governor = _fresh()
    before = governor.state
    first = answers(governor.take(_intent()))
    (record,) = governor.records()
    assert isinstance(record, DecisionMade)
    (append,) = only(Append, governor.effects)
    governor.state = before  # the step was thrown away: the key was not new
    facts = Facts(intents={record.intent: append.leaves[0]})
    assert answers(governor.take(_intent(), facts=facts)) == first
    assert governor.records() == []


def test_an_outcome_that_storage_knows_is_receipted_for_the_record_it_has() -> None:
    governor, (started, _) = _fresh(), LAB.lived("aa" * 32, "bb" * 32, at_ms=NOW)
    ref = RecordRef(origin=LAB.roster.origin(ME), index=0, leaf="cd" * 32)
    effects = governor.take(OutcomesArrived(1, LAB.report([started])), facts=Facts(outcomes={envelope.identify(started)[1]: ref}))
    assert governor.records() == []
    assert ref.leaf.encode() in _payload(answers(effects)[1])


def _payload(answer: bytes) -> bytes:
    return b"".join(envelope.read(Receipt, bytes(raw)).payload for raw in unpack(OutcomeAnswer, answer).receipts)


# ------------------------------------------------------------------------------------------------------------- heartbeats


def test_a_heartbeat_goes_out_every_interval_with_the_next_number() -> None:
    governor, numbers = _governor(), []
    for _ in range(30):
        numbers += [(said.incarnation, said.sequence) for said in _own_beats(governor.take(Tick()))]
        governor.now_ms += 100
    assert numbers == [(1, number) for number in range(6)]


def test_a_heartbeat_says_what_is_held_and_published() -> None:
    governor = _governor()
    (said,) = _own_beats(governor.take(Tick()))
    assert (said.member, said.roster_epoch, tuple(said.frontier), said.signed_ms) == (ME.name, 1, LAB.governance.frontier, NOW)
    assert (said.checkpoint, said.echo) == ("", [BOOT])


def test_who_asks_is_named_at_once() -> None:
    governor = _fresh()
    effects = governor.take(SyncArrived(4, "cc" * 32))
    (said,) = _own_beats(effects)
    assert set(said.echo) == {BOOT, "cc" * 32}
    (answer,) = answers(effects).values()
    assert envelope.read(Heartbeat, bytes(unpack(SyncAnswer, answer).heartbeat)).claims == said


@pytest.mark.parametrize("askers", [1, BATCH_EVENTS_MAX - 1, BATCH_EVENTS_MAX, 2 * BATCH_EVENTS_MAX])
def test_a_heartbeat_names_no_more_askers_than_it_may_and_leaves_nobody_out(askers: int) -> None:
    governor = _fresh()
    effects = governor.take(*(SyncArrived(number, f"{number:064x}") for number in range(askers)))
    said = _own_beats(effects)
    assert len(said) == -(-askers // (BATCH_EVENTS_MAX - 1))
    assert set().union(*(beat_.echo for beat_ in said)) == {BOOT, *(f"{number:064x}" for number in range(askers))}
    assert len({beat_.sequence for beat_ in said}) == len(said)
    for number, answer in answers(effects).items():
        beat_ = envelope.read(Heartbeat, bytes(unpack(SyncAnswer, answer).heartbeat)).verify(ME.decision_key)
        assert f"{number:064x}" in beat_.echo


def test_a_member_vouches_for_itself_by_what_it_signed() -> None:
    governor = _governor()
    governor.take(Tick())
    assert ME.name in governor.state.fresh.echoed
    governor.take(*_beats(NOW, OTHERS[:2]), Tick())
    assert governor.state.was_fresh


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"garbage", "malformed"),
        (beat("us-1", 1, NOW, mesh="other"), "wrong_mesh"),
        (beat("us-1", 1, NOW, member="nobody"), "unknown_member"),
        (beat("us-1", 1, NOW, member="ap-1"), "bad_signature"),
        (LAB.identity_envelope, "wrong_kind"),
    ],
)
def test_a_heartbeat_that_is_none_is_counted_and_changes_nothing_else(data: bytes, code: str) -> None:
    governor = _fresh()
    before = governor.state
    assert governor.take(HeartbeatArrived(data)) == []
    assert governor.state == msgspec.structs.replace(before, noise={code: 1}, noise_ms=NOW)


def test_ones_own_words_coming_back_are_no_news() -> None:
    governor = _fresh()
    owner = Owner(ME)
    owner.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], []))
    before = governor.state
    own = beat(ME.name, 99, NOW)
    assert governor.take(HeartbeatArrived(own), LineageArrived(pack(batch(owner)), pulled=False, node=ME.name)) == []
    assert governor.state == before


def test_a_checkpoint_in_a_heartbeat_is_followed_up() -> None:
    owner = Owner()
    owner.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], []))
    governor = _trusting()
    effects = governor.take(HeartbeatArrived(beat(OWNER.name, 1, NOW, checkpoint=owner.note().decode())), Tick())
    assert only(Ask, effects) == [Ask(OWNER.name, owner.origin, 0)]


# ---------------------------------------------------------------------------------------------------------------- records


def test_becoming_fresh_and_stale_are_recorded_once_each() -> None:
    governor = _trusting()
    changes: list[tuple[str, str]] = []
    for number in range(10):
        events: list[Event] = list(_beats(governor.now_ms, sequence=number)) if number in {2, 3} else []
        governor.take(*events, Tick())
        changes += [(record.change, record.about) for record in governor.records() if isinstance(record, GovernanceChanged)]
        governor.now_ms += 1_000
    assert [change for change, _ in changes] == ["fresh", "stale"]
    assert changes[1][1].startswith("stale: ")


def test_one_that_is_ahead_makes_nobody_stale() -> None:
    governor = _governor()
    governor.take(Tick())
    governor.take(*_beats(NOW, OTHERS[:2]), *_beats(NOW, OTHERS[2:], frontier=ahead()), Tick())
    assert governor.state.was_fresh


def test_noise_is_recorded_in_aggregate_and_not_more_often_than_it_must() -> None:
    governor = _trusting()
    found = []
    for number in range(25):
        governor.take(HeartbeatArrived(b"garbage"), IntentArrived(1, b"x"), Shed("overloaded", 3), Tick())
        found += [record for record in governor.records() if isinstance(record, Noise)]
        governor.now_ms = NOW + (number + 1) * 1_000
    assert [(record.code, record.count) for record in found] == [
        ("malformed", 22),
        ("overloaded", 33),
        ("malformed", 22),
        ("overloaded", 33),
    ]
    assert {record.to_ms - record.from_ms for record in found} == {NOISE_MS}


def test_the_last_record_of_a_node_that_drains_says_so() -> None:
    governor = _fresh()
    governor.take(Stopping(), Tick())
    (record,) = governor.records()
    assert isinstance(record, GovernanceChanged)
    assert (record.change, record.about) == ("stopped", "drained")


def test_one_batch_is_one_append_in_the_order_of_its_events_and_intents_last() -> None:
    governor = _fresh()
    outcomes = LAB.lived("aa" * 32, "bb" * 32, at_ms=NOW)
    governor.take(_intent(1), OutcomesArrived(2, LAB.report(outcomes)), Stopping())
    assert len(only(Append, governor.effects)) == 1
    assert [type(record) for record in governor.records()] == [OutcomeRecorded, OutcomeRecorded, GovernanceChanged, DecisionMade]
    assert isinstance(governor.effects[0], Append)


# ------------------------------------------------------------------------------------------------------------------- logs


def test_what_a_batch_recorded_is_checkpointed_at_its_tick() -> None:
    governor = _governor()
    governor.take(*_beats(NOW))
    governor.now_ms += 1_000
    governor.take(_intent(at_ms=governor.now_ms), Tick())
    (announce,) = only(Announce, governor.effects)
    (append,) = only(Append, governor.effects)
    assert announce.size == append.first + len(append.leaves) == governor.state.log.frontier.size
    assert len(only(SetHead, governor.effects)) == 3


def test_lines_of_k_members_make_its_records_final() -> None:
    governor = _fresh()
    governor.now_ms += 1_000
    governor.take(Tick())
    pending = governor.state.log.outstanding
    assert pending is not None
    notes = [Note(pending.text, (line(member, "attest", pending.text),)).encode() for member in LAB.roster.members[:3]]
    governor.take(CosigArrived(Note(pending.text, (line(ME, "log", pending.text),)).encode()), *map(CosigArrived, notes))
    assert governor.state.log.certified == pending.head.size
    assert governor.state.log.outstanding is None


def test_a_members_records_are_mirrored_and_answered() -> None:
    owner, governor = Owner(), _governor()
    owner.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], []))
    published = LineageArrived(pack(batch(owner, note=owner.note())), pulled=False, node=OWNER.name)
    assert governor.take(published) == [], "nothing is signed under a time that nobody has borne out"
    governor = _trusting()
    effects = governor.take(published)
    (append,) = only(Append, effects)
    assert (append.origin, append.leaves) == (owner.origin, tuple(owner.leaves))
    assert {sign.use for sign in only(Sign, effects)} == {"witness", "attest"}
    assert governor.state.mirrors[owner.origin].frontier == Frontier.empty().append(leaf_hash(owner.leaves[0]))


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (LineageArrived(b"garbage", pulled=False), "malformed"),
        (NoteArrived(b"garbage"), "malformed"),
        (CosigArrived(b"garbage"), "malformed"),
        (Shed("overloaded", 1), "overloaded"),
        (Shed("draining", 1), "draining"),
    ],
)
def test_what_cannot_be_read_or_taken_is_counted(event: Event, code: str) -> None:
    governor = _fresh()
    assert governor.take(event) == []
    assert governor.state.noise == {code: 1}


def test_a_log_of_nobody_is_counted() -> None:
    governor, key = _fresh(), secret("nobody")
    text = Checkpoint("lab/nobody-1/e1", 1, bytes(32)).to_text()
    governor.take(NoteArrived(Note(text, (line(OWNER, "log", text),)).encode()))
    assert governor.state.noise == {"unknown_member": 1}
    assert key.public not in {member.log_key for member in LAB.roster.members}


def test_the_same_batch_twice_gives_the_same_bytes() -> None:
    governor = _fresh()
    events: list[Event] = [_intent(1), _intent(2, waiter=2), *_beats(NOW + 5, sequence=3), SyncArrived(3, "cc" * 32), Tick()]
    before = governor.state
    governor.now_ms += 500
    told = [(answers(governor.take(*events)), governor.state)]
    governor.state = before
    told.append((answers(governor.take(*events)), governor.state))
    assert told[0] == told[1]


def test_an_unsigned_no_is_all_that_garbage_gets() -> None:
    governor = _fresh()
    effects = governor.take(IntentArrived(1, b"garbage"))
    assert isinstance(unpack_answer(answers(effects)[1]), RefusedAnswer)
    assert [type(effect) for effect in effects] == [Send]
