"""A start signs nothing until enough others have told, with its own signatures, what it signed before."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.law.barrier import MARKS_MAX, Barrier, Mark, merged
from mesh.core.law.fold import restore
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Note
from mesh.core.messages import BarrierAnswer, BarrierAsked, LawBatch, RefusedAnswer, pack, unpack
from mesh.errors import Alarm
from mesh.limits import INT_MAX
from mesh.protocol import barrier
from mesh.protocol.barrier import answer_draft, asks
from mesh.protocol.documents import Documents
from mesh.protocol.events import (
    BarrierArrived,
    Event,
    HeartbeatArrived,
    IntentArrived,
    LawArrived,
    LineageArrived,
    NoteArrived,
    OutcomesArrived,
    Stopping,
    SyncArrived,
    Tick,
)
from mesh.protocol.holding import MirrorContext
from mesh.protocol.lineage import Outstanding, Writer
from mesh.protocol.serving import pull_answer
from mesh.protocol.step import Announce, Append, Ask, AskLaw, Head, InsertOnce, PutNote, SetHead, SetMeta, Sign
from mesh.protocol.stored import INCARNATION, REFILLED, Stored, StoredLog
from mesh.testing.world.setting import setting
from tests.core.kit import refuses
from tests.protocol.machines import (
    BOOT,
    LAB,
    ME,
    NOW,
    OWNER,
    Governor,
    Owner,
    answers,
    batch,
    beat,
    checkpoint,
    line,
    only,
    revoking,
    told,
)
from tests.protocol.startkit import NEW, OTHERS, PATIENCE_MS, Start
from tests.support.revocations import STREAM, chained, governance

ORIGIN = LAB.roster.origin(ME)
PLAIN = governance(LAB)
GOOD = chained(4)


def _written(count: int = 3) -> Owner:
    """This node's own log as it was before its storage was set back."""
    owner = Owner(ME)
    for number in range(count):
        owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
    return owner


def _held(owner: Owner, size: int) -> StoredLog:
    """A copy of its storage, taken when it had so many records."""
    frontier = Frontier.empty().extend([leaf_hash(leaf) for leaf in owner.leaves[:size]])
    head = Head(size, frontier.root(), NOW // 1000 - 9)
    return StoredLog(frontier=frontier, last_ms=NOW - 9_000, certified=size, log=head, witness=head, attest=head) if size else NEW


# ------------------------------------------------------------------------------------------------------- before it is through


def test_whoever_has_nobody_to_ask_starts_at_once_unless_it_signed_more_than_it_holds() -> None:
    roster = setting(1).governance.roster
    alone = roster.members[0]
    stored = Stored(incarnation=3, own=NEW, mirrors={})
    assert barrier.pending(roster, alone, stored, boot=BOOT, now_ms=NOW) is None
    behind = msgspec.structs.replace(stored, own=msgspec.structs.replace(NEW, log=Head(1, b"\0" * 32, 0)))
    with pytest.raises(Alarm) as caught:
        barrier.pending(roster, alone, behind, boot=BOOT, now_ms=NOW)
    assert caught.value.code == "storage_rolled_back"


_EVENTS: list[Callable[[], Event]] = [
    Tick,
    Stopping,
    lambda: HeartbeatArrived(beat(OWNER.name, 1, NOW, echo=[BOOT])),
    lambda: IntentArrived(1, LAB.request(LAB.intent(1, at_ms=NOW)[1], [])),
    lambda: OutcomesArrived(2, b"{}"),
    lambda: SyncArrived(3, "ab" * 32),
    lambda: LineageArrived(pack(batch(_other(), note=_other().note())), pulled=False, node=OWNER.name),
    lambda: NoteArrived(_other().note()),
]


def _other() -> Owner:
    owner = Owner()
    owner.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], []))
    return owner


def test_nothing_is_signed_or_recorded_before_k_less_one_others_have_answered_and_whoever_waits_is_told() -> None:
    start = Start(incarnation=4)
    said: dict[int, bytes] = {}
    for round_ in range(3):
        start.now_ms += PATIENCE_MS
        effects = start.take(*(make() for make in _EVENTS))
        assert not only(Sign, effects)
        assert not only(Append, effects)
        assert not only(Announce, effects)
        said |= answers(effects)
        if round_ == 1:
            start.hear(told(OTHERS[0]))
    assert {waiter: unpack(RefusedAnswer, data).code for waiter, data in said.items()} == dict.fromkeys((1, 2, 3), "barrier_pending")
    assert start.state.incarnation == 0
    assert not only(SetMeta, start.begun)
    assert start.code() == "barrier_pending"


def test_k_less_one_answers_are_enough_once_the_others_had_a_heartbeats_time() -> None:
    start = Start(incarnation=4)
    assert not only(Sign, start.hear(*(told(name) for name in OTHERS[:2])))
    assert not only(Sign, start.pass_time(PATIENCE_MS - 1))
    effects = start.pass_time(1)
    assert SetMeta(INCARNATION, 5) in effects
    assert only(Sign, effects), "its first heartbeat"
    assert (start.state.barrier, start.state.incarnation) == (None, 5)


def test_who_has_heard_everybody_waits_no_longer() -> None:
    start = Start()
    effects = start.hear(*(told(name) for name in OTHERS))
    assert start.state.barrier is None
    assert SetMeta(INCARNATION, 1) in effects


def test_who_asked_in_the_step_in_which_it_is_through_gets_its_heartbeat() -> None:
    start = Start()
    effects = start.take(SyncArrived(7, "ab" * 32), *(BarrierArrived(told(name)) for name in OTHERS))
    assert b'"answer":"sync"' in answers(effects)[7]


# ----------------------------------------------------------------------------------------------------------- what is believed


def _spoilt(field: str, value: Any) -> bytes:
    mark = _marks(_written().note())[0]
    return told(OTHERS[0], marks=[msgspec.structs.replace(mark, **{field: value})])


def _marks(*notes: bytes) -> list[Mark]:
    message = unpack(BarrierAnswer, told(OTHERS[0], *notes))
    return list(envelope.read(Barrier, bytes(message.barrier)).claims.marks)


def _own_beat(incarnation: int, **changes: Any) -> bytes:
    return beat(changes.pop("member", ME.name), 1, NOW, incarnation=incarnation, **changes)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "garbage": (lambda: b"\xff{", "malformed"),
    "of another kind": (lambda: pack(RefusedAnswer(code="overloaded", detail="")), "malformed"),
    "of another boot": (lambda: told(OTHERS[0], nonce="cd" * 32), "stale"),
    "to somebody else": (lambda: told(OTHERS[0], asker=OTHERS[1]), "stale"),
    "of another mesh": (lambda: told(OTHERS[0], mesh="elsewhere"), "wrong_mesh"),
    "of a stranger": (lambda: told(OTHERS[0], member="nobody"), "unknown_member"),
    "of this node itself": (lambda: told(ME.name), "unknown_member"),
    "under another's name": (lambda: told(OTHERS[0], by=OTHERS[1]), "bad_signature"),
    "an incarnation that is not shown": (lambda: told(OTHERS[0], incarnation=INT_MAX), "malformed"),
    "an incarnation less than is shown": (lambda: told(OTHERS[0], heartbeat=_own_beat(7), incarnation=6), "malformed"),
    "a heartbeat of somebody else": (lambda: told(OTHERS[0], heartbeat=_own_beat(7, member=OTHERS[1])), "bad_signature"),
    "a larger size": (lambda: _spoilt("size", INT_MAX), "bad_signature"),
    "another root": (lambda: _spoilt("root", "ab" * 32), "bad_signature"),
    "another key's": (lambda: _spoilt("use", "witness"), "bad_signature"),
    "another log's": (lambda: _spoilt("origin", LAB.roster.origin(OWNER)), "malformed"),
    "a time that a log does not sign": (lambda: _spoilt("time_s", 1), "malformed"),
    "the same twice": (lambda: told(OTHERS[0], marks=2 * _marks(_written().note())), "malformed"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_answer_that_shows_less_than_it_says_is_none(name: str) -> None:
    make, code = BAD[name]
    start = Start()
    start.hear(make())
    assert (dict(start.waiting.answers), dict(start.state.noise)) == ({}, {code: 1})


def test_of_a_log_that_this_roster_does_not_know_nothing_binds_and_the_rest_of_the_answer_counts() -> None:
    """Whoever answers under the roster before, which named one member more, shows what was signed of that one's log too."""
    start = Start()
    start.hear(_spoilt("origin", "lab/gone/e1"))
    assert {name: shown.marks for name, shown in start.waiting.answers.items()} == {OTHERS[0]: ()}


def test_an_answer_counts_once_and_one_that_comes_late_changes_nothing() -> None:
    start = Start()
    for _ in range(3):
        start.hear(told(OTHERS[0]))
    start.pass_time()
    assert list(start.waiting.answers) == [OTHERS[0]]
    start.hear(told(OTHERS[1]))
    assert start.state.incarnation == 1
    start.hear(told(OTHERS[2], _written().note(), heartbeat=_own_beat(99)))
    assert (start.state.barrier, start.state.incarnation, start.state.log.frontier.size) == (None, 1, 0)


def test_who_held_other_governance_when_it_answered_is_asked_again() -> None:
    """Whether what it held of a forked stream is part of what is held now cannot be seen from an old answer."""
    start = Start(governance=PLAIN)
    forked = StreamHead(stream=STREAM, sequence=2, head="ab" * 32, forked=True, held="")
    other = sorted([*PLAIN.frontier, forked], key=lambda head: head.stream)
    start.hear(told(OTHERS[0], frontier=other), told(OTHERS[1], frontier=other), told(OTHERS[2], frontier=other))
    start.pass_time(60_000)
    assert all(asks(start.waiting, name, PLAIN) for name in OTHERS)
    start.hear(*(told(name, frontier=list(PLAIN.frontier)) for name in OTHERS[:2]))
    start.pass_time()
    assert start.state.barrier is None


def test_marks_are_bounded() -> None:
    mark = _marks(_written().note())[0]
    marks = [msgspec.structs.replace(mark, size=size) for size in range(MARKS_MAX + 1)]
    claims = envelope.read(Barrier, bytes(unpack(BarrierAnswer, told(OTHERS[0])).barrier)).claims
    for count, fits in ((MARKS_MAX, True), (MARKS_MAX + 1, False)):
        data = canonical.encode(msgspec.structs.replace(claims, marks=marks[:count]))
        if fits:
            assert len(canonical.decode(Barrier, data, bytes_max=1 << 20).marks) == count
        else:
            with refuses("malformed"):
                canonical.decode(Barrier, data, bytes_max=1 << 20)


# ----------------------------------------------------------------------------------------------------------------- set back


def test_the_incarnation_is_one_more_than_any_that_was_shown_and_then_all_must_answer() -> None:
    start = Start(incarnation=4)
    start.hear(told(OTHERS[0], heartbeat=_own_beat(9)), told(OTHERS[1]))
    assert not only(Sign, start.pass_time(60_000)), "storage was set back: what it signed may be with the third"
    assert start.code() == "storage_rolled_back"
    effects = start.hear(told(OTHERS[2]))
    assert SetMeta(INCARNATION, 10) in effects
    assert start.state.incarnation == 10


def test_what_storage_knows_itself_is_not_set_back() -> None:
    owner = _written()
    start = Start(_held(owner, 3), incarnation=4)
    start.hear(*(told(name, owner.note(), heartbeat=_own_beat(4)) for name in OTHERS[:2]))
    start.pass_time()
    assert (start.state.barrier, start.state.incarnation) == (None, 5)
    assert not only(SetHead, start.effects)


def test_a_log_shorter_than_what_its_key_has_signed_is_fetched_back_and_goes_on_where_it_was() -> None:
    owner = _written(4)
    note = checkpoint(owner.leaves, ME, owner=ME)
    start = Start(_held(owner, 1), incarnation=2)
    effects = start.take(BarrierArrived(told(OTHERS[0], note)), BarrierArrived(told(OTHERS[1])), Tick())
    (ask,) = only(Ask, effects)
    assert (ask.origin, ask.first, ask.member in OTHERS) == (ORIGIN, 1, True)
    start.now_ms += 60_000
    effects = start.take(LineageArrived(pack(batch(owner, 1, note=note)), pulled=True, node=ask.member), Tick())
    (append,) = only(Append, effects)
    assert (append.first, append.leaves) == (1, tuple(owner.leaves[1:]))
    used = {effect.key: effect.index for effect in only(InsertOnce, effects)}
    assert sorted(used.values()) == [1, 2, 3]
    assert not only(SetHead, effects)
    assert start.code() == "storage_rolled_back"
    effects = start.hear(told(OTHERS[2]))
    head = Head(4, owner.log.frontier.root(), NOW // 1000)
    assert only(SetHead, effects) == [SetHead(use, ORIGIN, head) for use in ("log", "witness", "attest")]
    assert (start.state.log.frontier, start.state.log.last_ms) == (owner.log.frontier, owner.log.last_ms)
    assert start.state.log.outstanding is not None
    assert start.state.log.outstanding.head == head, "signed again with the same bytes until it is certified"


def test_a_start_that_was_interrupted_after_its_log_came_back_is_taken_up_and_is_still_set_back() -> None:
    owner = _written(4)
    start = Start(_held(owner, 1))
    start.take(*(BarrierArrived(told(name, owner.note())) for name in OTHERS[:2]), Tick())
    effects = start.take(LineageArrived(pack(batch(owner, 1)), pulled=True, node=OTHERS[0]))
    refilled = {effect.key: effect.value for effect in only(SetMeta, effects)}
    assert refilled == {REFILLED: 4}
    copy = msgspec.structs.replace(_held(owner, 1), frontier=owner.log.frontier, last_ms=owner.log.last_ms)
    again = Start(copy, refilled=4)
    again.hear(told(OTHERS[0], owner.note()), told(OTHERS[1], owner.note(size=3)))
    again.pass_time(60_000)
    assert again.code() == "storage_rolled_back", "the third has not answered"
    again.hear(told(OTHERS[2]))
    assert (again.state.barrier, again.state.log.frontier) == (None, owner.log.frontier)


def test_nothing_but_what_its_own_key_has_signed_comes_into_its_log() -> None:
    owner, liar = _written(4), _written(1)
    liar.decide(*(LAB.request(LAB.intent(40 + number, at_ms=NOW)[1], []) for number in range(3)))
    start = Start(_held(owner, 1))
    start.take(*(BarrierArrived(told(name, owner.note())) for name in OTHERS), Tick())
    for node in OTHERS:
        data = pull_answer(ORIGIN, 1, liar.leaves[1:], liar.bodies, {}, b"")
        assert not only(Append, start.take(LineageArrived(data, pulled=True, node=node)))
    stranger = pull_answer(ORIGIN, 1, owner.leaves[1:], owner.bodies, {}, checkpoint(owner.leaves, owner=OWNER))
    assert not only(Append, start.take(LineageArrived(stranger, pulled=False, node=ME.name)))
    assert start.waiting.own.frontier.size == 1
    asked = [ask.member for _ in range(8) for ask in only(Ask, start.pass_time(300))]
    assert set(asked) == set(OTHERS), "each in turn"
    start.take(LineageArrived(pack(batch(owner, 1)), pulled=True, node=asked[-1]))
    start.pass_time(300)
    assert start.state.log.frontier == owner.log.frontier


def test_a_log_that_nobody_can_give_back_stays_silent() -> None:
    owner = _written(4)
    start = Start(_held(owner, 1))
    start.take(*(BarrierArrived(told(name, owner.note())) for name in OTHERS), Tick())
    for _ in range(20):
        assert not only(Sign, start.pass_time(1_000))
        assert start.code() == "storage_rolled_back"


def test_two_roots_under_ones_own_signature_are_an_alarm() -> None:
    mine, other = _written(3), _written(2)
    other.decide(LAB.request(LAB.intent(77, at_ms=NOW)[1], []))
    with pytest.raises(Alarm) as caught:
        Start(_held(mine, 3)).hear(told(OTHERS[0], other.note()))
    assert caught.value.code == "storage_rolled_back"


def test_a_checkpoint_of_fewer_records_than_are_held_that_storage_does_not_know_is_an_alarm() -> None:
    owner = _written(5)
    copy = msgspec.structs.replace(_held(owner, 2), frontier=owner.log.frontier)
    with pytest.raises(Alarm) as caught:
        Start(copy).hear(told(OTHERS[0], owner.note(size=4)))
    assert caught.value.code == "storage_rolled_back"
    for size in (1, 2, 5):
        Start(copy).hear(told(OTHERS[0], owner.note(size=size)))


def test_there_is_an_end_of_incarnations() -> None:
    start = Start()
    with pytest.raises(Alarm) as caught:
        start.hear(*(told(name, heartbeat=_own_beat(INT_MAX)) for name in OTHERS))
    assert caught.value.code == "storage_rolled_back"


def test_what_it_cosigned_of_others_is_remembered_and_nothing_more_is_until_that_is_held_again() -> None:
    owner = Owner()
    for number in range(4):
        owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
    cosigned = checkpoint(owner.leaves[:3], ME, owner=OWNER)
    start = Start()
    effects = start.hear(*(told(name, cosigned) for name in OTHERS))
    head = Head(3, Frontier.empty().extend([leaf_hash(leaf) for leaf in owner.leaves[:3]]).root(), NOW // 1000)
    assert only(SetHead, effects) == [SetHead("witness", owner.origin, head)]
    start.take(*(HeartbeatArrived(beat(name, 1, NOW, echo=[BOOT])) for name in OTHERS), Tick())
    early = LineageArrived(pack(batch(owner, 0, 2, owner.note(size=2))), pulled=False, node=OWNER.name)
    effects = start.take(early)
    assert only(Append, effects)
    assert not only(SetHead, effects)
    assert not [item for item in only(Sign, effects) if item.use in {"witness", "attest"}]
    start.now_ms += 1_100
    effects = start.take(LineageArrived(pack(batch(owner, 2, 1, owner.note(size=3))), pulled=False, node=OWNER.name))
    assert only(SetHead, effects) == [SetHead(use, owner.origin, head) for use in ("witness", "attest")], "with the time it had"
    effects = start.take(LineageArrived(pack(batch(owner, 3, 1, owner.note())), pulled=False, node=OWNER.name))
    assert {item.head.size for item in only(SetHead, effects)} == {4}


def test_a_log_that_does_not_lead_to_what_was_cosigned_before_shows_two_histories() -> None:
    owner, other = Owner(), Owner()
    for number in range(3):
        owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
        other.decide(LAB.request(LAB.intent(50 + number, at_ms=NOW)[1], []))
    start = Start()
    start.hear(*(told(name, checkpoint(owner.leaves[:2], ME, owner=OWNER)) for name in OTHERS))
    start.take(*(HeartbeatArrived(beat(name, 1, NOW, echo=[BOOT])) for name in OTHERS), Tick())
    effects = start.take(LineageArrived(pack(batch(other, note=other.note())), pulled=False, node=OWNER.name))
    assert not only(SetHead, effects)
    assert start.state.mirrors[owner.origin].conflicted


# ------------------------------------------------------------------------------------------------------------------------ law


def test_it_says_nothing_before_it_holds_what_k_less_one_others_hold_and_asks_whoever_answered() -> None:
    start = Start(governance=PLAIN)
    held = restore(PLAIN, GOOD[:1])
    start.take(*(BarrierArrived(told(name, frontier=held.frontier)) for name in OTHERS))
    asks = only(AskLaw, start.pass_time())
    assert len(asks) == 1, "though nobody's heartbeat was heard"
    assert asks[0].member in OTHERS
    assert not only(Sign, start.effects)
    start.take(*(_law(statement.envelope, asks[0].member) for statement in GOOD[:1]))
    assert start.state.barrier is None
    start.pass_time()
    (said,) = [item.draft for item in only(Sign, start.effects) if item.use == "decision"]
    assert canonical.decode(Heartbeat, said.payload, bytes_max=1 << 20).frontier == list(held.frontier)


def _law(data: bytes, node: str) -> Event:
    return LawArrived(pack(LawBatch(statements=[msgspec.Raw(data)])), node)


def test_one_that_claims_law_which_nobody_holds_stops_nobody() -> None:
    start = Start(governance=PLAIN)
    absurd = StreamHead(stream=STREAM, sequence=INT_MAX, head="ab" * 32, forked=False, held="")
    lie = sorted([*PLAIN.frontier, absurd], key=lambda head: head.stream)
    start.hear(told(OTHERS[0], frontier=lie), told(OTHERS[1]))
    start.pass_time(60_000)
    assert start.code() == "barrier_pending"
    start.hear(told(OTHERS[2]))
    assert start.state.barrier is None


# ------------------------------------------------------------------------------------------------------------------ answering


def test_an_answer_shows_the_largest_of_each_and_leaves_out_what_is_spoilt() -> None:
    owner = _written(3)
    asked = BarrierAsked(asker=ME.name, nonce=BOOT)
    spoilt = owner.note().replace(b"\n3\n", b"\n4\n")
    notes = [owner.note(size=1), owner.note(), spoilt, b"no note", checkpoint(owner.leaves[:2], ME, OWNER, owner=ME)]
    draft = answer_draft(LAB.roster, OWNER, asked, LAB.governance.frontier, notes=notes, heartbeat=_own_beat(8))
    said = canonical.decode(Barrier, draft.payload, bytes_max=1 << 20)
    assert [(mark.use, mark.origin, mark.size) for mark in said.marks] == [("attest", ORIGIN, 2), ("log", ORIGIN, 3)]
    assert (said.member, said.asker, said.nonce, said.incarnation) == (OWNER.name, ME.name, BOOT, 8)
    assert said.frontier == list(LAB.governance.frontier)
    assert merged([*said.marks, *said.marks]) == said.marks


def test_nobody_but_a_member_is_told_anything() -> None:
    with refuses("unknown_member"):
        answer_draft(LAB.roster, OWNER, BarrierAsked(asker="nobody", nonce=BOOT), (), notes=(), heartbeat=b"")


def test_the_first_heartbeat_of_a_larger_incarnation_is_kept_and_no_other() -> None:
    governor = Governor()
    name, origin = OWNER.name, LAB.roster.origin(OWNER)
    kept = [
        [(note.space, note.size) for note in only(PutNote, governor.take(HeartbeatArrived(beat(name, sequence, NOW, incarnation=number))))]
        for number, sequence in ((3, 1), (3, 2), (2, 9), (7, 0))
    ]
    assert kept == [[("heartbeat", 3)], [], [], [("heartbeat", 7)]]
    (note,) = only(PutNote, governor.effects)
    assert note.origin == origin
    assert envelope.read(Heartbeat, note.note).verify(OWNER.decision_key).incarnation == 7


def test_what_was_heard_and_not_stored_is_shown_too() -> None:
    governor, owner = Governor(), _written(2)
    text = Checkpoint(ORIGIN, 2, owner.log.frontier.root()).to_text()
    note = Note(text, (line(ME, "log", text), line(OWNER, "witness", text)))
    part = Outstanding(Head(2, owner.log.frontier.root(), 1), text, {item.name: item for item in note.lines}, 0)
    log = msgspec.structs.replace(governor.state.log, outstanding=part)
    (shown,) = barrier.heard_notes({}, log, LAB.roster.origin(OWNER))
    asked = BarrierAsked(asker=OWNER.name, nonce=BOOT)
    draft = answer_draft(LAB.roster, ME, asked, (), notes=[shown], heartbeat=b"")
    said = canonical.decode(Barrier, draft.payload, bytes_max=1 << 20)
    assert [(mark.use, mark.origin, mark.size, mark.time_s) for mark in said.marks] == [("witness", ORIGIN, 2, NOW // 1000)]


def test_records_that_were_not_asked_for_at_a_start_change_nothing() -> None:
    owner = _written(2)
    start = Start()
    writer = Writer(start.state.log, mesh=LAB.roster.mesh, now_ms=NOW)
    context = MirrorContext(LAB.governance, ME, ME, writer, Documents(), LAB.engine, NOW)
    state, effects = barrier.refill(start.waiting, batch(owner, note=owner.note()), context, helper=OWNER.name)
    assert (state, effects) == (start.waiting, [])


def test_a_view_with_more_revoked_is_no_reason_to_wait() -> None:
    start = Start(governance=revoking(("subject", "spiffe://lab/agent/anna")))
    start.hear(*(told(name) for name in OTHERS))
    assert start.state.barrier is None
