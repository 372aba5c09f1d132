"""A governor as a process: bus callbacks fill bounded queues, one loop folds batches, everything it does is in the steps.

Rules
-----
1. A callback only enqueues, into the queue of its kind (:mod:`mesh.roles.inbox`). Whoever finds it full is told ``overloaded`` at
   once; a waiter is kept only for what has a place.
2. Whatever keeps the mesh together (heartbeats, notes, records) is taken before requests, however many wait.
3. The whole loop runs on a thread with a stack of known size, because policy is evaluated in it.
4. Storage that fails, or a step that was refused, answers everybody ``unavailable``; the file is opened again and verified, and a
   new incarnation begins. Until it takes something again, what it holds is still served, and nothing is signed.
5. An alarm ends the node, wherever it was met: nothing more is signed, whoever waits is told ``unavailable``, :meth:`GovernorNode.run`
   raises it. An error that nobody foresaw is an alarm, ``internal_error``, with its traceback in the log;
   but for one met in answering a question, which only whoever asked hears of: nothing was changed by it.
6. Stopping drains, in bounded time: it leaves the queues that others share, answers what was taken, refuses what still comes as
   ``draining``, records that it stops, and sends the last checkpoint.
7. A node that goes over to the next roster begins anew as after a failure of storage, with nothing lost. One that this roster
   does not name any more ends.
8. What is on the disk is verified at start and again and again after (:mod:`mesh.roles.scrubbing`).
9. What is found broken at start is put back as it was signed, if a member has it (:mod:`mesh.roles.mending`), or the node ends.
"""

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from mesh.adapters.bus import Bus, Subscription
from mesh.adapters.bus_message import Message
from mesh.adapters.bus_table import bus_options
from mesh.adapters.cedar import CedarEngine
from mesh.adapters.clock import Clock
from mesh.adapters.decision_thread import DecisionThread
from mesh.adapters.signer import Signer, load
from mesh.adapters.store import Store
from mesh.adapters.trustfiles import load_said, load_trust
from mesh.core import subjects
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.messages import BundleAsked, HeardAsked, LawAsked, NodeStatus, Offer, RefusedAnswer, Supply, Sync, pack, unpack_asked
from mesh.errors import Alarm, MeshError, Refused, Unavailable, unforeseen
from mesh.limits import MESSAGE_BYTES_MAX, QUESTIONS_MAX, REQUEST_BYTES_MAX
from mesh.protocol.begin import begin
from mesh.protocol.events import (
    AccusationArrived,
    CosigArrived,
    FromMember,
    HeartbeatArrived,
    IntentArrived,
    Judged,
    LawArrived,
    LineageArrived,
    NoteArrived,
    OfferArrived,
    OutcomesArrived,
    Stopping,
    SyncArrived,
    Tick,
)
from mesh.protocol.gossip import ToldIncident
from mesh.protocol.governor import Machine
from mesh.protocol.step import Announce, Ask, AskLaw, KeyUse, Outgoing, Reply, SetMeta
from mesh.roles import answers
from mesh.roles.admission import Admission, Find, admit_stored
from mesh.roles.config import NodeConfig
from mesh.roles.erasing import erase_for_ever
from mesh.roles.inbox import Inbox
from mesh.roles.lanes import Lanes
from mesh.roles.loading import admitted_engine, enrolled, load_governance, load_state
from mesh.roles.mending import mended, note_broken
from mesh.roles.outbox import Outbox
from mesh.roles.peers import Peers
from mesh.roles.performer import USES, Performer
from mesh.roles.pruning import prune_for_ever
from mesh.roles.questions import answered, reply_with
from mesh.roles.scrubbing import scrub_for_ever, scrub_newest
from mesh.roles.starting import fewer_than_signed, watch_start
from mesh.roles.status import node_status
from mesh.roles.waiters import Waiters, reply

__all__ = ["GovernorNode"]

_ABOUT_LAW: Final = (LawAsked, BundleAsked, Supply, HeardAsked)
_TICK_S: Final = 0.05
"""Shorter than any signed bound; a tick with nothing due costs microseconds."""
_REOPEN_S: Final = 1.0
_DRAIN_S: Final = 5.0
"""All of rule 6; whoever stops processes gives them ten seconds at least."""

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
        self._given = load_said(config.trust, config.path("."))
        self.signer = Signer([load(config.path(config.node.keys) / f"{use}.key") for use in USES])
        self._public: dict[KeyUse, str] = {use: self.signer.public(use) for use in USES}
        self.me: Member = enrolled(self.governance.roster, config.node.name, self._public)
        self._file = config.path(config.node.data) / "node.db"
        self._failpoint = failpoint
        self._thread = thread
        self._inbox = Inbox()
        self._wake = asyncio.Event()
        self._draining = False
        self._looking = {True: 0, False: 0}
        """Questions being looked up: about law, which nobody else's may keep out, and others."""
        self._ailing = ""
        """Why storage takes nothing, as a code; empty if it does."""
        self._shared: list[Subscription] = []
        """Where other governors of the region could answer as well."""
        self._fatal: MeshError | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.counters: Counter[str] = Counter()
        self._waiters = Waiters(self.counters)
        self.clock = Clock()
        self._started_ms = self.clock.now_ms()
        self.performer: Performer | None = None
        self.outbox: Outbox | None = None
        self.peers: Peers | None = None
        self.lanes: Lanes | None = None
        self.admission: Admission | None = None

    # ------------------------------------------------------------------------------------------------------------ life

    def stop(self) -> None:
        """Begin to drain; :meth:`run` returns when done."""
        self._draining = True
        self._wake.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Serve until stopped; ``ready`` is called once intents are taken.

        Raises:
            Unavailable: the bus or the file cannot be had at all.
            Alarm: rule 5.
        """
        engine = admitted_engine(self.governance, self._thread)
        options = bus_options(self.config.bus, name=f"gov-{self.me.name}", base=self.config.path("."))
        self.lanes = await Lanes.connect(options, wait_ms=30_000)
        self.outbox = Outbox(self.lanes.bulk)
        self.peers = Peers(self.lanes.urgent, self._enqueue)
        stored: Find = lambda digest: self._performing().store.bundle(digest)  # noqa: E731, PLW0108 -- of whichever store is open then
        self.admission = Admission(engine, lambda: self._performing().state.governance, (stored, self.peers.bundle), self._judged)
        try:
            await self._first_open(engine, self.peers)
            await self._subscribe(self.lanes.bulk, self.lanes.urgent)
            self._spawn(self._tick())
            self._spawn(self.admission.run())
            ready()
            await self._serve(engine)
            await self._drain(self.lanes.bulk)
        except MeshError as error:
            _log.critical("stopped: %s", error)
            note_broken(self._file, error)
            raise
        except Exception as error:
            _log.exception("stopped")
            raise unforeseen(error) from error
        finally:
            await self._close(self.lanes, self.outbox)

    async def _serve(self, engine: CedarEngine) -> None:
        while not self._draining:
            await self._wait()
            try:
                await self._turn()
            except Alarm:
                raise
            except MeshError as error:
                await self._recover(error, engine)
            if self._performing().over:
                await self._begin_anew(engine)

    async def _close(self, lanes: Lanes, outbox: Outbox) -> None:
        """Sign nothing more, answer whoever waits, let go of everything."""
        self._draining = True
        for task in (tasks := list(self._tasks)):
            task.cancel()
        if self.performer is not None:
            await self.performer.stop()
        await self._tell_waiters()
        await outbox.close(wait_s=1.0)
        await lanes.close()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.performer is not None:
            await self.performer.store.close()

    async def _first_open(self, engine: CedarEngine, peers: Peers) -> None:
        """Rule 9."""
        peers.others = [member.name for member in self.governance.roster.members if member.name != self.me.name]
        floors = partial(peers.floors, self.governance)
        found = await mended(self._file, None, peers.records, floors)
        try:
            await self._open(engine, found=found)
        except Alarm as alarm:
            await self._open(engine, found=[*found, *await mended(self._file, alarm, peers.records, floors)])

    async def _open(self, engine: CedarEngine, *, found: Sequence[ToldIncident] = ()) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = await Store.open(self._file, owner=self.me.name)
        try:
            if found:  # a start may have nothing to write, and then find only later that nothing can be
                await store.commit([SetMeta("mended", self.clock.now_ms())])
            governance = await load_governance(store, self.governance)
            roster = governance.roster
            self.me = enrolled(roster, self.me.name, self._public, heard=self.me.region if self._shared else "")
            machine = Machine(governance, self.me, engine)
            stored = await load_state(store, governance, self.me)
            if not fewer_than_signed(stored.own):  # what is missing comes first, and is verified as it comes
                await scrub_newest(store, roster.origin(self.me), stored.own.frontier.size)
            self.clock.raise_to(stored.own.last_ms)
            performer = Performer(
                machine, store, self.signer, self.clock, deliver=self._deliver, failpoint=self._failpoint, wake=self._wake.set
            )
            boot, now_ms = secrets.token_hex(32), self.clock.now_ms()
            admitted = await admit_stored(governance, engine, store.bundle)
            await performer.begin(begin(machine, stored, boot=boot, now_ms=now_ms, given=self._given, admitted=admitted, found=found))
        except BaseException:
            await store.close()
            raise
        self.performer = performer
        if self.admission is not None:
            self.admission.begin_again()
        if self.peers is not None:
            self.peers.others = [member.name for member in roster.members if member.name != self.me.name]
            self._spawn(self.peers.ask_all(performer, lambda: self.performer is performer))
            self._spawn(self.peers.sync_all(performer, lambda: self.performer is performer))
        self._spawn(self._scrub(store))
        self._spawn(erase_for_ever(performer, self._judged))
        self._spawn(prune_for_ever(performer, self._judged))

    async def _recover(self, error: MeshError, engine: CedarEngine) -> None:
        """Rule 4."""
        _log.error("step failed: %s", error)
        self.counters["failed_steps"] += 1
        resting = self._performing().store
        await self._let_go(rest=True)
        while not self._draining:
            try:
                await self._open(engine, found=[ToldIncident(error.code, error.detail[:200])])
            except (Unavailable, Refused) as again:
                _log.error("storage: %s", again)
                self._ailing = again.code
                await self._tell_waiters()
                await asyncio.sleep(_REOPEN_S)
            else:
                self._ailing = ""
                await resting.close()
                return
        raise error

    async def _begin_anew(self, engine: CedarEngine) -> None:
        """Rule 7."""
        _log.warning("goes over to roster epoch %d", self._performing().over)
        try:
            await self._let_go()
            await self._open(engine)
        except (Refused, Unavailable) as error:
            await self._recover(error, engine)

    async def _let_go(self, *, rest: bool = False) -> None:
        performer = self._performing()
        await performer.stop()
        await self._tell_waiters()
        with suppress(Unavailable):
            await (performer.store.rest() if rest else performer.store.close())

    async def _tell_waiters(self) -> None:
        """Tell whoever waits now that nothing will come."""
        self._inbox.forget_requests()
        await self._waiters.answer_all(pack(RefusedAnswer(code="unavailable", detail="")))

    async def _drain(self, bus: Bus) -> None:
        """Rule 6: what was taken, the last record, then checkpoints until it is certified or time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                for subscription in self._shared:
                    await subscription.unsubscribe()
                while self._inbox.asked:
                    await self._wait()
                    await self._turn()
                performer = self._performing()
                await performer.take([Stopping(), Tick()])
                while bus.healthy and performer.state.log.certified < performer.state.log.frontier.size:  # without it nobody can
                    await asyncio.sleep(_TICK_S)
                    self._check()
                    await performer.take(self._inbox.take(performer.room))

    async def _scrub(self, store: Store) -> None:
        """Rule 8."""
        with suppress(Unavailable):  # it has ended, and whoever writes to it has noticed
            await watch_start(self._performing(), self.me.name)
            await scrub_for_ever(store)

    def status(self) -> NodeStatus:
        """How this node is."""
        counters = dict(self.counters)
        if self.lanes is not None:
            counters.update({f"bus_{name}": count for name, count in self.lanes.counters.items()})
        if self.outbox is not None:
            counters.update({f"outbox_{name}": count for name, count in self.outbox.counters.items()})
        refused = self.admission.refused if self.admission is not None else {}
        return node_status(self._performing(), counters, started_ms=self._started_ms, refused=refused, ailing=self._ailing)

    # ------------------------------------------------------------------------------------------------------------ loop

    async def _tick(self) -> None:
        while True:
            self._inbox.tick()
            self._wake.set()
            await asyncio.sleep(_TICK_S)

    async def _wait(self) -> None:
        performer = self._performing()
        if not (self._fatal or performer.failed or (self._inbox.ready and performer.room)):
            self._wake.clear()
            await self._wake.wait()

    async def _turn(self) -> None:
        """Fold what waits (rule 2); while one step commits, turns fill the next."""
        self._check()
        performer = self._performing()
        events = self._inbox.take(performer.room)
        if events:
            performer.fold(events)
        await asyncio.sleep(0)  # the bus is read, what is durable is signed and sent

    def _check(self) -> None:
        if self._fatal is not None:
            raise self._fatal
        self._performing().check()

    def alarm(self, error: Exception) -> None:
        """Rule 5, for what was met beside the loop."""
        if self._fatal is None:
            if not isinstance(error, MeshError):
                _log.error("unforeseen", exc_info=error)
            self._fatal = error if isinstance(error, MeshError) else unforeseen(error)
        self._wake.set()

    def _performing(self) -> Performer:
        if self.performer is None:
            raise Unavailable("storage_failed", "the node is not open")
        return self.performer

    # --------------------------------------------------------------------------------------------------------- inbound

    async def _subscribe(self, bus: Bus, urgent: Bus) -> None:
        region, name, everyone = self.me.region, self.me.name, subjects.ANY
        await urgent.subscribe(subjects.hb(everyone), partial(self._take, HeartbeatArrived))
        await bus.subscribe(subjects.lineage(everyone, everyone), self._lineage)
        await bus.subscribe(subjects.checkpoint(everyone, everyone), partial(self._take, NoteArrived))
        await bus.subscribe(subjects.cosig(region, name), partial(self._take, CosigArrived))
        await bus.subscribe(subjects.fraud(everyone, everyone), partial(self._take, AccusationArrived))
        await urgent.subscribe(subjects.law(everyone), partial(self._take, LawArrived))
        await urgent.subscribe(subjects.sync(name), self._asked)
        self._shared = [
            await bus.subscribe(subjects.outcome(region, everyone), self._outcomes, queue=f"gov-{region}"),
            await bus.subscribe(subjects.intent(region, everyone, everyone), self._intent, queue=f"gov-{region}"),
        ]

    def _take(self, kind: Callable[[bytes], FromMember], message: Message) -> None:
        self._enqueue(kind(message.data))

    def _lineage(self, message: Message) -> None:
        self._enqueue(LineageArrived(message.data, pulled=False, node=message.subject.rpartition(".")[2]))

    def _enqueue(self, event: FromMember) -> None:
        if self._inbox.arrived(event):
            self._wake.set()
        else:
            self.counters["system_dropped"] += 1

    def _intent(self, message: Message) -> None:
        size = len(message.data)
        if self._admit(message, fits=self._inbox.intents.fits(size), bytes_max=REQUEST_BYTES_MAX):
            self._inbox.intents.put(IntentArrived(self._waiters.add(message), message.data), size)
            self._wake.set()

    def _outcomes(self, message: Message) -> None:
        size = len(message.data)
        if self._admit(message, fits=self._inbox.outcomes.fits(size)):
            self._inbox.outcomes.put(OutcomesArrived(self._waiters.add(message), message.data), size)
            self._wake.set()

    def _asked(self, message: Message) -> None:
        try:
            asked = unpack_asked(message.data)
        except Refused as refusal:
            self._inbox.shed(refusal.code)
            return
        if isinstance(asked, Sync):
            if self._admit(message, fits=self._inbox.syncs.fits(0)):
                self._inbox.syncs.put(SyncArrived(self._waiters.add(message), asked.nonce), 0)
                self._wake.set()
        elif isinstance(asked, Offer):
            size = len(message.data)
            if self._admit(message, fits=self._inbox.offers.fits(size)):
                self._inbox.offers.put(OfferArrived(self._waiters.add(message), message.data), size)
                self._wake.set()
        # Others may need it to make us final, or to be fresh: also while this node drains.
        elif self._admit(message, fits=self._looking[isinstance(asked, _ABOUT_LAW)] < QUESTIONS_MAX, draining=False):
            self._looking[isinstance(asked, _ABOUT_LAW)] += 1
            self._spawn(self._look_up(message, asked))

    def _admit(self, message: Message, *, fits: bool, bytes_max: int = MESSAGE_BYTES_MAX, draining: bool = True) -> bool:
        """Whether a request is taken; whoever sent one that is not is told why (rule 1)."""
        if not message.answerable:
            self.counters["unanswerable"] += 1
            return False
        refusal = ""
        if len(message.data) > bytes_max:
            refusal = "too_large"
        elif draining and self._draining:
            refusal = "draining"
        elif draining and self._ailing:
            refusal = "unavailable"
        elif not fits:
            refusal = "overloaded"
        if refusal:
            self._inbox.shed(refusal)
            self._spawn(reply(message, pack(RefusedAnswer(code=refusal, detail="")), self.counters))
        return not refusal

    async def _look_up(self, message: Message, asked: answers.Question) -> None:
        # Tenants import this service; what committed parameters hide is for members and auditors.
        openings = not message.imported
        asking = answered(asked, self._performing, self.admission, self.signer, status=self.status, openings=openings)
        try:
            await reply_with(message, asking, self.counters)
        finally:
            self._looking[isinstance(asked, _ABOUT_LAW)] -= 1

    # -------------------------------------------------------------------------------------------------------- outbound

    def _judged(self, event: Judged) -> None:
        self._inbox.judged.append(event)
        self._wake.set()

    async def _deliver(self, item: Outgoing, data: bytes) -> None:
        """Send one thing. A bus that is down loses it: what matters is said again or asked for again."""
        if isinstance(item, Ask | AskLaw):
            if self.peers is not None:
                self._spawn(self.peers.pull(item))
        elif isinstance(item, Announce):
            await self._announce(item, data)
        elif isinstance(item.to, Reply):
            await self._waiters.answer(item.to.waiter, data)
        elif item.durable and self.outbox is not None:
            self.outbox.put(item.to, data)
        else:
            await self._publish(item.to, data)

    async def _announce(self, item: Announce, note: bytes) -> None:
        if item.first == item.size:
            await self._publish(subjects.checkpoint(self.me.region, self.me.name), note)
            return
        subject = subjects.lineage(self.me.region, self.me.name)
        performer = self._performing()
        for data in await answers.announcement(performer.store, performer.recent, item.origin, item.first, item.size, note):
            if self.outbox is not None:
                self.outbox.put(subject, data)

    async def _publish(self, subject: str, data: bytes) -> None:
        if self.lanes is not None:
            try:
                await self.lanes.publish(subject, data)
            except MeshError:
                self.counters["unsent"] += 1

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self.alarm(error)
