"""Who uses a mesh in a world: enforcers run the real procedure of :mod:`mesh.protocol.enforcer`, workloads ask and run, and misbehave.

An enforcer's spent set and unsent outcomes are on its disk; all else is lost when it stops. Workloads send the same intent to
several governors, present authorizations twice, elsewhere and late: none of it may make anything run twice.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Params
from mesh.core.law.fold import put_in_force
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import StreamHead
from mesh.core.messages import (
    Answer,
    Authorized,
    DeniedAnswer,
    HeardRequest,
    IntentRequest,
    LawAsked,
    OutcomeAnswer,
    OutcomeRequest,
    RefusedAnswer,
    Sync,
    SyncAnswer,
    pack,
    unpack,
)
from mesh.core.run.authorization import Authorization, Denial, Possession
from mesh.core.run.heard import Heard
from mesh.core.run.intent import Audience, EntityRef, Intent
from mesh.core.run.outcome import Aborted, Blocked, Event, Finished, Unknown
from mesh.core.run.params import Opening, commit
from mesh.errors import Refused
from mesh.protocol.adoption import check_view, go_over, next_roster
from mesh.protocol.documents import Documents
from mesh.protocol.enforcer import Actual, Grant, Place, Presented, Running, View, admit, check_receipt, recheck, take_heartbeat, watch
from mesh.protocol.freshness import Freshness, answered
from mesh.protocol.gossip import Asking, Gossip, LawArrived
from mesh.protocol.outcomechain import OutcomeChain, Subject
from mesh.testing.world import keys
from mesh.testing.world.around import Bus
from mesh.testing.world.clock import WorldClock
from mesh.testing.world.families import Kind
from mesh.testing.world.ground import Ground
from mesh.testing.world.message import Message
from mesh.testing.world.promises import Watch
from mesh.testing.world.setting import ACTION, DOMAIN, MESH, RESOURCE, Setting

__all__ = ["Enforcer", "Wish", "Workload"]

_SYNC_US: Final = 200_000
_REPORT_US: Final = 250_000
_REPORTED_MAX: Final = 20
_TELL_US: Final = 250_000
_ASK_US: Final = 500_000
_ASKS_MAX: Final = 4


class Enforcer:
    """One enforcer."""

    def __init__(
        self, name: str, setting: Setting, governance: Governance, *, ground: Ground, bus: Bus, watch: Watch, clock: WorldClock
    ) -> None:
        self.name = name
        self.setting = setting
        self.governance = self._files = governance
        self.clock = clock
        self.up = False
        self.boots = 0
        self.refusals: dict[str, int] = {}
        self.unsent: list[tuple[str, bytes]] = []
        """(statement id, envelope) of outcomes without a receipt: on disk."""
        self._spent: dict[str, int] = {}
        self._running: dict[str, Subject] = {}
        """Started and not ended, by intent: on disk, so that a crash is told."""
        self._ground, self._bus, self._watch = ground, bus, watch
        self._random = ground.random(name)
        self._documents = Documents()
        self.untold: tuple[str, bytes] | None = None
        """Id and envelope of the newest word on what was heard, until a governor has recorded it."""
        self._told: tuple[StreamHead, ...] = ()
        self._words = 0
        self._place = self._begin()
        self._chain = OutcomeChain(place=self._place)
        self._fresh = Freshness.begin(self._place.boot)
        self._asking: Mapping[str, Asking] = {}
        self._calls: dict[int, Callable[[bytes], None]] = {}
        self._next = 0

    @property
    def boot_nonce(self) -> str:
        """What intents for this boot must name."""
        return self._place.boot

    def _begin(self) -> Place:
        self.boots += 1
        boot = keys.nonce("enforcer", self.name, self.boots, self._ground.seed)
        return Place(document=self.setting.identities[self.name], boot=boot, obligations=frozenset())

    def boot(self) -> None:
        """Start from the files: what was running is unknown now, what was heard is heard again, and nothing is fresh."""
        if self.up:
            return
        former = self._place.boot
        self.up, self._place = True, self._begin()
        self._chain, self._fresh = OutcomeChain(place=self._place), Freshness.begin(self._place.boot)
        self.untold, self._told, self._words = None, (), 0
        self.governance, self._asking = self._files, {}
        self.clock.boot(0)
        self._watch.listens(self.name)
        for about in list(self._running.values()):
            self._say(about, Unknown(boot=former))
        self._running.clear()
        self._later(1_000, self._sync)
        self._later(_REPORT_US, self._report)
        self._later(_TELL_US, self._tell)

    def crash(self, down_us: int) -> None:
        """The host dies."""
        if self.up:
            self._ground.say(self.name, "crash")
            self.up = False
            self._calls.clear()
            self._ground.after(down_us, self.boot)

    def _later(self, delay_us: int, act: Callable[[], None]) -> None:
        boots = self.boots

        def run() -> None:
            if self.up and self.boots == boots:
                act()

        self._ground.after(delay_us, run)

    # --------------------------------------------------------------------------------------------------------- the view

    def take(self, message: Message) -> None:
        """A message arrives."""
        if not self.up:
            return
        if message.kind == "reply":
            done = self._calls.pop(message.call, None)
            if done is not None:
                self._watch.hears(self.name, message)
                done(message.data)
        elif message.kind == "hb":
            self._watch.hears(self.name, message)
            self._hear(message.data)
        elif message.kind == "law":
            self._law(message.data, "")

    def _law(self, data: bytes, node: str) -> None:
        """Take governance statements in, and ask for what is still lacking."""
        try:
            follower = self._follower()
            follower.arrived(LawArrived(data, node))
            self._adopt(follower)
        except Refused as refusal:
            self._refused(refusal)

    def _follower(self) -> Gossip:
        return Gossip(self.governance, self._asking, (), now_ms=self.clock.now_ms())

    def _adopt(self, follower: Gossip) -> None:
        for ask in follower.due(self._fresh):
            question = pack(LawAsked(stream=ask.stream, sequence=ask.after.sequence, id=ask.after.id))
            self._call(ask.member, "sync", question, partial(self._law, node=ask.member))
        self.governance, self._asking = follower.governance, follower.asking

    def _hear(self, data: bytes) -> None:
        try:
            self._fresh = take_heartbeat(self._fresh, data, self.governance.roster, now_ms=self.clock.now_ms())
            self._adopt(self._follower())
        except Refused as refusal:
            self._refused(refusal)
        self._go_over()

    def _go_over(self) -> None:
        """To the next roster, if it is time; who is new is asked for a heartbeat of now."""
        former, after = self.governance.roster, next_roster(self.governance, self._fresh, now_ms=self.clock.now_ms())
        if after is None:
            return
        self._watch.epochs.goes_over(self.name, after.epoch, self._watch.faulty(former))
        self._ground.say(self.name, "goes over", str(after.epoch))
        self.governance, self._fresh = put_in_force(self.governance, after.epoch), go_over(self._fresh, former, after)
        self._ask_all()
        self._sync()

    def _ask_all(self) -> None:
        for member in self.governance.roster.members:
            if member.name not in self._fresh.echoed:
                self._call(member.name, "sync", pack(Sync(nonce=self._fresh.boot)), self._synced)

    def _sync(self) -> None:
        if not answered(self._fresh, self.governance.roster, self.governance.frozen):
            self._ask_all()
        self._later(_SYNC_US, self._sync)

    def _synced(self, data: bytes) -> None:
        try:
            self._hear(bytes(unpack(SyncAnswer, data).heartbeat))
        except Refused as refusal:
            self._refused(refusal)

    def _call(self, target: str, kind: str, data: bytes, done: Callable[[bytes], None]) -> None:
        self._next += 1
        self._calls[self._next] = done
        self._bus.send(Message(self.name, target, kind, data, self._next))

    def _refused(self, refusal: Refused) -> None:
        self.refusals[refusal.code] = self.refusals.get(refusal.code, 0) + 1

    def _view(self) -> View:
        return View(governance=self.governance, fresh=self._fresh, now_ms=self.clock.now_ms(), wall_ms=self.clock.wall_ms())

    def _tell(self) -> None:
        """Say what is acted by now, if that has changed; what is newest again and again, until a governor has it."""
        self._later(_TELL_US, self._tell)
        self._go_over()
        self.speak()
        if self.untold is None:
            return
        identity, heard = self.untold
        request = HeardRequest(heard=msgspec.Raw(heard), identity=msgspec.Raw(self._place.document.envelope))
        self._call(self._random.choice(self.governance.roster.members).name, "outcome", pack(request), partial(self._recorded, identity))

    def speak(self) -> None:
        """Sign a word, if there is something to say; nothing before this boot was fresh."""
        view = self._view()
        frontier = view.governance.frontier
        if frontier == self._told or not (self._words or _is_fresh(view)):
            return
        self._words += 1
        said = Heard(
            mesh=MESH,
            enforcer=self._place.document.claims.key,
            identity=self._place.document.id,
            boot=self._place.boot,
            sequence=self._words,
            frontier=list(frontier),
            at_ms=view.now_ms,
        )
        draft = envelope.draft(said)
        self._told, self.untold = frontier, (draft.id, keys.signed(draft, self.name))
        self._watch.confirms(self.name, said)

    def _recorded(self, identity: str, data: bytes) -> None:
        try:
            (receipt,) = unpack(OutcomeAnswer, data).receipts
            self._watch.acknowledges(check_receipt(bytes(receipt), identity, self.governance))
        except (Refused, ValueError):
            return
        if self.untold is not None and self.untold[0] == identity:
            self.untold = None

    # --------------------------------------------------------------------------------------------------------- executing

    def challenge(self, intent: str) -> str:
        """What the presenter must sign."""
        return keys.nonce("challenge", self.name, intent, self._ground.now_us)

    def present(self, presented: Presented, actual: Actual, challenge: str) -> None:
        """Check, spend, check again, run."""
        if not self.up:
            return
        try:
            grant = admit(presented, actual, challenge=challenge, place=self._place, view=self._view(), documents=self._documents)
        except Refused as refusal:
            self._refused(refusal)
            self._ground.say(self.name, "refused", refusal.code)
            return
        intent = grant.authorization.claims.intent
        self._later(self._random.randrange(200, 4_000), lambda: self._spend(intent, grant))

    def _spend(self, intent: str, grant: Grant) -> None:
        if intent in self._spent:
            self._refused(Refused("used", intent))
            return
        self._spent[intent] = len(self._spent) + 1
        about = Subject(grant.authorization.claims.domain, intent, grant.authorization.id)
        try:
            grant = recheck(grant, place=self._place, view=self._view())
        except Refused as refusal:
            self._refused(refusal)
            self._say(about, Blocked(code=refusal.code, detail=""))
            return
        holders = self._watch.families.begins(self.name, grant)
        self._watch.starts(self.name, grant.authorization.claims, holders, self.governance, grant.heartbeats)
        self._ground.say(self.name, "starts", intent[:12])
        self._running[intent] = about
        self._say(about, grant.started(self._spent[intent]))
        ends_ms = self.clock.now_ms() + self._random.randrange(20, 1_500)
        self._later(100_000, lambda: self._look(about, Running(grant), ends_ms))

    def _look(self, about: Subject, running: Running, ends_ms: int) -> None:
        now_ms = self.clock.now_ms()
        try:
            running = watch(running, place=self._place, view=self._view())
        except Refused as refusal:
            self._refused(refusal)
            del self._running[about.intent]
            self._say(about, Aborted(code=refusal.code, duration_ms=0))
            return
        if now_ms >= ends_ms:
            del self._running[about.intent]
            self._say(about, Finished(status=0, outputs=[], duration_ms=0))
            return
        self._later(100_000, lambda: self._look(about, running, ends_ms))

    def _say(self, about: Subject, event: Event) -> None:
        self._chain, draft = self._chain.next(about, event, at_ms=self.clock.now_ms())
        self.unsent.append((draft.id, keys.signed(draft, self.name)))
        self._watch.families.said(about.authorization, event, self.unsent[-1][1])

    def _report(self) -> None:
        self._later(_REPORT_US, self._report)
        if not self.unsent:
            return
        batch = self.unsent[:_REPORTED_MAX]
        request = OutcomeRequest(identity=msgspec.Raw(self._place.document.envelope), outcomes=[msgspec.Raw(data) for _, data in batch])
        target = self._random.choice(self.governance.roster.members).name
        self._call(target, "outcome", pack(request), lambda data: self._reported([identity for identity, _ in batch], data))

    def _reported(self, ids: list[str], data: bytes) -> None:
        try:
            receipts = unpack(OutcomeAnswer, data).receipts
            for identity, receipt in zip(ids, receipts, strict=True):
                self._watch.acknowledges(check_receipt(bytes(receipt), identity, self.governance))
        except (Refused, ValueError):
            return
        self.unsent = [item for item in self.unsent if item[0] not in ids]


class Wish(msgspec.Struct, frozen=True):
    """One thing a workload wants."""

    enforcer: str
    allow: bool
    fail: bool
    memo: str
    twice: bool
    """It will try to run it twice, and elsewhere."""
    governors: tuple[str, ...]
    """Whom it asks, one after another until somebody answers."""
    kin: Kind = ""
    """Whether it shall run within another one, or use what one came to."""

    def only(self, governor: str) -> "Wish":
        """The same, asked of one governor alone."""
        return msgspec.structs.replace(self, governors=(governor,))


class Workload:
    """One workload."""

    def __init__(
        self, name: str, setting: Setting, enforcers: dict[str, Enforcer], *, ground: Ground, bus: Bus, watch: Watch, clock: WorldClock
    ) -> None:
        self.name = name
        self.setting = setting
        self.life_ms = 6_000  # of its intents
        self.answers: dict[str, int] = {}
        self.permitted: dict[str, str] = {}
        """Intent id to who authorized it."""
        self._enforcers, self._ground, self._bus, self._watch, self._clock = enforcers, ground, bus, watch, clock
        self._calls: dict[int, Callable[[bytes], None]] = {}
        self._next = 0

    def take(self, message: Message) -> None:
        """A message arrives."""
        done = self._calls.pop(message.call, None) if message.kind == "reply" else None
        if done is not None:
            done(message.data)

    def want(self, wish: Wish) -> str:
        """Sign an intent and ask for it; its id."""
        self._next += 1
        now_ms = self._clock.wall_ms()
        identity = self.setting.identities[self.name]
        params: Params = {"allow": wish.allow, "fail": True} if wish.fail else {"allow": wish.allow}
        openings = [Opening(name="memo", salt=keys.nonce("salt", self.name, self._next)[:32], value=wish.memo)] if wish.memo else []
        enforcer, kin = self._enforcers[wish.enforcer], self._watch.families.choose(wish.kin)
        draft = envelope.draft(
            Intent(
                mesh=MESH,
                domain=DOMAIN,
                subject=identity.claims.subject,
                holder=identity.claims.key,
                identity=identity.id,
                action=ACTION,
                resource=EntityRef(type=RESOURCE, id=f"thing-{self._next % 5}"),
                params=params,
                committed={opening.name: commit(opening) for opening in openings},
                sealed={},
                measurements=[],
                purpose="",
                audience=Audience(enforcer=keys.public(wish.enforcer), boot=enforcer.boot_nonce),
                assurance_min="local",
                within=kin.within,
                after=kin.after,
                nonce=keys.nonce("intent", self._ground.seed, self.name, self._next)[:32],
                created_ms=now_ms,
                expires_ms=now_ms + self.life_ms,
            )
        )
        intent = keys.signed(draft, self.name)
        request = IntentRequest(
            intent=msgspec.Raw(intent),
            identity=msgspec.Raw(identity.envelope),
            enforcer=msgspec.Raw(self.setting.identities[wish.enforcer].envelope),
            openings=openings,
            boxes=[],
            approvals=[],
            parents=kin.papers(draft, identity.claims.key),
        )
        actual = Actual(
            domain=DOMAIN, action=ACTION, resource=EntityRef(type=RESOURCE, id=f"thing-{self._next % 5}"), params=params,
            openings=tuple(openings), measurements=(),
        )  # fmt: skip
        self._ask(wish, draft.id, pack(request), intent, actual, 0)
        return draft.id

    def _ask(self, wish: Wish, intent_id: str, request: bytes, intent: bytes, actual: Actual, attempt: int) -> None:
        if attempt >= min(_ASKS_MAX, len(wish.governors)):
            return
        self._next += 1
        call, governor = self._next, wish.governors[attempt]
        self._calls[call] = lambda data: self._answered(wish, governor, intent_id, intent, actual, data)
        self._bus.send(Message(self.name, governor, "intent", request, call))

        def give_up() -> None:
            if self._calls.pop(call, None) is not None:
                self._ask(wish, intent_id, request, intent, actual, attempt + 1)

        self._ground.after(_ASK_US, give_up)

    def _answered(self, wish: Wish, governor: str, intent_id: str, intent: bytes, actual: Actual, data: bytes) -> None:
        try:
            match _answer(data):
                case Authorized() as answer:
                    self._count("authorized")
                    self.permitted[intent_id] = governor
                    self._run(wish, intent_id, intent, actual, answer)
                case DeniedAnswer(denial=denial):
                    statement = envelope.read(Denial, bytes(denial))
                    claims = statement.verify(self._watch.epochs.owner(statement.claims.record.origin).decision_key)
                    self._count(claims.code)
                    self._watch.acknowledges(claims.record)
                case RefusedAnswer() as refused:
                    self._count(refused.code)
        except Refused:
            self._count("unreadable")

    def _run(self, wish: Wish, intent_id: str, intent: bytes, actual: Actual, answer: Authorized) -> None:
        statement = envelope.read(Authorization, bytes(answer.authorization))
        statement.verify(self._watch.epochs.owner(statement.claims.origin).decision_key)
        self._watch.authorizes(statement)

        def present(name: str) -> None:
            enforcer = self._enforcers[name]
            challenge = enforcer.challenge(intent_id)
            possession = Possession(mesh=MESH, intent=intent_id, enforcer=keys.public(name), challenge=challenge)
            presented = Presented(
                authorization=bytes(answer.authorization),
                frontier=tuple(answer.frontier),
                intent=intent,
                identity=self.setting.identities[self.name].envelope,
                possession=keys.signed(envelope.draft(possession), self.name),
            )
            enforcer.present(presented, actual, challenge)

        present(wish.enforcer)
        if wish.twice:
            for name in self._enforcers:
                present(name)
            self._ground.after(700_000, lambda: present(wish.enforcer))

    def _count(self, what: str) -> None:
        self.answers[what] = self.answers.get(what, 0) + 1


def _is_fresh(view: View) -> bool:
    governance = view.governance
    try:
        check_view(governance, view.fresh, wall_ms=view.wall_ms, now_ms=view.now_ms)
    except Refused:
        return False
    return True


def _answer(data: bytes) -> Answer:
    return unpack(Answer, data)  # type: ignore[arg-type]  # a union is a type here
