"""A governor in a world: the real machine, the real order of a step, on a simulated disk, clock and network.

It does what the process of :mod:`mesh.roles.governor` does: it queues, batches, answers everybody, reads storage for whoever
asks, and after any failure of storage begins anew. What it decides is decided by :mod:`mesh.protocol` alone.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from mesh.core import subjects
from mesh.core.bytes import canonical
from mesh.core.bytes.envelope import Statement
from mesh.core.law.fold import restore
from mesh.core.law.governance import Governance
from mesh.core.law.policy import Bundle
from mesh.core.law.roster import Member, Roster
from mesh.core.law.streams import Cursor
from mesh.core.law.succession import same_member
from mesh.core.law.travel import Said
from mesh.core.messages import (
    BarrierAsked,
    LawAsked,
    LawBatch,
    Offer,
    Pull,
    RefusedAnswer,
    Sync,
    pack,
    unpack_asked,
)
from mesh.errors import Alarm, Refused, Unavailable
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.barrier import asks
from mesh.protocol.begin import begin
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
    PolicyAdmitted,
    Shed,
    SyncArrived,
    Tick,
)
from mesh.protocol.freshness import answered
from mesh.protocol.governor import Machine
from mesh.protocol.serving import announce_batches
from mesh.protocol.state import Facts, GovernorState
from mesh.protocol.step import Announce, Ask, AskLaw, KeyUse, Outgoing, Persist, Reply, Send, Step
from mesh.protocol.stored import Stored
from mesh.testing.world import keys
from mesh.testing.world.answers import bodies, law_answered, pulled, records_answered, sync_answered, told
from mesh.testing.world.around import Bus, Watcher
from mesh.testing.world.clock import WorldClock
from mesh.testing.world.disk import Disk
from mesh.testing.world.engine import WorldEngine
from mesh.testing.world.ground import Ground, Violation
from mesh.testing.world.message import Message
from mesh.testing.world.pruning import Letting
from mesh.testing.world.rotting import Mender, Walk, readable
from mesh.testing.world.steps import PowerCut, Steps, unasked

__all__ = ["QUEUE_MAX", "Governor"]

_SAID: Final[Mapping[str, Callable[[bytes], Event]]] = {
    "hb": HeartbeatArrived, "checkpoint": NoteArrived, "cosig": CosigArrived, "law": LawArrived, "fraud": AccusationArrived
}  # fmt: skip
QUEUE_MAX: Final = 24
"""Intents waiting for one governor of a world: few, so that worlds see load shed."""
_TICK_US: Final = 100_000
_SYNC_US: Final = 150_000
_REOPEN_US: Final = 700_000
_ANEW_US: Final = 50_000
"""To begin anew under the next roster."""
_LAW_PAGE: Final = 1
"""Governance statements in one answer: so few that worlds see more than one page."""


class Governor:
    """One governor on one host."""

    def __init__(
        self,
        name: str,
        member: Member,
        governance: Governance,
        library: Mapping[str, Bundle],
        *,
        ground: Ground,
        bus: Bus,
        watcher: "Watcher[Governor]",
        clock: WorldClock,
        label: str = "",
        given: Sequence[Statement[Said]] = (),
    ) -> None:
        self.name = name
        """Of the host; two liars may claim to be one member."""
        self.label = label or member.name
        """Under which its keys are made: a member may get new ones."""
        self.member = member
        self.governance = governance
        """What its files say; what is in force is the roster that it went over to."""
        self._given = given
        self.clock = clock
        self.disk = Disk()
        self.engine = WorldEngine()
        self.library = library
        """Every policy bundle that there is, by digest."""
        self.up = False
        self.absent = False
        """Whether there is no process to start: not yet, or the roster in force names it no more."""
        self.boots = 0
        self.machine = Machine(governance, member, self.engine)
        self.paused = False
        self.slow_us = 0
        """Added to every commit."""
        self.failing = 0
        """Commits that will fail, though what they wrote may be there."""
        self.crash_at: tuple[str, int, int] | None = None
        """(failpoint, how often it is passed before, µs down)."""
        self.shed = 0
        self.asks = True
        """Whether it asks at its start what it has signed; a liar may not care."""
        self._ground = ground
        self._bus = bus
        self._watcher = watcher
        self._random = ground.random(name)
        self._system: deque[Event] = deque()
        self._intents: deque[IntentArrived] = deque()
        self._waiters: dict[int, Message] = {}
        self._next = 0
        self._turning = False
        self._calls: dict[int, Callable[[bytes], Event]] = {}
        self._judging = set[str]()
        self._letting = Letting()
        self._steps = Steps(self, self.label)
        self._walk, self._mender = Walk(), Mender(self, ground, bus)

    @property
    def state(self) -> GovernorState | None:
        """After the last step that is durable; none while the process is down or begins."""
        return self._steps.state

    @property
    def roster(self) -> Roster:
        """Under which it began."""
        return self.machine.governance.roster

    @property
    def held(self) -> Governance:
        """What its disk says that governs."""
        return self.disk.governance(self.governance)

    # ------------------------------------------------------------------------------------------------------------- life

    def boot(self) -> None:
        """Start the process from its files and what the disk holds, under the roster that it went over to."""
        if self.up or self.absent:
            return
        governance = self.disk.governance(self.governance)
        found = next((member for member in governance.roster.members if member.name == self.member.name), None)
        if found is None or not same_member(found, self.member):
            self.leave(f"not enrolled in epoch {governance.roster.epoch}")
            return
        if self._mender.needed([member.name for member in governance.roster.members]):
            return
        self.up, self.paused, self._turning, self.member = True, False, False, found
        self.boots += 1
        self.machine = Machine(governance, self.member, self.engine)
        stored = self.disk.stored(governance, self.member)
        self.clock.boot(stored.own.last_ms)
        self._watcher.booted(self)
        boot = keys.nonce("boot", self.name, self.boots, self._ground.seed)
        try:
            step = begin(self.machine, stored, boot=boot, now_ms=self.clock.now_ms(), given=self._given, admitted=self._admitted(stored))
        except Alarm as alarm:
            raise Violation("I7", f"{self.name} cannot start: {alarm}") from None
        self._steps.begin(step if self.asks else unasked(step, stored.incarnation + 1))
        self._later(_TICK_US, self._tick)
        self._later(1_000, self._sync)
        self._later(1_000, self._ask)
        self._judging.clear()
        self._letting = Letting()

    def _admitted(self, stored: Stored) -> dict[str, Bundle]:
        """What was admitted before is admitted at once."""
        laws = [law for epochs in restore(self.governance, stored.law).laws.values() for law in epochs]
        return {law.manifest_id: self.library[law.manifest.digest] for law in laws if law.manifest.digest in self.disk.bundles}

    def _judge(self) -> None:
        """Check policies that it holds and has not admitted, in time of its own; bundles come from anywhere."""
        laws = [] if self.state is None else [law for epochs in self.state.governance.laws.values() for law in epochs]
        for law in laws:
            if law.bundle is None and law.manifest_id not in self._judging:
                self._judging.add(law.manifest_id)
                bundle = self.library[law.manifest.digest]
                event = PolicyAdmitted(law.manifest_id, bundle, canonical.encode(bundle))
                self._later(self._random.randrange(50_000, 900_000), partial(self._enqueue, event))

    def crash(self, down_us: int) -> None:
        """The host dies; what was being committed is durable or not."""
        if not self.up:
            return
        kept = self._random.random() < 0.5
        self._ground.say(self.name, "crash", f"{'kept' if kept else 'lost'} {len(self.disk.pending)}")
        written = self.disk.power_cut(kept=kept)
        self._end()
        if written:
            self._watcher.committed(self, written)
        self._ground.after(down_us, self.boot)

    def reload(self, down_us: int) -> None:
        """The process stops in good order and starts again, as after an upgrade."""
        if self.up:
            self._ground.say(self.name, "reload")
            self._fail("unavailable")
            self._ground.after(down_us, self.boot)

    def leave(self, why: str) -> None:
        """It ends for good; the disk stays."""
        self._ground.say(self.name, "leaves", why)
        if self.up:
            self._fail("unavailable")
        self.absent = True

    def goes_over(self, epoch: int) -> None:
        """The process lets go of everything and begins anew; see :class:`mesh.testing.world.steps.Host`."""
        self._ground.say(self.name, "goes over", str(epoch))
        self._fail("unavailable")
        self._ground.after(_ANEW_US, self.boot)

    def set_back(self, copy: Disk, down_us: int) -> None:
        """The host dies, and somebody puts an old copy of its disk in place."""
        before, self.disk = self.disk, copy
        before.power_cut(kept=False)
        self.disk.full = before.full
        if self.up:
            self._end()
        self._watcher.set_back(self, before)
        self._ground.after(down_us, self.boot)

    def _end(self) -> None:
        self.up, self._turning = False, False
        self.boots += 1  # whatever was planned for this process is void
        self._steps.end()
        self.disk.pending = ()
        for queue in (self._system, self._intents, self._waiters, self._calls):
            queue.clear()

    def _fail(self, code: str) -> None:
        for message in list(self._waiters.values()):
            self._reply(message, pack(RefusedAnswer(code=code, detail="")))
        self._end()

    def _later(self, delay_us: int, act: Callable[[], None]) -> None:
        boots = self.boots

        def run() -> None:
            if self.up and self.boots == boots:
                act()

        self._ground.after(delay_us, run)

    # ---------------------------------------------------------------------------------------------------------- inbound

    def take(self, message: Message) -> None:
        """A message arrives at the host."""
        if not self.up:
            self._mender.take(message)
            return
        self._watcher.received(self, message)
        match message.kind:
            case "intent":
                self._intent(message)
            case "outcome":
                self._enqueue(OutcomesArrived(self._waiter(message), message.data))
            case "sync":
                self._asked(message)
            case "reply":
                made = self._calls.pop(message.call, None)
                if made is not None:
                    self._answered(made, message.data)
            case "lineage":
                self._enqueue(LineageArrived(message.data, pulled=False, node=message.source.rstrip("~+")))
            case kind if kind in _SAID:
                self._enqueue(_SAID[kind](message.data))
            case _:
                pass

    def _intent(self, message: Message) -> None:
        if len(self._intents) >= QUEUE_MAX:
            self.shed += 1
            self._enqueue(Shed("overloaded", 1))
            self._reply(message, pack(RefusedAnswer(code="overloaded", detail="")))
            return
        self._intents.append(IntentArrived(self._waiter(message), message.data))
        self.wake()

    def _asked(self, message: Message) -> None:
        try:
            asked = unpack_asked(message.data)
        except Refused as refusal:
            self._enqueue(Shed(refusal.code, 1))
            return
        if isinstance(asked, Sync):
            self._enqueue(SyncArrived(self._waiter(message), asked.nonce))
        elif isinstance(asked, Pull):
            readable(self, lambda: self._reply(message, pulled(asked, self.disk, self.state)))
        elif isinstance(asked, BarrierAsked):
            self._reply(message, told(asked, self, self.roster, self.member, self.state))
        elif isinstance(asked, Offer):
            self._enqueue(OfferArrived(self._waiter(message), message.data))
        elif isinstance(asked, LawAsked):
            held = self.disk.statements(asked.stream, Cursor(asked.sequence, asked.id), _LAW_PAGE)
            self._reply(message, pack(LawBatch(statements=[msgspec.Raw(data) for data in held])))

    def _answered(self, made: Callable[[bytes], Event], data: bytes) -> None:
        try:
            self._enqueue(made(data))
        except Refused as refusal:
            self._enqueue(Shed(refusal.code, 1))

    def _waiter(self, message: Message) -> int:
        self._next += 1
        self._waiters[self._next] = message
        return self._next

    def _enqueue(self, event: Event) -> None:
        self._system.append(event)
        self.wake()

    def _tick(self) -> None:
        self._later(_TICK_US, self._tick)
        if readable(self, self._look_after) and not (self._system and isinstance(self._system[-1], Tick)):
            self._enqueue(Tick())

    def _look_after(self) -> None:
        self._walk.on(self.disk)
        self._judge()
        self._system.extend(self._letting.look(self.disk, self.state, self.clock, partial(self._watcher.pruned, self)))

    def _sync(self) -> None:
        """Ask for heartbeats of now, until enough have come, also without who is caught later."""
        roster = self.roster
        if self.state is not None and not answered(self.state.fresh, roster, self.state.governance.frozen):
            for member in roster.members:
                if member.name != self.member.name and member.name not in self.state.fresh.echoed:
                    self._call(member.name, pack(Sync(nonce=self.state.fresh.boot)), sync_answered)
        self._later(_SYNC_US, self._sync)

    def _ask(self) -> None:
        """Ask what it has signed, until its start is through."""
        roster, state = self.roster, self.state
        if state is not None:
            if state.barrier is None:
                return
            for member in roster.members:
                if member.name != self.member.name and asks(state.barrier, member.name, state.governance):
                    self._call(member.name, pack(BarrierAsked(asker=self.member.name, nonce=state.barrier.nonce)), BarrierArrived)
        self._later(_SYNC_US, self._ask)

    def _call(self, member: str, data: bytes, made: Callable[[bytes], Event]) -> None:
        self._next += 1
        self._calls[self._next] = made
        self._bus.send(Message(self.name, member, "sync", data, self._next))

    # ------------------------------------------------------------------------------------------------------------ steps

    def pause(self, length_us: int) -> None:
        """The process is stopped, the host lives on."""
        if self.up and not self.paused:
            self.paused = True

            def resume() -> None:
                self.paused = False
                self.wake()

            self._later(length_us, resume)

    def wake(self) -> None:
        """There is something to do, or room to do it."""
        if not self._turning and not self.paused and (self._system or self._intents):
            self._turning = True
            self._later(self._random.randrange(50, 400), self._turn)

    def _turn(self) -> None:
        self._turning = False
        room = self._steps.room
        if self.paused or self.state is None or room <= 0:
            return
        events: list[Event] = [self._system.popleft() for _ in range(min(len(self._system), room))]
        events += [self._intents.popleft() for _ in range(min(len(self._intents), room - len(events)))]
        try:
            if events:
                self._steps.fold(events)
        except PowerCut:
            return
        self.wake()

    def clocks_ms(self) -> tuple[int, int]:
        """(steady time, wall clock)."""
        return self.clock.now_ms(), self.clock.wall_ms()

    def stepped(self, before: GovernorState, events: Sequence[Event], facts: Facts, step: Step[GovernorState]) -> None:
        """A step was made."""
        self._watcher.stepped(self, before, events, facts, step)

    def write(self, effects: tuple[Persist, ...], done: Callable[[], None]) -> None:
        """Begin to commit."""
        self.disk.pending = effects
        self._later(self._random.randrange(300, 3_000) + self.slow_us, done)

    def written(self) -> None:
        """The disk's answer; see :class:`mesh.testing.world.steps.Host`."""
        effects, self.disk.pending = self.disk.pending, ()
        failing = self.failing > 0
        if failing:
            self.failing -= 1
        if not failing or self._random.random() < 0.5:
            self.disk.commit(effects)
            self._watcher.committed(self, effects)
        if failing:
            raise Unavailable("storage_failed", "the disk says no")

    def storage_failed(self) -> None:
        """Everybody is told, and the process begins anew."""
        self._ground.say(self.name, "disk failed")
        self._fail("unavailable")
        self._ground.after(_REOPEN_US, self.boot)

    def alarmed(self, alarm: Alarm) -> None:
        """The process ends, and is started again."""
        self._watcher.alarmed(self, alarm)
        self._ground.say(self.name, "alarm", alarm.code)
        self._fail("unavailable")
        self._ground.after(_REOPEN_US, self.boot)

    def sign(self, use: KeyUse, message: bytes) -> bytes:
        """The signature of a message."""
        self._watcher.signing(self, use, message)
        return keys.sign(f"{self.label} {use}", message)

    def failpoint(self, name: str) -> None:
        """Die here, if it is planned."""
        if self.crash_at is None or self.crash_at[0] != name:
            return
        _, left, down_us = self.crash_at
        if left:
            self.crash_at = (name, left - 1, down_us)
            return
        self.crash_at = None
        self._ground.say(self.name, "failpoint", name)
        self.crash(down_us)
        raise PowerCut

    # --------------------------------------------------------------------------------------------------------- outbound

    def transmit(self, item: Outgoing, data: bytes) -> None:
        """Send one thing."""
        match item:
            case Ask(member=member, origin=origin, first=first):
                self._call(member, pack(Pull(origin=origin, first=first, count=BATCH_RECORDS_MAX)), partial(records_answered, member))
            case AskLaw(member=member, stream=stream, after=after):
                ask = LawAsked(stream=stream, sequence=after.sequence, id=after.id)
                self._call(member, pack(ask), partial(law_answered, member))
            case Announce():
                if not readable(self, partial(self._announce, item, data)):
                    raise PowerCut
            case Send(to=Reply(waiter=waiter)):
                message = self._waiters.pop(waiter, None)
                if message is not None:
                    self._reply(message, data)
            case Send(to=str(subject)):
                self._bus.publish(self.name, subject, data)
            case _:
                pass

    def _announce(self, item: Announce, note: bytes) -> None:
        me = self.member
        if item.first == item.size:
            self._bus.publish(self.name, subjects.checkpoint(me.region, me.name), note)
            return
        leaves = self.disk.records(item.origin, item.first, item.size - item.first)
        for batch in announce_batches(item.origin, item.first, leaves, bodies(self.disk, leaves), note):
            self._bus.publish(self.name, subjects.lineage(me.region, me.name), batch)

    def _reply(self, message: Message, data: bytes) -> None:
        self._bus.send(msgspec.structs.replace(message, source=self.name, target=message.source, kind="reply", data=data))
