"""A governor as a process: bus callbacks fill bounded queues, one loop folds batches, everything it does is in the steps.

Rules
-----
1. A callback only enqueues. Intents have a queue of their own, bounded: the next one is told ``overloaded`` at once.
2. Whatever keeps the mesh together (heartbeats, notes, records, outcomes) is taken before intents, however many wait.
3. The whole loop runs on a thread with a stack of known size, because policy is evaluated in it.
4. A failure of storage answers everybody ``unavailable``, opens the file again, verifies it, and begins a new incarnation.
5. Stopping drains: no new intents, those taken are answered, the last record says so, the last checkpoint goes out.
"""

import asyncio
import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Final

from mesh.adapters.bus import Bus
from mesh.adapters.bus_message import Message
from mesh.adapters.bus_table import bus_options
from mesh.adapters.cedar import CedarEngine
from mesh.adapters.clock import Clock
from mesh.adapters.decision_thread import DecisionThread
from mesh.adapters.signer import Signer, load
from mesh.adapters.store import Store
from mesh.adapters.trustfiles import load_trust
from mesh.core import subjects
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.messages import Find, NodeStatus, Prove, Pull, RefusedAnswer, StatusAsked, Sync, SyncAnswer, pack, unpack, unpack_asked
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import BATCH_EVENTS_MAX, BATCH_RECORDS_MAX, QUESTIONS_MAX, QUEUE_REQUESTS_MAX, REQUEST_BYTES_MAX
from mesh.policy.admission import admit_laws
from mesh.protocol.begin import begin
from mesh.protocol.governor import (
    CosigArrived,
    Event,
    HeartbeatArrived,
    IntentArrived,
    LineageArrived,
    Machine,
    NoteArrived,
    OutcomesArrived,
    Shed,
    Stopping,
    SyncArrived,
    Tick,
)
from mesh.protocol.step import Announce, Ask, Reply, Send
from mesh.roles import answers
from mesh.roles.config import NodeConfig
from mesh.roles.loading import load_state
from mesh.roles.outbox import Outbox
from mesh.roles.performer import USES, Performer
from mesh.roles.status import node_status

__all__ = ["GovernorNode"]

_TICK_S: Final = 0.05
"""Shorter than any signed bound; a tick with nothing due costs microseconds."""
_TURN_INTENTS: Final = 32
"""Decided without a look at anything else: some 6 ms."""
_INTENTS_KEPT: Final = 16
"""Places of a turn that waiting intents get, whatever else has come."""
_PULL_TIMEOUT_MS: Final = 2_000
_SYSTEM_EVENTS_MAX: Final = 10_000
"""Heartbeats, notes and records waiting; beyond, new ones are dropped and come again by anti-entropy."""
_REOPEN_S: Final = 1.0
_DRAIN_S: Final = 5.0

_log = logging.getLogger(__name__)


class GovernorNode:
    """One governor. :meth:`run` lives until :meth:`stop`."""

    def __init__(self, config: NodeConfig, failpoint: Callable[[str], None], thread: DecisionThread) -> None:
        """Read what the configuration names; nothing is opened yet.

        Raises:
            Refused: ``config_invalid`` and whatever is wrong with keys, roster or policy.
        """
        self.config = config
        self.governance: Governance = load_trust(config.trust, config.path("."))
        self.me: Member = self.governance.roster.member(config.node.name)
        keys = config.path(config.node.keys)
        self.signer = Signer([load(keys / f"{use}.key") for use in USES])
        for use in USES:
            if self.signer.public(use) != getattr(self.me, f"{use}_key"):
                raise Refused("config_invalid", f"{keys}/{use}.key is not the key that the roster names for {self.me.name}")
        self._failpoint = failpoint
        self._thread = thread
        self._intents: deque[IntentArrived] = deque()
        self._system: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._waiters: dict[int, Message] = {}
        self._next_waiter = 0
        self._draining = False
        self._looking = 0
        """Questions being looked up."""
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters: Counter[str] = Counter()
        self.clock = Clock()
        self._started_ms = self.clock.now_ms()
        self.performer: Performer | None = None
        self.outbox: Outbox | None = None
        self.bus: Bus | None = None

    # ------------------------------------------------------------------------------------------------------------ life

    def stop(self) -> None:
        """Begin to drain; :meth:`run` returns when done."""
        self._draining = True
        self._wake.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until stopped; ``ready`` is called once intents are taken.

        Raises:
            Unavailable: the bus or the file cannot be had at all.
        """
        engine = self._engine()
        name = f"gov-{self.me.name}"
        self.bus = await Bus.connect(bus_options(self.config.bus, name=name, base=self.config.path(".")), wait_ms=30_000)
        self.outbox = Outbox(self.bus)
        store = await self._open(engine)
        try:
            await self._subscribe(self.bus)
            ticker = asyncio.create_task(self._tick())
            ready()
            while not (self._draining and not self._intents and not self._system and self._performing().idle):
                await self._wait()
                try:
                    await self._turn()
                except MeshError as error:
                    store = await self._recover(error, store, engine)
            ticker.cancel()
            await self._last_words()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await self.outbox.close(wait_s=1.0)
            await self.bus.close()
            await store.close()
            self._stopped.set()

    def _engine(self) -> CedarEngine:
        engine = CedarEngine(self._thread)
        laws = [law for epochs in self.governance.laws.values() for law in epochs]
        for law in laws:
            if law.bundle is None:
                raise Refused("config_invalid", f"no bundle for {law.manifest.domain} epoch {law.manifest.epoch}")
        admit_laws(laws, engine)
        return engine

    async def _open(self, engine: CedarEngine) -> Store:
        folder = self.config.path(self.config.node.data)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = await Store.open(folder / "node.db", owner=self.me.name)
        try:
            machine = Machine(self.governance, self.me, engine)
            stored = await load_state(store, self.governance, self.me)
            self.clock.raise_to(stored.own.last_ms)
            performer = Performer(
                machine, store, self.signer, self.clock, deliver=self._deliver, failpoint=self._failpoint, wake=self._wake.set
            )
            await performer.begin(begin(machine, stored, boot=secrets.token_hex(32), now_ms=self.clock.now_ms()))
        except BaseException:
            await store.close()
            raise
        self.performer = performer
        self._spawn(self._sync_all(performer.state.fresh.boot))
        return store

    async def _recover(self, error: MeshError, store: Store, engine: CedarEngine) -> Store:
        """Rule 4."""
        _log.error("step failed: %s", error)
        self.counters["failed_steps"] += 1
        for waiter in list(self._waiters):
            await self._answer(waiter, pack(RefusedAnswer(code="unavailable", detail="")))
        self._intents.clear()
        await store.close()
        while True:
            try:
                return await self._open(engine)
            except Unavailable as again:
                _log.error("storage: %s", again)
                await asyncio.sleep(_REOPEN_S)

    async def _last_words(self) -> None:
        """Rule 5: the last record, then checkpoints until it is certified or time is up."""
        performer = self._performing()
        await performer.take([Stopping(), Tick()])
        deadline = asyncio.get_running_loop().time() + _DRAIN_S
        while performer.state.log.certified < performer.state.log.frontier.size:
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(_TICK_S)
            events = [self._system.popleft() for _ in range(min(len(self._system), BATCH_EVENTS_MAX))]
            await performer.take([*events, Tick()])

    def status(self) -> NodeStatus:
        """How this node is."""
        counters = dict(self.counters)
        if self.bus is not None:
            counters.update({f"bus_{name}": count for name, count in self.bus.counters.items()})
        if self.outbox is not None:
            counters.update({f"outbox_{name}": count for name, count in self.outbox.counters.items()})
        return node_status(self._performing(), counters, started_ms=self._started_ms)

    # ------------------------------------------------------------------------------------------------------------ loop

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            if not self._system or not isinstance(self._system[-1], Tick):
                self._enqueue(Tick())

    async def _wait(self) -> None:
        performer = self._performing()
        if performer.failed or ((self._system or self._intents) and performer.room):
            return
        if not (self._draining and performer.idle and not self._intents and not self._system):
            self._wake.clear()
            await self._wake.wait()

    async def _turn(self) -> None:
        """Everything else first, then some intents (rule 2); while one step commits, turns fill the next."""
        performer = self._performing()
        performer.check()
        kept = min(len(self._intents), _INTENTS_KEPT)  # a flood of anything else must not keep intents waiting for ever
        events: list[Event] = [self._system.popleft() for _ in range(min(len(self._system), performer.room - kept))]
        events += [self._intents.popleft() for _ in range(min(len(self._intents), performer.room - len(events), _TURN_INTENTS))]
        if events:
            performer.fold(events)
        await asyncio.sleep(0)  # the bus is read, what is durable is signed and sent

    def _performing(self) -> Performer:
        if self.performer is None:
            raise Unavailable("storage_failed", "the node is not open")
        return self.performer

    # --------------------------------------------------------------------------------------------------------- inbound

    async def _subscribe(self, bus: Bus) -> None:
        region, name, everyone = self.me.region, self.me.name, subjects.ANY
        await bus.subscribe(subjects.hb(everyone), partial(self._take, HeartbeatArrived))
        await bus.subscribe(subjects.lineage(everyone, everyone), self._lineage)
        await bus.subscribe(subjects.checkpoint(everyone, everyone), partial(self._take, NoteArrived))
        await bus.subscribe(subjects.cosig(region, name), partial(self._take, CosigArrived))
        await bus.subscribe(subjects.sync(name), self._asked)
        await bus.subscribe(subjects.outcome(region, everyone), self._outcomes, queue=f"gov-{region}")
        await bus.subscribe(subjects.intent(region, everyone, everyone), self._intent, queue=f"gov-{region}")

    def _take(self, kind: Callable[[bytes], Event], message: Message) -> None:
        self._enqueue(kind(message.data))

    def _lineage(self, message: Message) -> None:
        self._enqueue(LineageArrived(message.data, pulled=False, node=message.subject.rpartition(".")[2]))

    def _enqueue(self, event: Event) -> None:
        if len(self._system) >= _SYSTEM_EVENTS_MAX:
            self.counters["system_dropped"] += 1
            return
        self._system.append(event)
        self._wake.set()

    def _intent(self, message: Message) -> None:
        if not message.answerable:
            self.counters["unanswerable"] += 1
            return
        refusal = ""
        if len(message.data) > REQUEST_BYTES_MAX:
            refusal = "too_large"
        elif self._draining:
            refusal = "draining"
        elif len(self._intents) >= QUEUE_REQUESTS_MAX:
            refusal = "overloaded"
        if refusal:
            self._enqueue(Shed(refusal, 1))
            self._spawn(self._reply(message, pack(RefusedAnswer(code=refusal, detail=""))))
            return
        self._intents.append(IntentArrived(self._waiter(message), message.data))
        self._wake.set()

    def _outcomes(self, message: Message) -> None:
        if message.answerable and not self._draining:
            self._enqueue(OutcomesArrived(self._waiter(message), message.data))

    def _asked(self, message: Message) -> None:
        if not message.answerable:
            self.counters["unanswerable"] += 1
            return
        try:
            asked = unpack_asked(message.data)
        except Refused as refusal:
            self._enqueue(Shed(refusal.code, 1))
            return
        if isinstance(asked, Sync):
            self._enqueue(SyncArrived(self._waiter(message), asked.nonce))
        elif self._looking >= QUESTIONS_MAX:
            self._enqueue(Shed("overloaded", 1))
            self._spawn(self._reply(message, pack(RefusedAnswer(code="overloaded", detail=""))))
        else:
            self._looking += 1
            self._spawn(self._look_up(message, asked))

    async def _look_up(self, message: Message, asked: Pull | Find | Prove | StatusAsked) -> None:
        performer = self._performing()
        # Tenants import this service; what committed parameters hide is for members and auditors.
        openings = not message.imported
        try:
            match asked:
                case Pull():
                    answer = await answers.pulled(performer.store, asked, self._newest(asked.origin), openings=openings)
                case Find():
                    answer = await answers.found(performer.store, asked)
                case Prove():
                    answer = await answers.proved(performer.store, asked, openings=openings)
                case StatusAsked():
                    answer = pack(self.status())
        except MeshError as error:
            answer = pack(RefusedAnswer(code=error.code, detail=error.detail[:200]))
        finally:
            self._looking -= 1
        await self._reply(message, answer)

    def _newest(self, origin: str) -> bytes:
        log = self._performing().state.log
        return log.note if origin == log.origin else b""

    def _waiter(self, message: Message) -> int:
        self._next_waiter += 1
        self._waiters[self._next_waiter] = message
        return self._next_waiter

    # -------------------------------------------------------------------------------------------------------- outbound

    async def _deliver(self, item: Send | Announce | Ask, data: bytes) -> None:
        """Send one thing. A bus that is down loses it: what matters is said again or asked for again."""
        if isinstance(item, Ask):
            self._spawn(self._pull(item))
        elif isinstance(item, Announce):
            await self._announce(item, data)
        elif isinstance(item.to, Reply):
            await self._answer(item.to.waiter, data)
        elif item.durable and self.outbox is not None:
            self.outbox.put(item.to, data)
        else:
            await self._publish(item.to, data)

    async def _announce(self, item: Announce, note: bytes) -> None:
        if item.first == item.size:
            await self._publish(subjects.checkpoint(self.me.region, self.me.name), note)
            return
        subject = subjects.lineage(self.me.region, self.me.name)
        for data in await answers.announcement(self._performing().store, item.origin, item.first, item.size, note):
            if self.outbox is not None:
                self.outbox.put(subject, data)

    async def _publish(self, subject: str, data: bytes) -> None:
        if self.bus is not None:
            try:
                await self.bus.publish(subject, data)
            except MeshError:
                self.counters["unsent"] += 1

    async def _answer(self, waiter: int, data: bytes) -> None:
        message = self._waiters.pop(waiter, None)
        if message is not None:
            await self._reply(message, data)

    async def _reply(self, message: Message, data: bytes) -> None:
        try:
            await message.respond(data)
        except MeshError:
            self.counters["unsent"] += 1

    async def _pull(self, item: Ask) -> None:
        ask = Pull(origin=item.origin, first=item.first, count=BATCH_RECORDS_MAX)
        with suppress(MeshError):
            answer = await self._request(item.member, pack(ask))
            self._enqueue(LineageArrived(answer, pulled=True, node=item.member))

    async def _sync_all(self, nonce: str) -> None:
        """Ask every member for a heartbeat of now, until enough have answered."""
        performer = self._performing()
        others = [member.name for member in self.governance.roster.members if member.name != self.me.name]
        while self.performer is performer and len(performer.state.fresh.echoed) < self.governance.roster.k:
            await asyncio.gather(*(self._sync(name, nonce) for name in others if name not in performer.state.fresh.echoed))
            await asyncio.sleep(_TICK_S)

    async def _sync(self, member: str, nonce: str) -> None:
        with suppress(MeshError):
            answer = await self._request(member, pack(Sync(nonce=nonce)))
            self._enqueue(HeartbeatArrived(bytes(unpack(SyncAnswer, answer).heartbeat)))

    async def _request(self, member: str, data: bytes) -> bytes:
        if self.bus is None:
            raise Unavailable("unreachable")
        return (await self.bus.request(subjects.sync(member), data, timeout_ms=_PULL_TIMEOUT_MS)).data

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
