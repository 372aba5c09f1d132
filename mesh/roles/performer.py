"""Performs a machine's steps against real storage: commit, then sign, then send, or nothing; the next step is made meanwhile.

Rules
-----
1. Steps are made on what was made before them, committed one after the other, and believed, signed and sent only after their own
   commit. While one commits, what arrives is folded into the next; so the disk and the processor are both busy, and a commit
   takes in as much as came during the one before it.
2. A key that was not new discards the step and all that was made on it, and makes them again with all that storage was found
   to know so far: repeats get their old answer.
3. Any other failure of storage discards the step and all that was made on it, and ends the node's storage; the owner of this
   object tells the waiters, opens storage again and begins anew. What was committed before is still sent.
4. Nothing is sent that was not committed, and nothing overtakes what was committed before it.
5. Once :meth:`Performer.stop` was called nothing more is signed, whatever was under way.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Final

import msgspec

from mesh.adapters.clock import Clock
from mesh.adapters.signer import Signer
from mesh.adapters.store import Conflict, Store
from mesh.core.run.authorization import RecordRef
from mesh.errors import Alarm, Refused, Unavailable
from mesh.limits import BATCH_EVENTS_MAX, PARENT_RECORDS_MAX
from mesh.protocol.belonging import ends
from mesh.protocol.events import Event
from mesh.protocol.governor import Machine
from mesh.protocol.serving import leaf_ids
from mesh.protocol.state import Facts, GovernorState
from mesh.protocol.step import Commit, InsertOnce, KeyUse, Outgoing, Running, Sending, Step, phases
from mesh.roles.recent import Recent

__all__ = ["USES", "Performer"]

USES: Final[tuple[KeyUse, ...]] = ("log", "witness", "attest", "decision")
_RETRIES_MAX: Final = 3

Deliver = Callable[[Outgoing, bytes], Awaitable[None]]
_Runner = Generator[Commit | Sending, None, GovernorState]


class _Made(msgspec.Struct):
    """A step with what it was made of, in case it must be made again."""

    events: list[Event]
    step: Step[GovernorState]


class Performer:
    """One machine, its state, its storage."""

    def __init__(
        self,
        machine: Machine,
        store: Store,
        signer: Signer,
        clock: Clock,
        *,
        deliver: Deliver,
        failpoint: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        """Perform the steps of ``machine``; ``deliver`` sends what a step sends, ``wake`` is called when there is news of them."""
        self.machine = machine
        self.store = store
        self.clock = clock
        self.recent = Recent(machine.governance.roster.origin(machine.me))
        """What was committed and not announced yet."""
        self._signer = signer
        self._public: dict[KeyUse, str] = {use: signer.public(use) for use in USES}
        self._deliver = deliver
        self._failpoint = failpoint
        self._wake = wake
        self._state: GovernorState | None = None
        self._made: _Made | None = None
        self._flying: _Made | None = None
        self._late: list[Event] | None = None
        """Events that must wait until a discarded step was made again; None while there is none."""
        self._last: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    @property
    def state(self) -> GovernorState:
        """The state after the last step that is durable."""
        if self._state is None:
            raise Alarm("storage_failed", "asked before the first step")
        return self._state

    @property
    def over(self) -> int:
        """Epoch of the roster that this node goes over to; 0 while there is none. What is durable decides."""
        return self._state.over if self._state is not None else 0

    @property
    def room(self) -> int:
        """How many more events may be folded into the next step now."""
        return BATCH_EVENTS_MAX - len(self._made.events if self._made is not None else self._late or ())

    @property
    def idle(self) -> bool:
        """Whether everything was performed."""
        return self._failure is None and not self._tasks  # a task that is done, but not landed yet, may have failed

    @property
    def failed(self) -> bool:
        """Whether :meth:`check` would raise."""
        return self._failure is not None

    def check(self) -> None:
        """Learn what went wrong with a step.

        Raises:
            Unavailable: ``storage_failed``; nothing of that step was sent.
            Alarm: storage refused what must not happen.
        """
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Perform nothing more (rule 5). A commit that is under way may still become durable; the next boot finds it."""
        self._failure = self._failure or Unavailable("unavailable", "it was stopped")
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def begin(self, step: Step[GovernorState]) -> None:
        """Perform the first step of this boot. Raises as :meth:`check`."""
        self._made = _Made([], step)
        await self._settle()

    async def take(self, events: Sequence[Event]) -> None:
        """Fold a batch of events and wait until everything was performed. Raises as :meth:`check`."""
        self.fold(events)
        await self._settle()

    def fold(self, events: Sequence[Event]) -> None:
        """Make a step of ``events`` on top of everything so far; it is performed as soon as that is durable (rule 1)."""
        if self._late is not None:
            self._late += events
            return
        before = self._made or self._flying
        step = self._step(before.step.state if before is not None else self.state, events, Facts())
        if self._made is None:
            self._made = _Made(list(events), step)
        else:
            self._made = _Made([*self._made.events, *events], Step(step.state, (*self._made.step.effects, *step.effects)))
        self._launch()

    async def _settle(self) -> None:
        self._launch()
        while self._last is not None and not self._last.done():
            await asyncio.wait({self._last})
        self.check()

    def _step(self, state: GovernorState, events: Sequence[Event], facts: Facts) -> Step[GovernorState]:
        return self.machine.step(state, events, now_ms=self.clock.now_ms(), wall_ms=self.clock.wall_ms(), facts=facts)

    def _launch(self) -> None:
        if self._flying is None and self._made is not None and self._failure is None:
            self._flying, self._made = self._made, None
            self._last = asyncio.get_running_loop().create_task(self._perform(self._flying, self._last))
            self._tasks.add(self._last)
            self._last.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            self._failure = self._failure or task.exception()
        self._wake()

    async def _perform(self, made: _Made, before: asyncio.Task[None] | None) -> None:
        try:
            runner, sending = await self._commit(made)
        except BaseException:
            await _ended(before)  # rule 3: it was committed
            raise
        try:
            self._state = made.step.state
            self._flying = None
            self._launch()  # the next one goes to the disk while this one is signed and sent
            await _ended(before)  # rule 4
            phase = sending or next(runner, None)
            if isinstance(phase, Sending):
                for item, data in phase.messages:
                    await self._deliver(item, data)
                next(runner, None)
        finally:
            runner.close()

    async def _commit(self, made: _Made) -> tuple[_Runner, Sending | None]:
        """Make the step durable, perhaps after making it anew (rule 2); what remains to be done, and the first of it if that is known."""
        facts = Facts()
        for _ in range(_RETRIES_MAX):
            runner = phases(made.step, sign=self._signer.sign, public=self._public, failpoint=self._failpoint)
            phase = next(runner, None)
            if not isinstance(phase, Commit):
                return runner, phase
            if await self._over(made.step):
                runner.close()
                facts = await self._make_again(made, facts)
                continue
            try:
                await self.store.commit(phase.effects)
            except Conflict:
                runner.close()
                facts = await self._make_again(made, facts)
            else:
                self.recent.keep(phase.effects)
                return runner, None
        raise Unavailable("storage_failed", "a key that is not new stays unknown")

    async def _make_again(self, made: _Made, known: Facts) -> Facts:
        self._late = self._made.events if self._made is not None else []
        self._made = None
        facts = await self._facts(made.step, known)
        made.step = self._step(self.state, made.events, facts)
        late, self._late = self._late, None
        if late:
            self.fold(late)
        return facts

    async def _facts(self, step: Step[GovernorState], known: Facts) -> Facts:
        """What storage knows of the step's keys, added to what was ``known``: a step made with facts no longer names their keys."""
        keys: dict[str, dict[str, int]] = {"intent": {}, "outcome": {}}
        for effect in step.effects:
            if isinstance(effect, InsertOnce):
                keys[effect.space][effect.key] = effect.at_ms
        origin = self.state.log.origin
        intents = dict(known.intents)
        for key, index in (await self.store.once("intent", keys["intent"])).items():
            intents[key] = (await self.store.records(origin, index, 1))[0]
        outcomes = dict(known.outcomes)
        for key, index in (await self.store.once("outcome", keys["outcome"])).items():
            (leaf,) = await self.store.tile(origin, 0, index, 1)  # the record may have been pruned since
            outcomes[key] = RecordRef(origin=origin, index=index, leaf=leaf.hex())
        return Facts(intents=intents, outcomes=outcomes, over=known.over | await self._over(step))

    async def _over(self, step: Step[GovernorState]) -> set[str]:
        """Which of the executions that the step takes for running are over, by any record that is held here."""
        found = set[str]()
        for item in dict.fromkeys(effect for effect in step.effects if isinstance(effect, Running)):
            places = await self.store.find(item.authorization, PARENT_RECORDS_MAX + 1)
            if len(places) > PARENT_RECORDS_MAX:  # any enforcer may say that it blocked it: nobody hides an end behind that
                found.add(item.authorization)
                continue
            for leaf in [leaf for _, origin, index in places for leaf in await self._record(origin, index)]:
                if ends(leaf, await self.store.bodies(leaf_ids(leaf)[0][:1]), item.authorization, item.enforcer):
                    found.add(item.authorization)
                    break
        return found

    async def _record(self, origin: str, index: int) -> list[bytes]:
        """The record there; none if it was pruned: then its execution began longer ago than anything may still begin within it."""
        try:
            return await self.store.records(origin, index, 1)
        except Refused:
            return []


async def _ended(task: asyncio.Task[None] | None) -> None:
    """Wait for it, whatever became of it."""
    if task is not None and not task.done():
        await asyncio.wait({task})
