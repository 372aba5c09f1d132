"""How a governor of a world performs its steps: as the process does, one commit at a time and the next step made meanwhile.

Rules
-----
1. A step is made on what was made before it. It is believed, signed and sent only after its own commit, in order.
2. A key that is not new discards the step and all that was made on it; they are made again with what the disk knows.
3. A failed commit discards the same, and ends the process.
4. At every boundary, and before every message, the host may die.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Final, Protocol

import msgspec

from mesh.core.run.authorization import RecordRef
from mesh.errors import Alarm, MeshError, Unavailable
from mesh.limits import BATCH_EVENTS_MAX
from mesh.protocol.belonging import ends
from mesh.protocol.events import Event
from mesh.protocol.governor import Machine
from mesh.protocol.serving import leaf_ids
from mesh.protocol.state import Facts, GovernorState
from mesh.protocol.step import Commit, InsertOnce, KeyUse, Outgoing, Persist, Running, Sending, SetMeta, Step, phases
from mesh.protocol.stored import INCARNATION
from mesh.testing.world import keys
from mesh.testing.world.disk import Disk, Taken
from mesh.testing.world.ground import Violation
from mesh.testing.world.setting import USES

__all__ = ["Host", "PowerCut", "Steps", "unasked"]

_RETRIES_MAX: Final = 3
_Runner = Generator[Commit | Sending, None, GovernorState]


class PowerCut(Exception):
    """The host dies at a failpoint, or the process ends with an alarm."""


class Host(Protocol):
    """What the steps of one process run on."""

    name: str
    disk: Disk
    machine: Machine

    def clocks_ms(self) -> tuple[int, int]:
        """(steady time, wall clock)."""
        ...

    def failpoint(self, name: str) -> None:
        """A boundary is passed; raises :class:`PowerCut`."""
        ...

    def write(self, effects: tuple[Persist, ...], done: Callable[[], None]) -> None:
        """Begin to commit; ``done`` is called when the disk has answered."""
        ...

    def written(self) -> None:
        """Take the disk's answer.

        Raises:
            Taken: a key is not new.
            Unavailable: ``storage_failed``.
            Alarm: what the disk refuses.
        """
        ...

    def sign(self, use: KeyUse, message: bytes) -> bytes:
        """The signature (64 bytes) of a message."""
        ...

    def transmit(self, item: Outgoing, data: bytes) -> None:
        """Send one thing."""
        ...

    def stepped(self, before: GovernorState, events: Sequence[Event], facts: Facts, step: Step[GovernorState]) -> None:
        """A step was made."""
        ...

    def storage_failed(self) -> None:
        """The process cannot go on."""
        ...

    def alarmed(self, alarm: Alarm) -> None:
        """The process ends."""
        ...

    def goes_over(self, epoch: int) -> None:
        """It is durable that the next start is under the roster of that epoch."""
        ...

    def wake(self) -> None:
        """There is room for more."""
        ...


class _Made(msgspec.Struct):
    events: list[Event]
    step: Step[GovernorState]
    facts: Facts = Facts()
    """With which it was made."""


class Steps:
    """The steps of one process."""

    def __init__(self, host: Host, label: str) -> None:
        self._host = host
        self._public: dict[KeyUse, str] = {use: keys.public(f"{label} {use}") for use in USES}
        self.state: GovernorState | None = None
        """After the last step that is durable."""
        self._made: _Made | None = None
        self._flying: _Made | None = None

    @property
    def room(self) -> int:
        """How many more events may be folded into the next step."""
        return BATCH_EVENTS_MAX - (len(self._made.events) if self._made is not None else 0)

    def begin(self, step: Step[GovernorState]) -> None:
        """Perform the first step of a boot."""
        self._made = _Made([], step)
        self._launch(0)

    def fold(self, events: Sequence[Event]) -> None:
        """Make a step of these events on top of everything so far."""
        last = self._made or self._flying
        state = last.step.state if last is not None else self.state
        if state is None:
            return
        step = self._step(state, events, Facts())
        if self._made is None:
            self._made = _Made(list(events), step)
        else:
            self._made = _Made([*self._made.events, *events], Step(step.state, (*self._made.step.effects, *step.effects)))
        if self._flying is None:
            self._launch(0)

    def end(self) -> None:
        """The process is gone."""
        self.state = self._made = self._flying = None

    def _step(self, state: GovernorState, events: Sequence[Event], facts: Facts) -> Step[GovernorState]:
        now_ms, wall_ms = self._host.clocks_ms()
        try:
            step = self._host.machine.step(state, events, now_ms=now_ms, wall_ms=wall_ms, facts=facts)
        except Alarm as alarm:
            self._host.alarmed(alarm)
            raise PowerCut from None
        except MeshError as error:
            raise Violation("I12", f"{self._host.name}: a whole batch is lost by {error}") from None
        self._host.stepped(state, events, facts, step)
        return step

    def _launch(self, attempt: int) -> None:
        """The next step goes to the disk, or out at once if it has nothing to remember."""
        if self._flying is None:
            self._flying, self._made = self._made, None
        made = self._flying
        if made is None:
            return
        try:
            over = self._over(made.step)
        except Alarm as alarm:
            self._host.alarmed(alarm)
            return
        if over:
            with suppress(PowerCut):
                self._again(made, attempt + 1)
            return
        runner = phases(made.step, sign=self._host.sign, public=self._public, failpoint=self._host.failpoint)
        try:
            phase = next(runner, None)
        except PowerCut:
            return
        if isinstance(phase, Commit):
            self._host.write(phase.effects, lambda: self._landed(runner, made, attempt))
        else:
            self._believe(runner, made, phase)

    def _landed(self, runner: _Runner, made: _Made, attempt: int) -> None:
        try:
            self._host.written()
        except Taken:
            runner.close()
            with suppress(PowerCut):
                self._again(made, attempt + 1)
        except Unavailable:
            self._host.storage_failed()
        except Alarm as alarm:
            raise Violation("I7", f"{self._host.name}: the disk refuses what must not happen: {alarm}") from None
        else:
            self._believe(runner, made, None)

    def _believe(self, runner: _Runner, made: _Made, sending: Commit | Sending | None) -> None:
        self.state, self._flying = made.step.state, None
        try:
            phase = sending or next(runner, None)
            if isinstance(phase, Sending):
                for item, data in phase.messages:
                    self._host.failpoint("send.each")
                    self._host.transmit(item, data)
                next(runner, None)
        except PowerCut:
            return
        over = made.step.state.over
        if over:
            self._host.goes_over(over)
            return
        self._launch(0)
        self._host.wake()

    def _again(self, made: _Made, attempt: int) -> None:
        if attempt > _RETRIES_MAX or self.state is None:
            raise Violation("I12", f"{self._host.name}: a repeated request is never answered")
        late, self._made = self._made.events if self._made is not None else [], None
        try:
            made.facts = self._facts(made, self.state.log.origin)
        except Alarm as alarm:
            self._host.alarmed(alarm)
            raise PowerCut from None
        made.step = self._step(self.state, made.events, made.facts)
        self._flying = made
        if late:
            self.fold(late)
        self._launch(attempt)

    def _facts(self, made: _Made, origin: str) -> Facts:
        disk = self._host.disk
        intents, outcomes = dict(made.facts.intents), dict(made.facts.outcomes)
        for effect in made.step.effects:
            if isinstance(effect, InsertOnce) and (effect.at_ms, effect.space, effect.key) in disk.once:
                index = disk.once[effect.at_ms, effect.space, effect.key]
                if effect.space == "intent":
                    intents[effect.key] = disk.records(origin, index, 1)[0]
                else:
                    outcomes[effect.key] = RecordRef(origin=origin, index=index, leaf=disk.hashes(origin)[index].hex())
        return Facts(intents=intents, outcomes=outcomes, over=made.facts.over | self._over(made.step))

    def _over(self, step: Step[GovernorState]) -> set[str]:
        """Which of the executions that the step takes for running are over, by any record on the disk."""
        disk, found = self._host.disk, set[str]()
        for effect in step.effects:
            if isinstance(effect, Running):
                places = [(origin, index) for identity, origin, index in disk.places if identity == effect.authorization]
                leaves = [leaf for origin, index in places for leaf in disk.verify(origin, index, 1) if leaf]
                if any(ends(leaf, disk.held(leaf_ids(leaf)[0][:1]), effect.authorization, effect.enforcer) for leaf in leaves):
                    found.add(effect.authorization)
        return found


def unasked(step: Step[GovernorState], incarnation: int) -> Step[GovernorState]:
    """The start of somebody who asks nobody."""
    state = msgspec.structs.replace(step.state, barrier=None, incarnation=incarnation)
    return Step(state, (SetMeta(INCARNATION, incarnation), *step.effects))
