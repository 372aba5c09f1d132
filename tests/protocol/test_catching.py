"""A member counts once it holds what was final when it started: until then nobody takes its heartbeats for more than a sign of life."""

from typing import Any

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.law.fold import restore
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.merkle import Frontier
from mesh.core.log.record import Incident, OutcomeRecorded
from mesh.core.messages import DeniedAnswer, RefusedAnswer, pack, unpack
from mesh.core.run.authorization import Denial
from mesh.errors import Refused
from mesh.limits import AUDIT_LOGS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol import barrier
from mesh.protocol.adoption import next_roster
from mesh.protocol.barrier import certificates_in
from mesh.protocol.catching import check_acts, lagging
from mesh.protocol.events import BarrierArrived, HeartbeatArrived, IntentArrived, LineageArrived, NoteArrived, OutcomesArrived, Tick
from mesh.protocol.freshness import Freshness, check_fresh, hear
from mesh.protocol.step import Append, Ask, Head, SetHead, Sign
from mesh.protocol.stored import Stored, StoredLog
from tests.protocol.machines import BOOT, LAB, ME, NOW, OWNER, Owner, answers, batch, beat, checkpoint, only, secret, told
from tests.protocol.startkit import NEW, OTHERS, Start
from tests.support.epochs import successor

BOUNDS = LAB.roster.bounds
K = [member for member in LAB.roster.members if member.name != ME.name][: LAB.roster.k]


def _owner(count: int = 3) -> Owner:
    owner = Owner()
    for number in range(count):
        owner.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
    return owner


THEIRS = _owner()


class Newcomer(Start):
    """The lab's first governor, which holds nothing, started among others who have made something final."""

    def __init__(self, *certificates: bytes, by: int = len(OTHERS)) -> None:
        super().__init__()
        shown = [item.decode() for item in certificates]
        self.hear(*(told(name, certificates=shown if at < by else []) for at, name in enumerate(OTHERS)))
        assert self.state.barrier is None
        self.take(*(HeartbeatArrived(beat(name, 1, self.now_ms, echo=[BOOT])) for name in OTHERS))

    def said(self) -> list[Heartbeat]:
        """The heartbeats of the last batch."""
        drafts = [effect.draft for effect in only(Sign, self.effects) if effect.use == "decision"]
        kind = envelope.kind_of(Heartbeat).payload_type
        return [msgspec.json.decode(draft.payload, type=Heartbeat) for draft in drafts if draft.payload_type == kind]

    def code_(self) -> str:
        try:
            check_acts(self.state.governance, self.state.fresh, self.state.mirrors, self.state.log, wall_ms=self.now_ms, now_ms=self.now_ms)
        except Refused as refusal:
            return refusal.code
        return ""

    def later(self, length_ms: int = BOUNDS.heartbeat_ms) -> list[Any]:
        self.now_ms += length_ms
        sequence = 2 + (self.now_ms - NOW)
        return self.take(Tick(), *(HeartbeatArrived(beat(name, sequence, self.now_ms)) for name in OTHERS))


# ------------------------------------------------------------------------------------------------------------------- what it says


def test_a_newcomer_says_that_it_is_behind_decides_nothing_catches_up_and_then_counts() -> None:
    newcomer = Newcomer(THEIRS.note(*K))
    assert newcomer.code_() == "catching_up"
    effects = newcomer.later()
    assert [said.behind for said in newcomer.said()] == [True]
    (ask,) = only(Ask, effects)
    assert (ask.origin, ask.first) == (THEIRS.origin, 0)
    newcomer.take(IntentArrived(7, LAB.request(LAB.intent(9, at_ms=NOW)[1], [])))
    denied = unpack(DeniedAnswer, answers(newcomer.effects)[7])
    assert envelope.read(Denial, bytes(denied.denial)).claims.code == "catching_up"
    effects = newcomer.take(LineageArrived(pack(batch(THEIRS, note=THEIRS.note(*K))), pulled=True, node=ask.member))
    assert [head.use for head in only(SetHead, effects) if head.origin == THEIRS.origin] == ["witness", "attest"]
    newcomer.later()
    assert [said.behind for said in newcomer.said()] == [False]
    assert newcomer.code_() == ""


def test_a_mesh_in_which_nothing_is_final_keeps_nobody_waiting() -> None:
    newcomer = Newcomer()
    newcomer.later()
    assert ([said.behind for said in newcomer.said()], newcomer.code_()) == ([False], "")


def test_who_holds_what_is_shown_counts_at_once() -> None:
    head = Head(3, THEIRS.log.frontier.root(), NOW // 1000 - 1)
    stored = StoredLog(frontier=THEIRS.log.frontier, last_ms=NOW, certified=0, witness=head, attest=head)
    start = Start()
    assert start.state.barrier is not None
    held = Stored(incarnation=0, own=NEW, mirrors={THEIRS.origin: stored})
    start.state = msgspec.structs.replace(start.state, barrier=msgspec.structs.replace(start.state.barrier, stored=held))
    start.hear(told(OTHERS[0], certificates=[THEIRS.note(*K).decode()]))
    assert start.waiting.goals == {}


def test_one_answer_is_enough_and_who_leaves_it_out_hides_nothing() -> None:
    assert Newcomer(THEIRS.note(*K), by=1).code_() == "catching_up"


def test_of_several_the_largest_is_what_must_be_held() -> None:
    newcomer = Newcomer(THEIRS.note(*K), THEIRS.note(*K, size=1), THEIRS.note(*K, size=2))
    assert newcomer.state.mirrors[THEIRS.origin].goal == 3


@pytest.mark.parametrize(
    "note",
    [
        THEIRS.note(*K[:-1]),
        THEIRS.note(),
        b"no note",
        checkpoint(THEIRS.leaves, *K, owner=OWNER).replace(b"lab/us-1/e1\n3", b"lab/us-1/e1\n9"),
        checkpoint(THEIRS.leaves, *K, owner=ME).replace(b"eu-1/e1", b"zz-1/e1"),
    ],
    ids=["below k", "the log's own line", "no note", "another text", "a log of nobody"],
)
def test_what_is_no_certificate_keeps_nobody_waiting(note: bytes) -> None:
    assert Newcomer(note).code_() == ""


def test_a_certificate_of_ones_own_log_is_no_goal() -> None:
    """What was signed of it is asked and shown otherwise."""
    own = Owner(ME)
    own.decide(LAB.request(LAB.intent(1, at_ms=NOW)[1], []))
    assert Newcomer(own.note(*K)).state.mirrors.keys() == {LAB.roster.origin(member) for member in LAB.roster.members} - {own.origin}


def test_it_says_what_it_lacks_most_of() -> None:
    other = Owner(LAB.roster.member("ap-1"))
    other.decide(LAB.request(LAB.intent(5, at_ms=NOW)[1], []))
    newcomer = Newcomer(other.note(*K), THEIRS.note(*K))
    assert [held.origin for held in lagging(newcomer.state.mirrors)] == [THEIRS.origin, other.origin]
    with pytest.raises(Refused) as caught:
        check_acts(LAB.governance, newcomer.state.fresh, newcomer.state.mirrors, newcomer.state.log, wall_ms=NOW, now_ms=NOW)
    assert (caught.value.code, caught.value.detail) == ("catching_up", f"0 of 3 final records of {THEIRS.origin} are here")


def test_a_clock_that_cannot_be_trusted_is_said_first() -> None:
    newcomer = Newcomer(THEIRS.note(*K))
    with pytest.raises(Refused) as caught:
        check_acts(LAB.governance, newcomer.state.fresh, newcomer.state.mirrors, newcomer.state.log, wall_ms=NOW + 1_000_000, now_ms=NOW)
    assert caught.value.code == "clock_unsure"


def test_while_the_next_roster_has_begun_who_is_behind_fetches_and_signs_nothing() -> None:
    """Or k would never hold what they are waited for."""
    genesis = envelope.read(type(LAB.roster), LAB.roster_envelope)
    after = successor(genesis, not_before_ms=genesis.claims.not_before_ms + 10_000)
    newcomer = Newcomer(THEIRS.note(*K))
    newcomer.state = msgspec.structs.replace(newcomer.state, governance=restore(LAB.governance, [after]))
    assert newcomer.code_() == "roster_pending"
    (ask,) = only(Ask, newcomer.later())
    effects = newcomer.take(LineageArrived(pack(batch(THEIRS, note=THEIRS.note(*K))), pulled=True, node=ask.member))
    assert (len(only(Append, effects)), only(SetHead, effects), only(Sign, effects)) == (1, [], [])
    newcomer.later()
    assert [said.behind for said in newcomer.said()] == [False]


def test_what_is_found_while_nothing_may_be_recorded_is_recorded_once_something_may() -> None:
    other = Owner()
    for number in range(20, 23):
        other.decide(LAB.request(LAB.intent(number, at_ms=NOW)[1], []))
    newcomer = Newcomer(THEIRS.note(*K))
    held = newcomer.state.mirrors[THEIRS.origin]
    cosigned = msgspec.structs.replace(held, witnessed=Head(3, other.log.frontier.root(), NOW // 1000 - 1))
    newcomer.state = msgspec.structs.replace(newcomer.state, mirrors={**newcomer.state.mirrors, THEIRS.origin: cosigned})
    records = LineageArrived(pack(batch(THEIRS, note=THEIRS.note(*K))), pulled=True, node=OTHERS[0])
    newcomer.take(records, wall_ms=newcomer.now_ms + 1_000_000)
    assert newcomer.state.mirrors[THEIRS.origin].conflicted
    assert [record for record in newcomer.records() if record.origin != THEIRS.origin] == [], "its clock is not to be trusted"
    newcomer.later()
    assert [record.code for record in newcomer.records() if isinstance(record, Incident)] == ["log_conflict"]


# ----------------------------------------------------------------------------------------------------------- what others make of it


def _heard(name: str, *, behind: bool, fresh: Freshness | None = None, sequence: int = 1, epoch: int = 1) -> Freshness:
    statement = envelope.read(Heartbeat, beat(name, sequence, NOW, echo=[BOOT], behind=behind, roster_epoch=epoch))
    return hear(fresh or Freshness.begin(BOOT), statement.claims, statement.id, now_ms=NOW, bounds=BOUNDS)


def test_whoever_is_behind_vouches_for_nothing_and_answers_no_start() -> None:
    fresh = Freshness.begin(BOOT)
    for member in LAB.roster.members[: LAB.roster.k - 1]:
        fresh = _heard(member.name, behind=False, fresh=fresh)
    last = LAB.roster.members[-1].name
    lagging_ = _heard(last, behind=True, fresh=fresh)
    assert last not in lagging_.echoed
    assert lagging_.timed.keys() == {*fresh.timed, last}, "its clock counts"
    with pytest.raises(Refused) as caught:
        check_fresh(msgspec.structs.replace(lagging_, echoed=frozenset(LAB.keys)), LAB.governance.frontier, LAB.roster, now_ms=NOW)
    assert caught.value.code == "stale"
    whole = _heard(last, behind=False, fresh=lagging_, sequence=2)
    assert last in check_fresh(whole, LAB.governance.frontier, LAB.roster, now_ms=NOW)


def test_whoever_is_behind_is_none_of_the_k_by_whom_a_roster_is_left() -> None:
    genesis = envelope.read(type(LAB.roster), LAB.roster_envelope)
    after = successor(genesis)
    governance = restore(LAB.governance, [after])
    for behind, over in ((True, False), (False, True)):
        fresh = Freshness.begin(BOOT)
        for member in LAB.roster.members[: LAB.roster.k]:
            data = beat(member.name, 1, NOW, frontier=list(governance.frontier), behind=behind)
            statement = envelope.read(Heartbeat, data)
            fresh = hear(fresh, statement.claims, statement.id, now_ms=NOW, bounds=BOUNDS)
        later_ms = max(NOW, after.claims.not_before_ms) + 2 * BOUNDS.stale_ms
        assert (next_roster(governance, fresh, now_ms=later_ms) is not None) is over
        assert bool(fresh.shown) is over


def test_that_somebody_has_gone_over_is_believed_of_whoever_is_behind_too() -> None:
    genesis = envelope.read(type(LAB.roster), LAB.roster_envelope)
    governance = restore(LAB.governance, [successor(genesis)])
    fresh = Freshness.begin(BOOT)
    for member in LAB.roster.members[: LAB.roster.f + 1]:
        assert next_roster(governance, fresh, now_ms=NOW + 60_000) is None
        fresh = _heard(member.name, behind=True, fresh=fresh, epoch=2)
    assert next_roster(governance, fresh, now_ms=NOW + 60_000) is not None


# -------------------------------------------------------------------------------------------------------------------------- limits


def test_an_answer_holds_as_many_certificates_as_may_be_and_not_one_more() -> None:
    def shown(notes: list[bytes], by: str = OTHERS[0]) -> list[str]:
        return certificates_in(notes, by=by, nonce=BOOT)

    assert len(shown([b"x"] * AUDIT_LOGS_MAX)) == AUDIT_LOGS_MAX
    assert len(shown([b"x"] * (AUDIT_LOGS_MAX + 1))) == AUDIT_LOGS_MAX
    half = b"x" * (MESSAGE_BYTES_MAX // 4)
    assert len(shown([half] * 2)) == 2
    assert len(shown([half] * 3)) == 2
    start = Start()
    note = THEIRS.note(*K).decode()
    start.hear(told(OTHERS[0], certificates=[note] * AUDIT_LOGS_MAX))
    assert list(start.waiting.goals) == [THEIRS.origin]
    start = Start()
    start.hear(told(OTHERS[0], certificates=[note] * (AUDIT_LOGS_MAX + 1)))
    assert (start.waiting.answers, start.waiting.goals) == ({}, {})


def test_where_not_all_fit_each_member_shows_others_so_that_all_are_shown() -> None:
    notes = [b"%d " % number + b"x" * (MESSAGE_BYTES_MAX // 20) for number in range(30)]
    shown = [set(certificates_in(notes, by=f"node-{number}", nonce=BOOT)) for number in range(20)]
    assert all(len(some) < 15 for some in shown)
    assert len(set().union(*shown)) == 30
    assert certificates_in(notes, by="node-1", nonce=BOOT) != certificates_in(notes, by="node-1", nonce="ab" * 32)


def test_of_one_answer_the_largest_certificate_of_each_log_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, real = list[int](), verify_certificate

    def verify(note: bytes, **named: Any) -> Any:
        looked.append(read_checkpoint(note).size)
        return real(note, **named)

    monkeypatch.setattr("mesh.protocol.barrier.verify_certificate", verify)
    start = Start()
    start.hear(told(OTHERS[0], certificates=[THEIRS.note(*K, size=size).decode() for size in (1, 3, 2)]))
    assert looked == [3]


def test_a_certificate_that_is_believed_is_a_goal_though_n_has_grown_since() -> None:
    """Of seven members any five need not have an honest one of the four who attested it; but one of those is there."""
    one = LAB.roster.members[0]
    uses = ("log", "witness", "attest", "decision")
    later = [
        msgspec.structs.replace(one, name=f"new-{number}", **{f"{use}_key": secret(f"{number} {use}").public for use in uses})
        for number in range(3)
    ]
    grown = msgspec.structs.replace(LAB.roster, epoch=2, members=[*LAB.roster.members, *later], f=2, k=5)
    for by, goal in ((LAB.roster.members, True), (K, False)):
        start = Start()
        data = told(OTHERS[0], certificates=[THEIRS.note(*by).decode()])
        taken = barrier.take_answer(start.waiting, data, LAB.roster, ME, (LAB.roster, grown))
        assert bool(taken.goals) is goal


def test_an_answer_is_taken_with_or_without_a_note_that_says_nothing() -> None:
    start = Start()
    start.take(BarrierArrived(told(OTHERS[0], certificates=["spoilt", THEIRS.note(*K).decode()])))
    assert (len(start.waiting.answers), list(start.waiting.goals)) == (1, [THEIRS.origin])


def test_a_note_about_a_log_that_was_never_a_members_is_nobodys() -> None:
    newcomer = Newcomer()
    stranger = checkpoint(THEIRS.leaves, *K).replace(b"us-1/e1", b"zz-1/e1")
    newcomer.take(NoteArrived(stranger))
    assert newcomer.state.noise == {"unknown_member": 1}


def test_a_governor_whose_log_others_do_not_follow_decides_nothing_and_no_answer_lengthens_it() -> None:
    governor = Newcomer()
    governor.later()
    most = BOUNDS.backlog_max
    full = msgspec.structs.replace(governor.state.log, frontier=Frontier.empty().extend([bytes(32)] * (most + 1)))
    governor.state = msgspec.structs.replace(governor.state, log=full)
    started, _ = LAB.lived("aa" * 32, "bb" * 32, at_ms=NOW)
    governor.take(IntentArrived(7, LAB.request(LAB.intent(9, at_ms=NOW)[1], [])), OutcomesArrived(8, LAB.report([started])))
    answer = unpack(RefusedAnswer, answers(governor.effects)[7])
    assert (answer.code, answer.detail) == ("backlog_full", f"{most + 1} records of {full.origin} are not final, at most {most} may be")
    assert [type(record) for record in governor.records()] == [OutcomeRecorded], "what has happened is still evidence"
    assert governor.state.noise == {"backlog_full": 1}
    governor.state = msgspec.structs.replace(governor.state, log=msgspec.structs.replace(governor.state.log, certified=2))
    assert governor.code_() == "", "as soon as enough of it is final"
