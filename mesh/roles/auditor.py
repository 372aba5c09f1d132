"""An auditor as a process: it reads the streams, asks nodes for what is missing, and keeps how far it has come.

Rules
-----
1. A message is acknowledged only after the position that includes it was saved; what comes twice changes nothing.
2. Pulls begin when the streams have nothing more, and members were asked once what governs: they repair gaps and fetch what streams may
   not carry (openings).
3. What governs, and which certificates there are, is asked of every member; a claim counts only with the statements themselves.
4. A region without streams is followed by pulls alone.
5. ``once`` ends when everything that is known to be final has been judged, or when nothing has moved for too long.

Not here: judging (:mod:`mesh.protocol.audit`).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Final

import msgspec

from mesh.adapters.auditstore import AuditStore
from mesh.adapters.bus import Bus, Delivery
from mesh.adapters.cedar import CedarEngine
from mesh.adapters.clock import Clock
from mesh.adapters.decision_thread import DecisionThread
from mesh.adapters.streams import ensure_consumer, lineage_stream
from mesh.core import subjects
from mesh.core.bytes.canonical import Payload
from mesh.core.law.governance import Governance
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import LineageBatch, NodeStatus, Prove, Proved, Pull, StatusAsked, pack, unpack
from mesh.errors import MeshError, Unavailable
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.alarms import PATIENT, Patience, Standing
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditEvent, AuditState, MembersTold, PullFailed
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.step import Ask
from mesh.roles.learning import Learning

__all__ = ["Auditor"]

_FETCH: Final = 64
"""Messages in one fetch from a stream."""
_FETCH_MS: Final = 500
_ASK_MS: Final = 2_000
_TICK_S: Final = 0.1
_EVENTS_MAX: Final = 16
"""Messages in one step: each may hold 128 decisions, and the bus must not wait for a second."""
_QUEUED_MAX: Final = 64
"""Messages that wait to be judged: each may be a megabyte, and more of them make nothing faster."""
_SAVE_S: Final = 1.0
_SAVE_SHARE: Final = 20
"""Saving takes a twentieth of the time at most: with thousands of executions open a position is some megabytes."""
_LEARN_S: Final = 10.0
_LEARN_AGAIN_S: Final = 1.0
"""At the earliest, when something came that was decided by a policy not heard of yet."""
_STUCK_S: Final = 15.0
_RETRY_S: Final = 2.0
_KIND_TOKEN: Final = 3
"""``mesh.v1.<region>.<kind>.<node>``"""

_log = logging.getLogger(__name__)


class _Item(msgspec.Struct, frozen=True, eq=False):
    """An event, and what must be acknowledged once it counts."""

    event: AuditEvent
    delivery: Delivery | None = None


class Auditor:
    """One auditor. :meth:`run` lives until it is done, or :meth:`stop`."""

    def __init__(
        self, governance: Governance, engine: CedarEngine, store: AuditStore, bus: Bus, thread: DecisionThread, *, domain: str = ""
    ) -> None:
        """Audit over ``bus``, from the position in ``store``; steps run on ``thread``, where the engine is at home.

        ``governance`` is what to begin with; the engine holds its bundles.

        Raises:
            Refused: what :meth:`mesh.protocol.audit.Audit.begin` refuses.
        """
        self._audit = Audit(governance, engine)
        self.state: AuditState = self._audit.begin(store.position)
        self._learning = Learning(governance, self._ask, engine, thread)
        self._store = store
        self._bus = bus
        self._thread = thread
        self._domain = domain
        self._clock = Clock()
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(_QUEUED_MAX)
        self._drained = dict.fromkeys((member.region for member in governance.roster.members), False)
        self._judged: list[Delivery] = []
        self._pulling = 0
        self._learned = False
        self._reached = 0
        self._stopping = False
        self._curious = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """End soon, with the position saved."""
        self._stopping = True

    @property
    def governance(self) -> Governance:
        """What it judges by now."""
        return self._audit.governance

    def standing(self, patience: Patience = PATIENT) -> list[Standing]:
        """The alarms that stand now."""
        return self._audit.standing(self.state, now_ms=self._clock.now_ms(), patience=patience)

    @property
    def caught_up(self) -> bool:
        """Whether everything that is known to be final was judged."""
        return all(log.caught_up for log in self.state.logs.values())

    async def run(self, *, once: bool, changed: Callable[[AuditState], None]) -> None:
        """Follow until stopped; with ``once``, until caught up or stuck. ``changed`` is told every new state.

        Raises:
            Unavailable: ``unreachable`` if, with ``once``, no member answered at all; ``storage_failed``.
        """
        for region in list(self._drained):
            self._spawn(self._read(region))
        self._spawn(self._keep_learning())
        try:
            await self._follow(once=once, changed=changed)
        finally:
            for task in list(self._tasks):
                task.cancel()
            await self._save()

    async def _follow(self, *, once: bool, changed: Callable[[AuditState], None]) -> None:
        now = asyncio.get_running_loop().time
        save_s = now() + _SAVE_S
        moved: dict[str, tuple[int, float]] = {}
        while not self._stopping:
            await self._turn()
            changed(self.state)
            moved = {
                origin: moved[origin] if origin in moved and not log.caught_up and moved[origin][0] == log.ready else (log.ready, now())
                for origin, log in self.state.logs.items()
            }
            if now() > save_s:
                begun_s = now()
                await self._save()
                save_s = now() + max(_SAVE_S, _SAVE_SHARE * (now() - begun_s))
            if once and self._learned and not self._reached:
                raise Unavailable("unreachable", "no member of the roster answers")
            # Judged log by log: one that leads nowhere must not hide behind the traffic of the others.
            if once and (self._finished() or any(now() - since_s > _STUCK_S for _, since_s in moved.values())):
                return

    async def _turn(self) -> None:
        """Fold what has arrived; when nothing more comes by itself, ask for what is missing (rule 2)."""
        items: list[_Item] = []
        with suppress(TimeoutError):
            items.append(await asyncio.wait_for(self._queue.get(), _TICK_S))
        while len(items) < _EVENTS_MAX and not self._queue.empty():
            items.append(self._queue.get_nowait())
        events: list[AuditEvent] = [item.event for item in items]
        if self._quiet() and self._learned:
            events.append(Tick())
        step = await self._thread.run(self._audit.step, self.state, events, now_ms=self._clock.now_ms())
        self.state = step.state
        self._judged += [item.delivery for item in items if item.delivery is not None]
        if any(log.lacks_policy for log in self.state.logs.values()):
            self._curious.set()
        for ask in step.effects:
            if isinstance(ask, Ask):
                self._pulling += 1
                self._spawn(self._pull(ask))

    def _quiet(self) -> bool:
        return self._queue.empty() and all(self._drained.values())

    def _finished(self) -> bool:
        return self._learned and self._quiet() and not self._pulling and self.caught_up

    async def _save(self) -> None:
        """Rule 1."""
        position = self._audit.position(self.state)
        if position != self._store.position:
            await asyncio.to_thread(self._store.save, position)
        judged, self._judged = self._judged, []
        for delivery in judged:
            with suppress(MeshError):  # it comes again, and changes nothing
                await delivery.ack()

    # ---------------------------------------------------------------------------------------------------------- reading

    async def _read(self, region: str) -> None:
        """Read one region's stream for ever."""
        stream = lineage_stream(region)
        while True:
            try:
                await ensure_consumer(self._bus, stream, self._store.reader, domain=self._domain)
                while True:
                    deliveries = await self._bus.pull(stream, self._store.reader, batch=_FETCH, timeout_ms=_FETCH_MS, domain=self._domain)
                    for delivery in deliveries:
                        await self._take(delivery)
                    self._drained[region] = len(deliveries) < _FETCH
            except MeshError as error:
                _log.info("%s: %s", stream, error)
                self._drained[region] = True  # rule 4
                await asyncio.sleep(_RETRY_S)

    async def _take(self, delivery: Delivery) -> None:
        kind = delivery.subject.split(".")[_KIND_TOKEN]
        if kind == "lineage":
            await self._queue.put(_Item(LineageArrived(delivery.data, pulled=False), delivery))
        elif kind == "checkpoint":
            await self._queue.put(_Item(NoteArrived(delivery.data), delivery))
        else:
            self._judged.append(delivery)  # single lines: certificates hold those that count

    async def _pull(self, ask: Ask) -> None:
        event: AuditEvent = PullFailed(ask.origin)
        try:
            data = await self._ask(ask.member, Pull(origin=ask.origin, first=ask.first, count=BATCH_RECORDS_MAX))
            if unpack(LineageBatch, data).origin == ask.origin:
                event = LineageArrived(data, pulled=True)
        except MeshError as error:
            _log.debug("pull from %s: %s", ask.member, error)
        await self._queue.put(_Item(event))
        self._pulling -= 1

    async def _keep_learning(self) -> None:
        while True:
            await self._learn()
            self._learned = True
            self._curious.clear()
            await asyncio.sleep(_LEARN_AGAIN_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._curious.wait(), _LEARN_S)

    async def _learn(self) -> None:
        """Rule 3."""
        self._audit.governance = await self._learning.go_on(now_ms=self._clock.now_ms())
        members = [member.name for member in self._audit.roster.members]
        for region in (member.region for member in self._audit.roster.members if member.region not in self._drained):
            self._drained[region] = False
            self._spawn(self._read(region))
        answers = await asyncio.gather(*(self._status(name) for name in members))
        self._reached = sum(answer is not None for answer in answers)
        await self._queue.put(_Item(MembersTold({answer.node: answer for answer in answers if answer is not None})))
        claims: dict[str, list[tuple[int, str]]] = {origin: [] for origin in self._audit.owners}
        for status in answers:
            for origin, certified in _certified(status):
                if status is not None and origin in claims and certified > self._goal(origin):
                    claims[origin].append((certified, status.node))
        for origin, claimed in claims.items():
            # One of f + 1 is honest, whatever the others claim.
            for certified, name in sorted(claimed, reverse=True)[: self._audit.roster.f + 1]:
                await self._fetch_certificate(name, origin, certified)

    def _goal(self, origin: str) -> int:
        log = self.state.logs.get(origin)
        return 0 if log is None else log.goal

    async def _status(self, name: str) -> NodeStatus | None:
        try:
            status = unpack(NodeStatus, await self._ask(name, StatusAsked()))
        except MeshError as error:
            _log.debug("status of %s: %s", name, error)
            return None
        return status if status.node == name else None

    async def _fetch_certificate(self, name: str, origin: str, size: int) -> None:
        with suppress(MeshError):
            proved = unpack(Proved, await self._ask(name, Prove(origin=origin, index=size - 1)))
            note = TlogProof.parse(proved.proof.encode()).note
            await self._queue.put(_Item(NoteArrived(note)))

    async def _ask(self, name: str, message: Payload) -> bytes:
        return (await self._bus.request(subjects.sync(name), pack(message), timeout_ms=_ASK_MS)).data

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _certified(status: NodeStatus | None) -> list[tuple[str, int]]:
    if status is None:
        return []
    return [(status.origin, status.certified), *((mirror.origin, mirror.certified) for mirror in status.mirrors)]
