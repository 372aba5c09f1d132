"""Performs a machine's steps against real storage: commit, then sign, then send, or nothing.

Rules
-----
1. A key that was not new discards the step and makes it again with what storage knows of it: repeats get their old answer.
2. Any other failure of storage discards the step, answers every waiter ``unavailable``, and ends the node's storage; the owner
   of this object opens it again and begins anew.
3. Nothing is sent that was not committed.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from mesh.adapters.clock import Clock, wall_ms
from mesh.adapters.signer import Signer
from mesh.adapters.store import Conflict, Store
from mesh.core.log.merkle import leaf_hash
from mesh.core.run.authorization import RecordRef
from mesh.errors import Alarm
from mesh.protocol.governor import Event, Facts, GovernorState, Machine
from mesh.protocol.step import Announce, Ask, Commit, InsertOnce, KeyUse, Send, Step, phases

__all__ = ["USES", "Performer"]

USES: Final[tuple[KeyUse, ...]] = ("log", "witness", "attest", "decision")
_RETRIES_MAX: Final = 3

Deliver = Callable[[Send | Announce | Ask, bytes], Awaitable[None]]


class Performer:
    """One machine, its state, its storage."""

    def __init__(
        self, machine: Machine, store: Store, signer: Signer, clock: Clock, deliver: Deliver, failpoint: Callable[[str], None]
    ) -> None:
        """Perform the steps of ``machine``; ``deliver`` sends what a step sends."""
        self.machine = machine
        self.store = store
        self.clock = clock
        self._signer = signer
        self._public = {use: signer.public(use) for use in USES}
        self._deliver = deliver
        self._failpoint = failpoint
        self._state: GovernorState | None = None

    @property
    def state(self) -> GovernorState:
        """The state after the last step."""
        if self._state is None:
            raise Alarm("storage_failed", "asked before the first step")
        return self._state

    async def begin(self, step: Step[GovernorState]) -> None:
        """Perform the first step of this boot."""
        await self._perform(step)

    async def take(self, events: Sequence[Event]) -> None:
        """Fold a batch of events and perform what comes of it.

        Raises:
            Unavailable: ``storage_failed``; nothing was sent.
            Alarm: storage refused what must not happen.
        """
        facts = Facts()
        for attempt in range(_RETRIES_MAX):
            step = self.machine.step(self.state, events, now_ms=self.clock.now_ms(), wall_ms=wall_ms(), facts=facts)
            try:
                await self._perform(step)
            except Conflict:
                if attempt == _RETRIES_MAX - 1:
                    raise
                facts = await self._facts(step)
            else:
                return

    async def _perform(self, step: Step[GovernorState]) -> None:
        runner = phases(step, sign=self._signer.sign, public=self._public, failpoint=self._failpoint)
        try:
            phase = next(runner)
            if isinstance(phase, Commit):
                await self.store.commit(phase.effects)
                # What is durable is believed even if the sending fails: messages may be lost, memory may not.
                self._state = step.state
                phase = next(runner)
            self._state = step.state
            if not isinstance(phase, Commit):
                for item, data in phase.messages:
                    await self._deliver(item, data)
            next(runner)
        except StopIteration:
            self._state = step.state
        finally:
            runner.close()

    async def _facts(self, step: Step[GovernorState]) -> Facts:
        keys: dict[str, list[str]] = {"intent": [], "outcome": []}
        for effect in step.effects:
            if isinstance(effect, InsertOnce):
                keys[effect.space].append(effect.key)
        origin = self.state.log.origin
        intents = {
            key: (await self.store.records(origin, index, 1))[0] for key, index in (await self.store.once("intent", keys["intent"])).items()
        }
        outcomes = {}
        for key, index in (await self.store.once("outcome", keys["outcome"])).items():
            data = (await self.store.records(origin, index, 1))[0]
            outcomes[key] = RecordRef(origin=origin, index=index, leaf=leaf_hash(data).hex())
        return Facts(intents=intents, outcomes=outcomes)
