"""One governor as a value: every event of a batch is folded through the log, the mirrors, freshness and the intake.

Rules
-----
1. A batch is one step: its effects are performed by :func:`mesh.protocol.step.phases`, in that order.
2. Intents are decided after everything else of the batch was taken in, so a decision sees the newest heartbeats.
3. Nothing here reads a clock, a disk or a random number; ``now_ms`` is the steady time, ``wall_ms`` the wall clock's.
4. Garbage changes nothing: what cannot be read is counted, and the aggregate recorded at most every :data:`NOISE_MS`.
5. The state is small; what grows is in storage, and what must be known of it is handed in as :class:`Facts`.
6. Until its start is through (:mod:`mesh.protocol.barrier`) it signs nothing at all, and refuses whoever waits for a signature.
7. While the clock is not trusted, or no roster may be acted under (:mod:`mesh.protocol.adoption`), nothing is decided, recorded,
   cosigned or attested here: what is signed under a time to come binds this node until then. Who asks is refused unsigned, and
   counted. A start is recorded once it is trusted.
8. Logs of former members are mirrored like those of members, and certified together (:mod:`mesh.protocol.together`).
9. It decides nothing until it holds what was final when it started, or while its own log is not followed (:mod:`mesh.protocol.catching`).
10. Who goes over to the next roster says so in its state, once that is durable, and begins anew.
"""

from collections.abc import Sequence
from functools import partial
from operator import methodcaller
from typing import Final

import msgspec

from mesh.core import subjects
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.barrier import shown_beat
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.law.proofs import AnyProof
from mesh.core.law.roster import Member
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.record import Change, GovernanceChanged, Noise
from mesh.core.messages import LineageBatch, SyncAnswer, unpack
from mesh.core.run.authorization import RecordRef
from mesh.errors import Refused
from mesh.limits import BATCH_EVENTS_MAX
from mesh.protocol import accusing, barrier, decide, lineage, members, mirror, proven, together
from mesh.protocol.adoption import is_sure, next_roster
from mesh.protocol.attester import located_ids
from mesh.protocol.barrier import Pending
from mesh.protocol.catching import FULL, check_acts, lagging
from mesh.protocol.documents import Documents
from mesh.protocol.entangling import entangle
from mesh.protocol.events import (
    AccusationArrived,
    BarrierArrived,
    CosigArrived,
    Event,
    HeartbeatArrived,
    IntentArrived,
    LawArrived,
    LineageArrived,
    NoteArrived,
    OfferArrived,
    OutcomesArrived,
    Shed,
    Stopping,
    SyncArrived,
    Tick,
)
from mesh.protocol.freshness import Heard, hear, leap
from mesh.protocol.gossip import Gossip, Judged, ToldIncident, pruned_fact
from mesh.protocol.hearing import Hearing, is_heard
from mesh.protocol.holding import Mirror, MirrorContext
from mesh.protocol.intake import Intake, refuse
from mesh.protocol.lineage import Writer
from mesh.protocol.outcomes import take_outcomes
from mesh.protocol.state import Facts, GovernorState
from mesh.protocol.step import Effect, Locate, PutNote, Reply, Send, SetMeta, Sign, Signed, Step
from mesh.protocol.stored import ROSTER_EPOCH, own_log

__all__ = ["Machine"]

NOISE_MS: Final = 10_000
_NEWS_MS: Final = 50
"""Between heartbeats that are said for what was taken in: as fast as ticks, or whoever may sign could make all of us shout."""
_STARTING: Final = "barrier_pending"
_ASKED_MAX: Final = BATCH_EVENTS_MAX - 1
"""Boot nonces of others that one heartbeat names: it also names its own."""


class Machine:
    """A governor's pure step function with what never changes within a boot."""

    def __init__(self, governance: Governance, me: Member, engine: decide.Engine) -> None:
        """Prepare for ``me``; the engine and the memo of documents are pure functions.

        Args:
            governance: what the node is configured with. What is in force is the state's: more is heard later.
            me: this member.
            engine: the policy engine.
        """
        self.governance = governance
        self.me = me
        self.engine = engine
        self.documents = Documents()

    def step(self, state: GovernorState, events: Sequence[Event], *, now_ms: int, wall_ms: int, facts: Facts) -> Step[GovernorState]:
        """Fold a batch of events."""
        work = _Work(self, state, now_ms=now_ms, wall_ms=wall_ms, facts=facts)
        for event in events:
            work.take(event)
        work.decide([event for event in events if isinstance(event, IntentArrived)])
        return work.finish()


class _Work:
    """The working copy of one step."""

    def __init__(self, machine: Machine, state: GovernorState, *, now_ms: int, wall_ms: int, facts: Facts) -> None:
        self.machine = machine
        self.state = state
        self.now_ms = now_ms
        self.wall_ms = wall_ms
        self.facts = facts
        self.gossip = Gossip(state.governance, state.asking, state.untold, news=state.news, now_ms=now_ms)
        self.roster = machine.governance.roster
        self.hearing = Hearing(state.words, me=machine.me, origin=state.log.origin, documents=machine.documents)
        self.writer = Writer(state.log, mesh=self.roster.mesh, now_ms=now_ms)
        self.log = state.log
        self.mirrors = dict(state.mirrors)
        bounds = self.roster.bounds
        # Where there are not more than f others, nobody could ever bear a new time out: there the node's own clock must do.
        others = len(self.roster.members) - 1 > self.roster.f
        leapt = others and state.beat_ms > 0 and now_ms - state.beat_ms > bounds.stale_ms + bounds.heartbeat_ms
        self.fresh = leap(state.fresh) if leapt else state.fresh
        self.sequence = state.sequence
        self.beat_ms = state.beat_ms
        self.was_fresh = state.was_fresh
        self.noise = dict(state.noise)
        self.noise_ms = state.noise_ms
        self.heard = state.heard
        self.barrier = state.barrier
        self.incarnation = state.incarnation
        self.effects: list[Effect] = []
        self.seen_outcomes: dict[str, RecordRef] = {}
        self.nonces: list[SyncArrived] = []
        self.proofs: list[Statement[AnyProof]] = []
        self.ticked = False

    @property
    def governance(self) -> Governance:
        """What is in force after what this step has taken in so far."""
        return self.gossip.governance

    def take(self, event: Event) -> None:  # noqa: C901, PLR0912 -- one branch for each kind of event
        """Take in anything but intents, which wait until the rest was seen."""
        if isinstance(event, Judged):
            self.effects += self.gossip.judged(event)
            return
        try:
            match event:
                case OutcomesArrived():
                    self._outcomes(event)
                case OfferArrived() | LawArrived():
                    self._law(event)
                case LineageArrived():
                    self._lineage(event)
                case NoteArrived(data=data):
                    self._note(data, answer=True)
                case AccusationArrived(data=data):
                    self._accusation(data)
                case CosigArrived(data=data):
                    self.effects += self.gossip.caught(together.cosigned_twice(self.log, data, self.governance))
                    self.log, effects = lineage.take_lines(self.log, self.roster, self.machine.me, data, frozen=self.governance.frozen)
                    self.effects += effects
                case HeartbeatArrived(data=data):
                    self._heartbeat(data)
                case SyncArrived():
                    self.nonces.append(event)
                case BarrierArrived(data=data):
                    if self.barrier is not None:
                        chain = members.rosters_of(self.machine.governance)
                        self.barrier = barrier.take_answer(self.barrier, data, self.roster, self.machine.me, chain)
                case Shed(code=code, count=count):
                    self._count(code, count)
                case Tick():
                    self.ticked = True
                case Stopping() if not self._unsure():
                    self._record_law()  # before the last word
                    self._govern("stopped", "drained")
                case IntentArrived() | Stopping():
                    pass
        except Refused as refusal:
            self._count(refusal.code, 1)

    def decide(self, intents: Sequence[IntentArrived]) -> None:
        """Rule 2."""
        if not intents:
            return
        stale = self._stale()
        if stale is not None and (stale.code == FULL or self._unsure()):  # rules 6, 7 and 9
            self.effects += [refuse(item.waiter, stale.code, stale.detail) for item in intents]
            self._count(stale.code, len(intents))
            return
        self._record_law()
        intake = Intake(
            governance=self.governance,
            me=self.machine.me,
            writer=self.writer,
            documents=self.machine.documents,
            engine=self.machine.engine,
            known=self.facts.intents,
            over=self.facts.over,
        )
        intake.take(intents, stale)
        self.effects += intake.effects
        for code, count in intake.noise.items():
            self._count(code, count)

    def finish(self) -> Step[GovernorState]:
        """Heartbeat, checkpoint and pulls as they fall due; then the new state."""
        if self.ticked:
            self._record_law()
            self._watch_freshness()
            self._record_noise()
        if self.ticked or self.gossip.more:
            self._ask_for_law()
        if self.barrier is not None:
            self._start(self.barrier)
        since_ms = self.now_ms - self.beat_ms
        news = self.gossip.news and since_ms >= _NEWS_MS
        if self.barrier is None and (self.nonces or news or (self.ticked and since_ms >= self.roster.bounds.heartbeat_ms)):
            self._beat()
        sure = not self._unsure()
        if self.ticked and self.barrier is None:
            self._mirror(sure=sure)
        self.log, appended = self.writer.finish(self.log)
        if self.ticked and sure:
            self.log, effects = lineage.checkpoint_due(self.log, self.roster, self.machine.me, now_ms=self.now_ms)
            self.effects += effects
        after = next_roster(self.governance, self.fresh, now_ms=self.now_ms) if self.ticked else None
        over = after.epoch if after is not None else self.state.over
        if after is not None:
            self.effects.append(SetMeta(ROSTER_EPOCH, over))
        state = GovernorState(
            incarnation=self.incarnation,
            sequence=self.sequence,
            governance=self.governance,
            asking=self.gossip.asking,
            untold=tuple(self.gossip.untold),
            news=self.gossip.news,
            log=self.log,
            mirrors=self.mirrors,
            fresh=self.fresh,
            was_fresh=self.was_fresh,
            beat_ms=self.beat_ms,
            noise=self.noise,
            noise_ms=self.noise_ms,
            heard=self.heard,
            barrier=self.barrier,
            words=self.hearing.words,
            over=over,
        )
        return Step(state, (*appended, *self.effects))

    def _mirror(self, *, sure: bool) -> None:
        """What is due of other logs; while nothing may be signed, only what this node must hold is fetched."""
        lacking = {held.origin for held in lagging(self.mirrors)}
        for origin in self.mirrors if sure else lacking:
            context = self._context(self._owner(origin))
            self._adopt(mirror.pull_due(self.mirrors[origin], context))
            if sure:
                self._adopt(proven.attest_held(self.mirrors[origin], context))
                self._adopt(together.lines_due(self.mirrors[origin], context))
                self._adopt(accusing.again_due(self.mirrors[origin], context))
        if sure:
            self.log = entangle(self.log, self.mirrors, self.writer, now_ms=self.now_ms)

    def _start(self, waiting: Pending) -> None:
        """Ask for what is missing, or go on signing (rule 6); who asked for a signature is told."""
        try:
            barrier.check(waiting, self.governance, now_ms=self.now_ms)
        except Refused as refusal:
            self.effects += [refuse(item.waiter, refusal.code, refusal.detail) for item in self.nonces]
            self.nonces.clear()
            if self.ticked:
                self.barrier, effects = barrier.ask_records(waiting, self._context(self.machine.me))
                self.effects += effects
            return
        through = barrier.passed(waiting)
        self.barrier, self.incarnation = None, through.incarnation
        self.log = own_log(self.log.origin, through.own, now_ms=self.now_ms)
        for origin, head in through.cosigned.items():
            held = self.mirrors[origin]
            self.mirrors[origin] = msgspec.structs.replace(held, witnessed=head, wanted=max(held.wanted, head.size))
        for origin, note in through.goals.items():
            self._adopt(together.seek(self.mirrors[origin], note, self._context(self._owner(origin), silent=True)))
        self.effects += through.effects

    def _stale(self) -> Refused | None:
        try:
            if self.barrier is not None:
                barrier.check(self.barrier, self.governance, now_ms=self.now_ms)
                raise Refused(_STARTING, "it is through with this step")
            check_acts(self.governance, self.fresh, self.mirrors, self.log, wall_ms=self.wall_ms, now_ms=self.now_ms)
        except Refused as refusal:
            return refusal
        return None

    def _unsure(self) -> bool:
        return self.barrier is not None or not is_sure(self.governance, self.fresh, wall_ms=self.wall_ms, now_ms=self.now_ms)

    def _law(self, event: OfferArrived | LawArrived) -> None:
        try:
            effects, codes = self.gossip.offered(event) if isinstance(event, OfferArrived) else self.gossip.arrived(event)
        except Refused as refusal:
            if isinstance(event, OfferArrived):
                self.effects.append(refuse(event.waiter, refusal.code, refusal.detail))
            raise
        self.effects += effects
        for code in codes:
            self._count(code, 1)

    def _record_law(self) -> None:
        """What happened before the clock could be trusted, the start first."""
        if self.gossip.untold and not self._unsure():
            for told in self.gossip.untold:
                if isinstance(told, ToldIncident):
                    self.writer.alarm(told.code, told.detail)
                else:
                    self._govern(*told)
            self.gossip.untold.clear()

    def _ask_for_law(self) -> None:
        fresh = self.fresh
        if self.barrier is not None:  # perhaps nobody says anything yet but in answers
            said = {name: (Heard("", 0, 0, 0, tuple(shown.frontier)),) for name, shown in self.barrier.answers.items()}
            fresh = msgspec.structs.replace(fresh, heard={**said, **fresh.heard})
        self.effects += self.gossip.due(fresh, me=self.machine.me.name)

    def _watch_freshness(self) -> None:
        refusal = self._stale()
        if (refusal is None) != self.was_fresh and not self._unsure():
            self.was_fresh = refusal is None
            self._govern("fresh" if refusal is None else "stale", "" if refusal is None else f"{refusal.code}: {refusal.detail}")

    def _govern(self, change: Change, about: str) -> None:
        writer = self.writer
        record = GovernanceChanged(
            mesh=writer.mesh, origin=writer.origin, index=writer.index, at_ms=writer.at_ms, change=change, about=about[:200]
        )
        ref = writer.append(record)
        self.effects += [Locate(identity, ref.origin, ref.index) for identity in located_ids(record)]
        if change == "pruned":
            self.effects.append(pruned_fact(about))

    def _count(self, code: str, count: int) -> None:
        if not self.noise:
            self.noise_ms = self.now_ms
        self.noise[code] = self.noise.get(code, 0) + count

    def _record_noise(self) -> None:
        if not self.noise or self.now_ms - self.noise_ms < NOISE_MS or self._unsure():
            return
        writer = self.writer
        for code, count in sorted(self.noise.items()):
            writer.append(
                Noise(
                    mesh=writer.mesh,
                    origin=writer.origin,
                    index=writer.index,
                    at_ms=writer.at_ms,
                    code=code,
                    count=count,
                    from_ms=self.noise_ms,
                    to_ms=self.now_ms,
                )
            )
        self.noise.clear()

    def _beat(self) -> None:
        """One heartbeat, or as many as it takes to name everybody who asked."""
        asked, self.nonces = self.nonces, []
        for start in range(0, max(1, len(asked)), _ASKED_MAX):
            self._say_beat(asked[start : start + _ASKED_MAX])

    def _say_beat(self, asked: Sequence[SyncArrived]) -> None:
        me = self.machine.me
        beat = Heartbeat(
            mesh=self.roster.mesh,
            member=me.name,
            incarnation=self.incarnation,
            sequence=self.sequence,
            signed_ms=self.now_ms,
            roster_epoch=self.roster.epoch,
            frontier=list(self.governance.frontier),
            policies=self.governance.standings(me.region, self.now_ms),
            checkpoint=self.log.note.decode(),
            behind=bool(lagging(self.mirrors)),
            echo=sorted({self.fresh.boot, *(item.nonce for item in asked)}),
        )
        draft = envelope.draft(beat)
        self.effects += [Sign("decision", draft), Send(subjects.hb(me.name), methodcaller("statement", draft.id))]
        self.effects += [Send(Reply(item.waiter), partial(_sync_answer, draft.id)) for item in asked]
        # A member vouches for itself like any other: by what it has signed.
        self.fresh = hear(self.fresh, beat, draft.id, now_ms=self.now_ms, bounds=self.roster.bounds, own=True)
        self.sequence += 1
        self.beat_ms = self.now_ms
        self.gossip.news = False

    def _heartbeat(self, data: bytes) -> None:
        statement = envelope.read(Heartbeat, data)
        beat = statement.claims
        if beat.mesh != self.roster.mesh:
            raise Refused("wrong_mesh", beat.mesh)
        member = self.roster.member(beat.member)
        statement.verify(member.decision_key)
        if beat.member == self.machine.me.name:
            if beat.checkpoint:
                self._recognize(beat.checkpoint.encode())
            return
        if beat.incarnation > self.heard.get(beat.member, 0):
            self.heard = {**self.heard, beat.member: beat.incarnation}
            self.effects.append(PutNote("heartbeat", self.roster.origin(member), beat.incarnation, shown_beat(statement, member)))
        self.fresh = hear(self.fresh, beat, statement.id, now_ms=self.now_ms, bounds=self.roster.bounds)
        if beat.checkpoint:
            self._note(beat.checkpoint.encode(), answer=False)

    def _note(self, data: bytes, *, answer: bool) -> None:
        origin = read_checkpoint(data).origin
        owner = self._owner(origin)
        if origin == self.log.origin:
            self._recognize(data)
        elif not self._unsure():  # rule 7: it is said again
            context = self._context(owner)
            self._adopt(mirror.take_note(self.mirrors[origin], data, context, answer=answer))
            self._adopt(together.take_shared(self.mirrors[origin], data, context))

    def _accusation(self, data: bytes) -> None:
        origin = accusing.accused_log(data)
        owner = self._owner(origin)
        if origin != self.log.origin and not self._unsure():  # as above
            self._adopt((accusing.take_accusation(self.mirrors[origin], data, self._context(owner)), []))

    def _owner(self, origin: str) -> Member:
        """Whose log it is that is held here."""
        if origin != self.log.origin and origin not in self.mirrors:
            raise Refused("unknown_member", origin[:80])
        return members.owner_of(self.machine.governance, origin)

    def _recognize(self, note: bytes) -> None:
        if self.barrier is None:  # before that, what others know of this log is asked for
            lineage.recognize(self.log, self.machine.me, note)

    def _lineage(self, event: LineageArrived) -> None:
        batch = unpack(LineageBatch, event.data)
        owner, own = self._owner(batch.origin), batch.origin == self.log.origin
        if not event.pulled and (event.node != owner.name or (not own and self.mirrors[batch.origin].left)):
            raise Refused("record_invalid", f"records of {batch.origin} published by {event.node[:32]!r}")
        if own:
            if self.barrier is not None and event.pulled:
                self.barrier, effects = barrier.refill(self.barrier, batch, self._context(owner), helper=event.node)
                self.effects += [*effects, *self.hearing.mirrored(effects, self.governance)]
            elif batch.checkpoint:
                self._recognize(batch.checkpoint.encode())
        elif not self._unsure():
            held, helper = self.mirrors[batch.origin], event.node if event.pulled else ""
            self._adopt(mirror.take_batch(held, batch, self._context(owner), helper=helper))
        elif self.barrier is None and event.pulled:
            self._adopt(proven.take_proven(self.mirrors[batch.origin], batch, self._context(owner, silent=True), quiet=True))

    def _adopt(self, answer: tuple[Mirror, list[Effect]]) -> None:
        held, effects = answer
        self.mirrors[held.origin] = held
        self.effects += [*self.gossip.caught(self.proofs), *effects, *self.hearing.mirrored(effects, self.governance)]

    def _context(self, owner: Member, *, silent: bool = False) -> MirrorContext:
        machine, writer = self.machine, self.writer
        if silent or owner.log_key == machine.me.log_key:  # nothing may be recorded yet; of one's own log nothing is said at all
            writer = Writer(self.state.log, mesh=self.roster.mesh, now_ms=self.now_ms)
        later = self.gossip.untold if silent else None
        known = self.governance, machine.me, owner, writer, machine.documents, machine.engine
        return MirrorContext(*known, self.now_ms, self.proofs, later)

    def _outcomes(self, event: OutcomesArrived) -> None:
        stale = self._stale()
        if stale is not None and self._unsure():
            self.effects.append(refuse(event.waiter, stale.code, ""))
            self._count(stale.code, 1)
            return
        self._record_law()
        if is_heard(event.data):
            effects, noise = self.hearing.take(event.waiter, event.data, self.governance, self.writer)
        else:
            effects, noise = take_outcomes(
                event, governance=self.governance, me=self.machine.me, writer=self.writer, documents=self.machine.documents,
                known=self.facts.outcomes, seen=self.seen_outcomes,
            )  # fmt: skip
        self.effects += effects
        if noise:
            self._count(noise, 1)


def _sync_answer(identity: str, signed: Signed) -> bytes:
    return canonical.encode(SyncAnswer(heartbeat=msgspec.Raw(signed.statements[identity])))
