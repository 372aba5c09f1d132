"""From a wish to a running execution and its recorded end: ask, verify, spend, look again, record the start, and only then run.

Rules
-----
1. The order of :meth:`Core.begin` is the promise: whoever gets a :class:`Work` holds an intent that is spent and whose start is
   durable. An error anywhere before means that nothing may run.
2. Every check that precedes a wait for a disk is repeated after it.
3. What was spent gets exactly one end, also when the asker gave up in between; a spend without an end is ``unknown`` in the next boot.
4. When the store fails, the outcome chain is broken or a watcher dies, nothing starts any more: a new boot is needed.
5. While work runs it is watched: what loses its right to go on is told to stop, and the reason stays with it.

Not here: programs' side of it (:mod:`mesh.gate.front`), policy, and what enforcers check (:mod:`mesh.protocol.enforcer`).
"""

import asyncio
import itertools
import logging
import secrets
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from mesh.adapters.bus import Bus
from mesh.adapters.clock import Clock, wall_ms
from mesh.adapters.signer import Signer
from mesh.adapters.spent import SpentStore
from mesh.core import subjects
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Params
from mesh.core.bytes.envelope import Draft, Statement
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Roster
from mesh.core.messages import Authorized, IntentRequest, pack
from mesh.core.run.authorization import Authorization, Possession
from mesh.core.run.identity import Identity
from mesh.core.run.intent import After, Assurance, Audience, EntityRef, Intent, Measurement
from mesh.core.run.kin import Parent
from mesh.core.run.outcome import Aborted, Blocked, Event, Unknown
from mesh.core.run.params import Opening, Value, commit, open_all
from mesh.errors import Alarm, MeshError, Refused, Unavailable
from mesh.gate.asking import Regions, ask
from mesh.gate.errors import Denied
from mesh.gate.hearing import Teller
from mesh.gate.outbox import Outbox
from mesh.gate.outlook import Outlook
from mesh.gate.sealing import Auditors, Sealed
from mesh.limits import INTENT_BYTES_MAX, INTENT_LIFE_MS_MAX, OUTBOX_OUTCOMES_MAX
from mesh.protocol.documents import Documents
from mesh.protocol.enforcer import Actual, Grant, Place, Presented, Running, admit, recheck, watch
from mesh.protocol.outcomechain import OutcomeChain, Subject

__all__ = ["Asked", "Core", "Settings", "Wish", "Work", "check_hidden"]

_INTENT_LIFE_MS: Final = INTENT_LIFE_MS_MAX // 2
_DEADLINE_MS: Final = 8_000
"""For asking all regions together."""

_log = logging.getLogger(__name__)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a core is made of."""

    governance: Governance
    region: str
    tenant: str
    place: Place
    signer: Signer
    """Keys for the uses ``enforcer`` and ``workload``."""
    identity: Statement[Identity]
    """The workload's document."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants to run."""

    domain: str
    action: str
    resource: EntityRef
    params: Params
    committed: Mapping[str, Value]
    """Parameters of which only a commitment is signed and recorded."""
    purpose: str
    assurance: Assurance
    sealed: Mapping[str, Value] = {}
    """Committed ones whose openings no governor sees: they go out encrypted, for the auditors whom policy names."""
    approvals: tuple[bytes, ...] = ()
    """Envelopes of approvals and break-glass grants that go with it."""
    within: Parent | None = None
    """The running execution that it is a part of."""
    countersign: Callable[[bytes], bytes] | None = None
    """Signs with the key of that one's holder, if that is at hand: asked when the holder is another."""
    after: tuple[Parent, ...] = ()
    """Finished executions whose results it uses."""
    measure: Callable[[], tuple[Measurement, ...]]
    """Measures what would run; asked when the intent is made and again when the authorization is there."""


def check_hidden(wish: Wish) -> None:
    """That every parameter is given in one way only: what is public too would be hidden from nobody.

    Raises:
        Refused: ``params_mismatch``.
    """
    ways = {"public": wish.params, "committed": wish.committed, "sealed": wish.sealed}
    for one, other in itertools.combinations(ways, 2):
        if both := sorted(ways[one].keys() & ways[other].keys()):
            raise Refused("params_mismatch", f"{both[0]} is {one} and {other}")


class Asked(msgspec.Struct, frozen=True):
    """An intent and its authorization, not yet judged."""

    intent: Draft
    envelope: bytes
    openings: tuple[Opening, ...]
    """Of all that is committed; of what is sealed they have not left this process."""
    answer: Authorized


class Work:
    """One running execution."""

    def __init__(self, about: Subject, running: Running, params: Params, papers: Parent, started_ms: int, stop: Callable[[], None]) -> None:
        self.about = about
        self.running = running
        self.params = params
        """All parameters, decoded from what was signed."""
        self.papers = papers
        """Its authorization, and what was last recorded of it: that it has started, or how it ended."""
        self.started_ms = started_ms
        self.refusal: Refused | None = None
        """Why it must end; set before ``stop`` is called, once."""
        self.stop = stop
        self.ended = False


class Core:
    """One boot of an enforcer together with the workload it guards. Lives on one event loop."""

    def __init__(self, settings: Settings, bus: Bus, store: SpentStore, clock: Clock, wall: Callable[[], int] = wall_ms) -> None:
        """Nothing happens before :meth:`open_`."""
        self._settings = settings
        self._bus = bus
        self._store = store
        self._clock = clock
        self._place = settings.place
        self._regions = Regions(lambda: self._roster, settings.region)
        self._documents = Documents()
        self._chain = OutcomeChain(place=settings.place)
        self._works: set[Work] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._broken: MeshError | None = None
        self.outlook = Outlook(settings.governance, clock, settings.place.boot, wall, learnt=self._learnt)
        self.outbox = Outbox(
            bus, store, settings.place, lambda: self.outlook.governance, Regions(lambda: self._roster, settings.region), clock
        )
        self._auditors = Auditors(bus, lambda: self.outlook.governance, settings.region, clock.now_ms)
        sign = partial(self._sign, "enforcer")
        self.teller = Teller(bus, settings.place, Regions(lambda: self._roster, settings.region), view=self.outlook.view, sign=sign)

    @property
    def _roster(self) -> Roster:
        """In force here now."""
        return self.outlook.governance.roster

    async def open_(self, *, wait_ms: int) -> None:
        """Hear the mesh, settle what earlier boots left, and wait up to ``wait_ms`` until k members have answered.

        Raises:
            MeshError: the store fails.
        """
        await self.outlook.follow(self._bus)
        self._spawn(self.outlook.ask_all(self._bus))
        await self._report_unknown()
        self._spawn(self.outbox.run())
        self._spawn(self._watch())
        self._spawn(self.teller.run())
        await self.outlook.wait_answered(wait_ms)

    async def close(self, *, wait_ms: int) -> None:
        """Give outcomes up to ``wait_ms`` to be taken in; those that are not stand in the store for the next boot."""
        self._broken = self._broken or Unavailable("draining", "the gate is closed")
        with suppress(MeshError):
            await self.outbox.wait_taken_in(wait_ms)
        self.outlook.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._bus.close()
        await self._store.close()

    # ------------------------------------------------------------------------------------------------------------- ask

    async def request(self, wish: Wish) -> Asked:
        """Ask for an authorization; nothing is spent.

        Raises:
            Denied: the answer is no, or there is none.
            MeshError: it cannot even be asked.
        """
        self._require()
        check_hidden(wish)
        openings = tuple(_opening(name, value) for name, value in sorted({**wish.committed, **wish.sealed}.items()))
        hidden = [opening for opening in openings if opening.name in wish.sealed]
        sealed = await self._auditors.seal(wish.domain, wish.action, hidden, holder=self._settings.identity.claims.key)
        draft, data = self._intent(wish, openings, sealed)
        request = IntentRequest(
            intent=msgspec.Raw(data),
            identity=msgspec.Raw(self._settings.identity.envelope),
            enforcer=msgspec.Raw(self._place.document.envelope),
            openings=[opening for opening in openings if opening.name not in wish.sealed],
            boxes=sealed.boxes,
            approvals=[msgspec.Raw(said) for said in wish.approvals],
            parents=self._parents(wish, draft),
        )
        answer = await ask(
            self._bus,
            pack(request),
            draft.id,
            regions=self._regions.every,
            tenant=self._settings.tenant,
            workload=subjects.short(self._settings.identity.claims.subject),
            roster=self._roster,
            deadline_ms=_DEADLINE_MS,
        )
        return Asked(draft, data, openings, answer)

    def _intent(self, wish: Wish, openings: tuple[Opening, ...], sealed: Sealed) -> tuple[Draft, bytes]:
        now_ms, document = self._clock.now_ms(), self._settings.identity
        draft = envelope.draft(
            Intent(
                mesh=self._roster.mesh,
                domain=wish.domain,
                subject=document.claims.subject,
                holder=document.claims.key,
                identity=document.id,
                action=wish.action,
                resource=wish.resource,
                params=wish.params,
                committed={opening.name: commit(opening) for opening in openings},
                sealed=sealed.seals,
                measurements=list(wish.measure()),
                purpose=wish.purpose,
                audience=Audience(enforcer=self._place.document.claims.key, boot=self._place.boot),
                assurance_min=wish.assurance,
                within=[wish.within.named[0]] if wish.within is not None else [],
                after=[After(authorization=name, outcome=outcome) for name, outcome in (item.named for item in wish.after)],
                nonce=secrets.token_hex(16),
                created_ms=now_ms,
                expires_ms=now_ms + _INTENT_LIFE_MS,
            )
        )
        return draft, self._sign("workload", draft)

    def _parents(self, wish: Wish, draft: Draft) -> list[Parent]:
        if wish.within is None:
            return list(wish.after)
        within = msgspec.structs.replace(wish.within, countersignature="")
        holder = envelope.read(Authorization, bytes(within.authorization)).claims.holder
        if wish.countersign is not None and holder != self._settings.identity.claims.key:
            within = msgspec.structs.replace(within, countersignature=wish.countersign(draft.message).hex())
        return [within, *wish.after]

    def countersign(self, message: bytes) -> bytes:
        """The workload's signature on somebody else's intent: it may run within what this one runs."""
        return self._settings.signer.sign("workload", message)

    # ----------------------------------------------------------------------------------------------------------- begin

    async def begin(self, wish: Wish, stop: Callable[[], None]) -> Work:
        """Everything up to the moment at which the body may be entered.

        Args:
            wish: what is to run.
            stop: called, at most once, when the running work must end.

        Raises:
            Denied: it may not run.
            MeshError: it may not run, because something failed before or while it was asked.
        """
        self._require()
        if await self._store.backlog() >= OUTBOX_OUTCOMES_MAX:
            raise Refused("outcome_backlog", f"{OUTBOX_OUTCOMES_MAX} outcomes wait")
        asked = await self.request(wish)
        start = self._spawn(self.present(wish, asked, stop))
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            self._spawn(self._abandon(start))  # rule 3
            raise

    async def present(self, wish: Wish, asked: Asked, stop: Callable[[], None]) -> Work:
        """Present an authorization: check everything, spend it, look again, record the start. What :meth:`begin` does after asking.

        Raises:
            Denied: it may not run.
        """
        about: Subject | None = None
        spent, started = False, b""
        try:
            authorization = envelope.read(Authorization, bytes(asked.answer.authorization))
            about = Subject(wish.domain, asked.intent.id, authorization.id)
            grant = self._admit(wish, asked)
            params = open_all(grant.intent.claims.params, grant.intent.claims.committed, asked.openings)
            spend = await self._spend(about, grant)
            spent = True
            grant = recheck(grant, place=self._place, view=self.outlook.view())
            started = await self._record(about, grant.started(spend), ends=False)
            grant = recheck(grant, place=self._place, view=self.outlook.view())
        except Refused as refusal:
            if about is not None:
                end = Aborted(code=refusal.code, duration_ms=0) if started else Blocked(code=refusal.code, detail=refusal.detail[:200])
                await self._record(about, end, ends=spent)
            raise Denied(refusal.code, refusal.detail, intent=asked.intent.id) from None
        papers = Parent(authorization=asked.answer.authorization, outcome=msgspec.Raw(started), countersignature="")
        work = Work(about, Running(grant), params, papers, self._clock.now_ms(), stop)
        self._works.add(work)
        return work

    def _admit(self, wish: Wish, asked: Asked) -> Grant:
        challenge = secrets.token_hex(32)
        own = self._place.document.claims.key
        possession = envelope.draft(Possession(mesh=self._roster.mesh, intent=asked.intent.id, enforcer=own, challenge=challenge))
        presented = Presented(
            authorization=bytes(asked.answer.authorization),
            frontier=tuple(asked.answer.frontier),
            intent=asked.envelope,
            identity=self._settings.identity.envelope,
            possession=self._sign("workload", possession),
            approvals=wish.approvals,
        )
        actual = Actual(
            domain=wish.domain,
            action=wish.action,
            resource=wish.resource,
            params=wish.params,
            openings=asked.openings,
            measurements=wish.measure(),
        )
        view = self.outlook.view()
        return admit(presented, actual, challenge=challenge, place=self._place, view=view, documents=self._documents)

    async def _spend(self, about: Subject, grant: Grant) -> int:
        try:
            return await self._store.spend(
                about.intent,
                boot=self._place.boot,
                domain=about.domain,
                authorization=about.authorization,
                at_ms=self._clock.now_ms(),
                approvals=grant.backing.uses,
            )
        except (Unavailable, Alarm) as error:
            raise self._break(error) from None

    async def _abandon(self, start: asyncio.Task[Work]) -> None:
        with suppress(MeshError):
            await self.end(await start, Aborted(code="cancelled", duration_ms=0))

    # ------------------------------------------------------------------------------------------------------------- end

    async def end(self, work: Work, event: Event) -> None:
        """Record how it ended; only the first end counts.

        Raises:
            MeshError: the end could not be made durable; the next boot will call it ``unknown``.
        """
        if not work.ended:
            work.ended = True
            self._works.discard(work)
            ended = await self._record(work.about, event, ends=True)
            work.papers = msgspec.structs.replace(work.papers, outcome=msgspec.Raw(ended))

    def duration_ms(self, work: Work) -> int:
        """How long it has been running."""
        return max(0, self._clock.now_ms() - work.started_ms)

    def look(self) -> None:
        """Look at what is running now, not only when the next look is due."""
        self._clock.wake()

    async def _record(self, about: Subject, event: Event, *, ends: bool) -> bytes:
        if self._broken is not None and self._broken.code != "draining":
            raise self._broken
        self._chain, draft = self._chain.next(about, event, at_ms=self._clock.now_ms())
        sequence = self._chain.sequence - 1
        data = self._sign("enforcer", draft)
        ends_ = about.intent if ends else None
        with self.outbox.coming():
            try:  # nothing is awaited between the number and the call: the store takes them in this order
                await self._store.enqueue(draft.id, boot=self._place.boot, sequence=sequence, envelope=data, ends=ends_)
            except MeshError as error:
                raise self._break(error) from None
        return data

    async def _report_unknown(self) -> None:
        for spent in await self._store.unfinished(self._place.boot):
            about = Subject(spent.domain, spent.intent, spent.authorization)
            chain, draft = self._chain.next(about, Unknown(boot=spent.boot), at_ms=self._clock.now_ms())
            try:
                await self._store.enqueue(
                    draft.id,
                    boot=self._place.boot,
                    sequence=self._chain.sequence,
                    envelope=self._sign("enforcer", draft),
                    ends=spent.intent,
                )
            except Refused:  # a sibling that starts now was faster
                continue
            self._chain = chain

    # ----------------------------------------------------------------------------------------------------------- watch

    def _learnt(self) -> None:
        """What governs has changed, and every check sees it from now on."""
        self._clock.wake()
        self.teller.learnt()

    async def _watch(self) -> None:
        while True:
            interval_ms = max(self._roster.bounds.heartbeat_ms // 2, 1)
            for work in list(self._works):
                self._look_at(work)
            await self._clock.sleep_until(self._clock.now_ms() + interval_ms)

    def _look_at(self, work: Work) -> None:
        if work.refusal is not None:
            return
        try:
            work.running = watch(work.running, place=self._place, view=self.outlook.view())
        except Refused as refusal:
            work.refusal = refusal
            work.stop()

    # ----------------------------------------------------------------------------------------------------------- parts

    def _require(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _break(self, error: MeshError) -> MeshError:
        if self._broken is None or self._broken.code == "draining":
            _log.error("nothing starts any more: %s", error)
            self._broken = error if isinstance(error, Unavailable) else Unavailable("storage_failed", str(error))
        return self._broken

    def _sign(self, use: str, draft: Draft) -> bytes:
        signer = self._settings.signer
        return envelope.assemble(draft.payload_type, draft.payload, {signer.public(use): signer.sign(use, draft.message)})

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, Denied):
            self._break(error if isinstance(error, MeshError) else Unavailable("unavailable", type(error).__name__))  # rule 4


def _opening(name: str, value: Value) -> Opening:
    # Encoded and read again: whoever still holds a list of it cannot change what was signed.
    opening = Opening(name=name, salt=secrets.token_hex(16), value=value)
    return canonical.decode(Opening, canonical.encode(opening), bytes_max=INTENT_BYTES_MAX)
