"""How governance statements spread: offered or published, verified, kept, told; and pulled from whoever holds more.

Rules
-----
1. Nothing is kept, answered or handed on before it was verified, and nothing is advertised before it is durable.
2. What is new and was not heard on the published subject is published once by whoever takes it in. That is fast; it is not what
   is relied on: a heartbeat that is ahead of mine makes me ask its member for what I lack, so a bus that swallows one message,
   or all of a day, costs time only.
3. One question at a time to each member. What a member advertises and cannot serve costs only that member: it is asked ever
   more rarely, and those first who answered.
4. Each step that took something in is recorded, once the clock can be trusted; what was taken in denies at once.
5. Whoever takes in the second half of a conflict records an incident that names both halves, once for each time a stream forks and
   not for each statement of the fork: whoever has a stolen key must not fill logs with it. Likewise for each key that is caught.

Not here: what the statements mean (:mod:`mesh.core.law.governance`), which of them make a view fresh.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Final, cast

import msgspec

from mesh.core import subjects
from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation
from mesh.core.law.conflict import clash
from mesh.core.law.erase import Erase
from mesh.core.law.fold import extend, with_bundle
from mesh.core.law.governance import Governance
from mesh.core.law.halt import Halt
from mesh.core.law.heartbeat import ENDED, StreamHead
from mesh.core.law.policy import Bundle, Manifest, bundle_digest
from mesh.core.law.proof import Proof
from mesh.core.law.proofs import AnyProof, admit_proof
from mesh.core.law.resolve import Resolve
from mesh.core.law.retain import Retain
from mesh.core.law.revocation import Revocation
from mesh.core.law.roster import ROSTERS, Roster
from mesh.core.law.streams import Chain, Cursor, Fork, ahead
from mesh.core.law.travel import Said, cursor_of, is_known, link_of, read_law
from mesh.core.log.record import Change
from mesh.core.messages import LawBatch, Offer, Offered, unpack
from mesh.errors import Refused
from mesh.protocol.freshness import Freshness
from mesh.protocol.step import AskLaw, Effect, PutBundle, PutLaw, Reply, Send, SetMeta, Signed

__all__ = [
    "Asking",
    "Gossip",
    "Judged",
    "LawArrived",
    "OfferArrived",
    "OpeningsErased",
    "PolicyAdmitted",
    "PolicyRefused",
    "RecordsPruned",
    "Told",
    "ToldIncident",
    "pruned_fact",
    "pruned_key",
    "put",
    "rosters_first",
    "told",
    "wanted",
]


class ToldIncident(msgspec.Struct, frozen=True):
    """To be recorded as an incident: two things that cannot both be are held, or storage failed."""

    code: str
    detail: str
    """The stream, and the ids of both; of a member that is caught, the id of the proof; what was wrong with storage."""


Told = tuple[Change, str] | ToldIncident
"""What is to be recorded of what was taken in: the kind, and which."""

_Changing = Roster | Manifest | Activation | Halt | Revocation | Resolve | Erase | Retain
_CHANGES: Final[Mapping[type[_Changing], Change]] = {
    Roster: "roster",
    Manifest: "policy",
    Activation: "activation",
    Halt: "halt",
    Revocation: "revocation",
    Resolve: "resolve",
    Erase: "erase",
    Retain: "retain",
}
_PATIENCE_MS: Final = 400
"""How long one member has to answer before another is asked about the same stream."""
_WAIT_MS: Final = 500
"""How long a member is left alone after a question; twice as long after each that brought nothing."""
_WAIT_MS_MAX: Final = 8_000


class OfferArrived(msgspec.Struct, frozen=True):
    """Somebody offers statements and waits."""

    waiter: int
    data: bytes


class LawArrived(msgspec.Struct, frozen=True):
    """Statements that were published, or that I asked for."""

    data: bytes
    node: str = ""
    """Whom I asked; empty for what was published."""


class PolicyAdmitted(msgspec.Struct, frozen=True):
    """This node has checked a bundle under a manifest, and its engine can decide by it."""

    manifest: str
    """Statement id."""
    bundle: Bundle
    data: bytes
    """Its canonical bytes."""


class PolicyRefused(msgspec.Struct, frozen=True):
    """This node has checked a bundle under a manifest, and will not decide by it."""

    manifest: str
    code: str


class OpeningsErased(msgspec.Struct, frozen=True):
    """Nothing of what an erasure names is on this node's disk any more."""

    erase: str
    """Statement id."""


class RecordsPruned(msgspec.Struct, frozen=True):
    """Of the records of a log below a floor nothing but their hashes is on this node's disk any more."""

    retain: str
    """Id of the statement that raised the floor."""
    origin: str
    below: int

    @property
    def about(self) -> str:
        """What is recorded of it."""
        return f"{self.retain} {self.origin} {self.below}"


Judged = PolicyAdmitted | PolicyRefused | OpeningsErased | RecordsPruned
"""What this node has done by itself."""


def pruned_fact(about: str) -> SetMeta:
    """That it was recorded up to where a log was pruned."""
    _, origin, below = about.split(" ")
    return SetMeta(pruned_key(origin), int(below))


def pruned_key(origin: str) -> str:
    """Under which fact it is kept up to where it was recorded that a log was pruned."""
    return f"pruned {origin}"


class Asking(msgspec.Struct, frozen=True):
    """What one member was asked last."""

    asked_ms: int
    """0 once it has answered with something new."""
    stream: str
    after: Cursor
    fruitless: int
    """Questions in a row that brought nothing."""
    last_ms: int
    """When it was asked last, whatever it answered."""


class Gossip:
    """The working copy of one step."""

    def __init__(
        self, governance: Governance, asking: Mapping[str, Asking], untold: Sequence[Told], *, now_ms: int, news: bool = False
    ) -> None:
        """Begin with what is in force, whom was asked what, what was not recorded yet, and whether there was news already."""
        self.governance = governance
        self.asking = dict(asking)
        self.untold = list(untold)
        self.news = news
        """Whether something was taken in: a heartbeat should say so."""
        self.more = False
        """Whether an answer brought something, so that there may be more."""
        self._now_ms = now_ms

    def offered(self, event: OfferArrived) -> tuple[list[Effect], list[str]]:
        """Take what was offered and answer; the effects, and the codes of what was refused."""
        offer = unpack(Offer, event.data)
        statements, results = list[Statement[Said]](), dict[str, str]()
        for raw in offer.statements:
            try:
                statements.append(read_law(bytes(raw)))
            except Refused as refusal:
                results[_name_of(bytes(raw))] = refusal.code
        effects, refused = self._take(statements, tell=True)
        results |= {statement.id: refused.get(statement.id, "") for statement in statements}
        answer = canonical.encode(Offered(results=results))
        return [*effects, Send(Reply(event.waiter), partial(_constant, answer))], [code for code in results.values() if code]

    def arrived(self, event: LawArrived) -> tuple[list[Effect], list[str]]:
        """Take what was published or pulled; as :meth:`offered`."""
        batch = unpack(LawBatch, event.data)
        statements, codes = list[Statement[Said]](), list[str]()
        for raw in batch.statements:
            try:
                statements.append(read_law(bytes(raw)))
            except Refused as refusal:
                codes.append(refusal.code)
        held = self.governance
        effects, refused = self._take(statements, tell=bool(event.node))
        if event.node:
            believed = [item for item in statements if item.id not in refused]  # numbers that anybody can invent lead nowhere
            self._answered(event.node, believed, new=self.governance is not held)
        return effects, codes + list(refused.values())

    def judged(self, event: Judged) -> list[Effect]:
        """Take what this node has done by itself: a policy that it checked is kept, recorded and, if good, said in the next heartbeat."""
        if isinstance(event, OpeningsErased):
            self.untold.append(("erased", event.erase))
            return []
        if isinstance(event, RecordsPruned):
            self.untold.append(("pruned", event.about))
            return []
        if isinstance(event, PolicyRefused):
            self.untold.append(("policy", f"refused {event.manifest} {event.code}"))
            return []
        self.governance = with_bundle(self.governance, event.manifest, event.bundle)
        self.untold.append(("policy", f"admitted {event.manifest}"))
        self.news = True
        return [PutBundle(bundle_digest(event.data), event.data)]

    def caught(self, proofs: list[Statement[AnyProof]]) -> list[Effect]:
        """Take in, and out of the list, what this node has found itself; it is published like whatever is new here."""
        effects, _ = self._take(proofs, tell=True) if proofs else ([], {})
        proofs.clear()
        return effects

    def due(self, fresh: Freshness, *, me: str = "") -> list[AskLaw]:
        """The questions to ask now, by the newest heartbeat of each member but ``me``."""
        frontiers = {name: kept[-1].frontier for name, kept in fresh.heard.items() if kept and name != me}
        effects = list[AskLaw]()
        busy = {item.stream for item in self.asking.values() if item.asked_ms and self._now_ms - item.asked_ms < _PATIENCE_MS}
        for member, frontier in sorted(frontiers.items(), key=lambda item: self._order(item[0])):
            lacking = wanted(self.governance, frontier)
            former = self.asking.get(member)
            if not lacking:
                self._content(member)
                continue
            if former is not None and former.asked_ms and self._now_ms - former.asked_ms < _wait_ms(former):
                continue
            for stream in sorted(rosters_first(lacking), key=partial(_turn, former)):
                after = lacking[stream]
                if stream not in busy:
                    if former is not None and former.stream == stream:
                        after = max(after, former.after)  # a fork is pulled page by page
                    busy.add(stream)
                    self.asking[member] = Asking(self._now_ms, stream, after, self._fruitless(member) + 1, self._now_ms)
                    effects.append(AskLaw(member, stream, after))
                    break
        return effects

    def _content(self, member: str) -> None:
        """It claims nothing that I lack. That it owes an answer is remembered, or claiming now and then would look new each time."""
        former = self.asking.pop(member, None)
        if former is not None and former.asked_ms:
            self.asking[member] = msgspec.structs.replace(former, after=Cursor(0))

    def _order(self, member: str) -> tuple[int, int, str]:
        """Those first who answered, and among them who was not asked for longest: who always has one thing more keeps nobody out."""
        former = self.asking.get(member)
        return (former.fruitless, former.last_ms, member) if former is not None else (0, 0, member)

    def _fruitless(self, member: str) -> int:
        former = self.asking.get(member)
        return former.fruitless if former is not None else 0

    def _take(self, statements: Sequence[Statement[Said]], *, tell: bool) -> tuple[list[Effect], dict[str, str]]:
        before, taken = self.governance, extend(self.governance, statements)
        self.governance = taken.governance
        effects: list[Effect] = [put(statement) for statement in taken.new]
        by_stream = dict[str, list[Statement[Said]]]()
        for statement in taken.new:
            by_stream.setdefault(link_of(statement)[0], []).append(statement)
        for stream, items in by_stream.items():
            self.news = True
            self.untold.append(_told(stream, items, taken.governance))
            self.untold += _forked(stream, items, before, taken.governance)
            if tell:
                batch = canonical.encode(LawBatch(statements=[msgspec.Raw(item.envelope) for item in items]))
                effects.append(Send(subjects.law(subjects.short(stream)), partial(_constant, batch)))
        return effects, {identity: refusal.code for identity, refusal in taken.refused.items()}

    def _answered(self, member: str, statements: Sequence[Statement[Said]], *, new: bool) -> None:
        asking = self.asking.get(member)
        if asking is None:
            return
        places = [cursor_of(item) for item in statements if link_of(item)[0] == asking.stream]
        if new or (places and max(places) > asking.after):  # a page of a fork may hold nothing new, and the next one does
            self.asking[member] = Asking(0, asking.stream, max([asking.after, *places]), 0 if new else asking.fruitless, asking.last_ms)
            self.more = True
        else:
            self.asking[member] = msgspec.structs.replace(asking, after=Cursor(0))


def put(statement: Statement[Said]) -> PutLaw:
    """How a believed statement is kept."""
    stream, sequence, _ = statement.claims.link
    return PutLaw(stream, sequence, statement.id, statement.envelope)


def wanted(governance: Governance, frontier: Sequence[StreamHead]) -> dict[str, Cursor]:
    """Which streams to ask for whoever holds ``frontier``; one in which nobody whom a roster knows can speak is not asked for."""
    found = dict[str, Cursor]()
    for stream, after in ahead(governance.streams, frontier).items():
        if not is_known(stream, governance.rosters) or governance.whole.get(stream) is ENDED:
            continue
        lacking = governance.lacks(stream)  # what was handed over comes first: without it, what follows stands behind nothing
        found[lacking or stream] = _further(governance, lacking) if lacking else after
    return found


def _further(governance: Governance, stream: str) -> Cursor:
    """Where to go on in one that was handed over: behind what is held; in a fork, or in another history than that one, all over again."""
    held = governance.streams.get(stream, Chain())
    upto = next(reign.upto for reign in governance.reigns.values() if reign.former == stream and reign.stream not in governance.taken)
    return Cursor(len(held.ids) + 1) if isinstance(held, Chain) and len(held.ids) < upto.sequence else Cursor(0)


def rosters_first(streams: Iterable[str]) -> list[str]:
    """Who may say the rest is said by them."""
    return sorted(streams, key=lambda stream: (stream != ROSTERS, stream))


def _turn(former: Asking | None, stream: str) -> int:
    """What it is just serving comes first, what it did not answer last: a stream that it cannot serve hides none that it can."""
    if former is None or former.stream != stream:
        return 1
    return 2 if former.asked_ms else 0


def _wait_ms(asking: Asking) -> int:
    return min(_WAIT_MS << min(asking.fruitless - 1, 8), _WAIT_MS_MAX)


def told(statement: Statement[Said], governance: Governance) -> Told:
    """How one that was not heard but configured is recorded."""
    return _told(link_of(statement)[0], [statement], governance)


def _forked(stream: str, items: Sequence[Statement[Said]], before: Governance, after: Governance) -> list[ToldIncident]:
    """That these statements have forked the stream, or forked again what was resolved (rule 5)."""
    held = after.streams[stream]
    again = after.forked(stream) and not before.forked(stream)
    if not isinstance(held, Fork) or (isinstance(before.streams.get(stream), Fork) and not again):
        return []
    one, other = clash(held, {item.id for item in items})
    code = "policy_conflict" if isinstance(items[0].claims, Manifest | Activation) else "stream_forked"  # what is denied by from now on
    return [ToldIncident(code, f"{stream} {one} {other}")]


def _told(stream: str, items: Sequence[Statement[Said]], governance: Governance) -> Told:
    last = items[-1]
    if isinstance(last.claims, Proof):
        return ToldIncident("member_frozen", f"{last.id}: {admit_proof(cast('Statement[AnyProof]', last), governance.rosters)}")
    numbers = sorted(item.claims.sequence for item in items)
    which = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}..{numbers[-1]}"
    return _CHANGES[type(last.claims)], f"{'forked ' if governance.forked(stream) else ''}{stream} {which} {last.id}"


def _name_of(data: bytes) -> str:
    """What an unreadable statement is answered under."""
    try:
        return envelope.identify(data)[1]
    except Refused:
        return canonical.sha256_hex(data)


def _constant(data: bytes, _signed: Signed) -> bytes:
    return data
