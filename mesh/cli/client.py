"""What commands ask of the nodes of a mesh: every member, one bounded wait, and no answer is believed because it came.

Rules
-----
1. Whoever answers first does not win: searches ask all members and merge, proofs are asked for until one is final.
2. Finality, heartbeats and governance statements are checked here, with the keys of the rosters that are held: those of the context's
   files, and those that members show (:mod:`mesh.cli.succeeding`). What was final under one of them stays final.
3. A name is an id, a unique beginning of one, or ``NODE/INDEX`` (:mod:`mesh.cli.naming`).

Not here: how it is printed.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from mesh.cli import succeeding
from mesh.cli.naming import Naming
from mesh.cli.output import Cli
from mesh.codes import CODES
from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.activation import Activation
from mesh.core.law.former import final_under
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat
from mesh.core.law.roster import Member, Roster
from mesh.core.law.streams import Cursor
from mesh.core.law.travel import Said, read_law
from mesh.core.log.certificate import Attested
from mesh.core.log.checkpoint import log_verifier
from mesh.core.log.record import DecisionMade, Denied, OutcomeRecorded, Record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import (
    Find,
    Found,
    LawAsked,
    LawBatch,
    Leaves,
    LineageBatch,
    NodeStatus,
    Prove,
    Proved,
    Pull,
    RefusedAnswer,
    StatusAsked,
    Sync,
    SyncAnswer,
    unpack,
)
from mesh.errors import MeshError, Refused, Unavailable
from mesh.limits import BUNDLE_BYTES_MAX, ENVELOPE_BYTES_MAX
from mesh.protocol.proving import record_of

if TYPE_CHECKING:
    from mesh.adapters.bus import Bus
    from mesh.adapters.trustfiles import Trust

__all__ = [
    "Ask",
    "Library",
    "MeshClient",
    "Place",
    "answers_in",
    "client_of",
    "files",
    "intent_of",
    "learn",
    "library_of",
    "open_client",
    "run",
]

ASK_MS: Final = 2_000
_FIND_MAX: Final = 200
_ID: Final = re.compile(r"[0-9a-f]{1,64}")
_PRUNED: Final = "record_pruned"
_REFUSED: Final = b'{"answer":"refused",'
Ask = Callable[[str, Payload], Awaitable[bytes]]
R = TypeVar("R")
T = TypeVar("T", bound=Payload)


class Place(msgspec.Struct, frozen=True, order=True):
    """Where a record stands."""

    origin: str
    index: int


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to believe, and the policies to repeat decisions by: what the context's files say, and what was learnt since."""

    governance: Governance
    manifests: tuple[bytes, ...]
    bundles: tuple[bytes, ...]
    roster: bytes
    """Envelope of the first roster."""
    activations: tuple[bytes, ...] = ()
    rosters: tuple[bytes, ...] = ()
    """Envelopes of those after it, epoch after epoch."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """What a proof needs besides the roster that its reader trusts: nothing as long as there is one, else all of them."""
        return (self.roster, *self.rosters) if self.rosters else ()


class MeshClient:
    """Asks the members of a roster."""

    def __init__(self, ask: Ask, governance: Governance) -> None:
        """Ask by ``ask``: (member, message) to the answer's bytes, or :class:`~mesh.errors.Unavailable`."""
        self.roster = governance.roster
        self.rosters = governance.rosters
        self.naming = Naming(governance)
        self.pruned = dict[Place, str]()
        """Records that were asked for and of which whoever answers keeps the hash only, and what was said of it."""
        self._send = ask

    def under(self, governance: Governance) -> "MeshClient":
        """One that asks in the same way, the members that this says."""
        return MeshClient(self._send, governance)

    def member(self, name: str) -> Member:
        """The member of that name, also if it is none any more.

        Raises:
            Refused: ``unknown_member``.
        """
        return self._any(lambda roster: roster.member(name))

    def owner(self, origin: str) -> Member:
        """Whose log it is or was.

        Raises:
            Refused: ``unknown_member``.
        """
        return self._any(lambda roster: roster.owner(origin))

    def origins(self) -> dict[str, str]:
        """Every log of whoever is or was a member, to its node."""
        return self.naming.logs

    def _any(self, find: Callable[[Roster], R]) -> R:
        """As the roster in force has it, else as the newest of all."""
        try:
            return find(self.roster)
        except Refused:
            return self.rosters.judged(find, by=lambda roster: roster.members)

    async def ask(self, member: str, message: Payload, kind: type[T]) -> T:
        """One member's answer.

        Raises:
            Unavailable: ``unreachable``, or a code of the member's that says so.
            Refused: what the member refused, or the codec's codes.
        """
        data = await self._send(member, message)
        if data.startswith(_REFUSED):
            no = unpack(RefusedAnswer, data)
            code = no.code if no.code in CODES else "unavailable"
            raise Refused(code, f"{member}: {no.detail}")
        return unpack(kind, data)

    async def everyone(self, message: Payload, kind: type[T]) -> dict[str, T | MeshError]:
        """Every member's answer, or why there is none, in the roster's order."""
        return await self.each(lambda member: self.ask(member, message, kind))

    async def heartbeat(self, member: str) -> Heartbeat:
        """What the member signs now about what it holds.

        Raises:
            Refused: ``wrong_mesh``, ``bad_signature`` for one that it did not sign, or signed before it was asked; as :meth:`ask`.
            Unavailable: as :meth:`ask`.
        """
        nonce = secrets.token_hex(32)
        answer = await self.ask(member, Sync(nonce=nonce), SyncAnswer)
        statement = envelope.read(Heartbeat, bytes(answer.heartbeat))
        if statement.claims.mesh != self.roster.mesh:
            raise Refused("wrong_mesh", statement.claims.mesh)
        beat = statement.verify(self.roster.member(member).decision_key)
        if beat.member != member or nonce not in beat.echo:
            raise Refused("bad_signature", f"{member} answered with a heartbeat that it did not make now")
        return beat

    async def heartbeats(self) -> dict[str, Heartbeat | MeshError]:
        """What every member signs now, or why there is nothing to believe."""
        return await self.each(self.heartbeat)

    async def law(self, member: str, stream: str, after: Cursor) -> list[Statement[Said]]:
        """A page of a governance stream, as the member holds it. Nothing in it is believed. Raises as :meth:`ask`."""
        batch = await self.ask(member, LawAsked(stream=stream, sequence=after.sequence, id=after.id), LawBatch)
        return [read_law(bytes(raw)) for raw in batch.statements]

    async def status(self) -> dict[str, NodeStatus | MeshError]:
        """How every node says it is."""
        return await self.everyone(StatusAsked(), NodeStatus)

    async def answering(self) -> dict[str, NodeStatus]:
        """How every node that answers says it is.

        Raises:
            Unavailable: ``unreachable`` when no member does.
        """
        return answers_in(await self.status())

    async def find(self, prefix: str) -> dict[str, set[Place]]:
        """Ids that begin with ``prefix``, and the records about each, as far as any member knows.

        Raises:
            Unavailable: ``unreachable`` when no member answers.
        """
        found: dict[str, set[Place]] = {}
        for answer in answers_in(await self.everyone(Find(prefix=prefix, count=_FIND_MAX), Found)).values():
            for place in answer.records:
                if place.id.startswith(prefix):
                    found.setdefault(place.id, set()).add(Place(place.origin, place.index))
        return found

    async def locate(self, name: str) -> set[Place]:
        """The records that ``name`` means (rule 3).

        Raises:
            Refused: ``not_found``, ``ambiguous``, ``unknown_member``.
            Unavailable: ``unreachable``.
        """
        place = self.naming.find(name)
        if place is not None:
            return {Place(*place)}
        if _ID.fullmatch(name) is None:
            raise Refused("not_found", f"{name[:80]!r} is neither an id in lowercase hex nor NODE/INDEX")
        found = await self.find(name)
        if not found:
            raise Refused("not_found", name[:64])
        if len(found) > 1:
            raise Refused("ambiguous", f"{len(found)} ids begin with {name}: {', '.join(key[:16] for key in sorted(found)[:4])}, …")
        return next(iter(found.values()))

    async def prove(self, place: Place) -> Proved:
        """A record with its proof; of several answers the first one that is final, else the first.

        Raises:
            Refused: ``not_found``, or what else the members said.
            Unavailable: ``unreachable``.
        """
        owner, members = self.owner(place.origin).name, [member.name for member in self.roster.members]
        best: Proved | None = None
        failure: MeshError = Unavailable("unreachable", place.origin)
        for name in dict.fromkeys([*(name for name in members if name == owner), *members, owner]):  # who has left is asked last
            try:
                answer = await self.ask(name, Prove(origin=place.origin, index=place.index), Proved)
                record = record_of(answer)
            except MeshError as error:
                failure = failure if failure.code == _PRUNED else error
                continue
            if Place(record.origin, record.index) == place:
                best = best or answer
                if self.is_final(answer):
                    return answer
        if best is None:
            if failure.code == _PRUNED:
                self.pruned[place] = failure.detail
            raise failure
        return best

    def attested(self, answer: Proved) -> Attested:
        """Who made the record final (rule 2).

        Raises:
            Refused: ``not_final``, ``former_certificate`` and what else can be wrong with a proof.
        """
        if not answer.proof:
            raise Refused("not_final", "nobody holds a certificate over it yet")
        record, proof = record_of(answer), TlogProof.parse(answer.proof.encode())
        log = log_verifier(record.origin, self.owner(record.origin).log_key)
        leaf = bytes(answer.batch.records[0])
        since = record.roster_epoch if isinstance(record, DecisionMade) else 0
        rosters = [roster for roster in self.rosters.chain_with(self.roster) if roster.epoch >= since]
        if not rosters:
            raise Refused("not_final", f"the roster of epoch {since}, under which it was decided, is not known here")
        return final_under(rosters, lambda cosigners, k: proof.verify(leaf, log=log, cosigners=cosigners, k=k), trusted=self.roster.epoch)[
            0
        ]

    def is_final(self, answer: Proved) -> bool:
        """Whether k members attested the record, by proof."""
        try:
            self.attested(answer)
        except Refused:
            return False
        return True

    async def execution(self, name: str) -> list[Proved]:
        """Everything recorded about the execution that ``name`` belongs to, in all logs, oldest first; decisions before outcomes.

        Raises:
            Refused: as :meth:`locate` and :meth:`prove_all`.
            Unavailable: ``unreachable``.
        """
        places = await self.locate(name)
        first = await self.prove_all(places)
        intents = {intent_of(record_of(answer)) for answer in first} - {"", name}  # of an intent's own id all was found just now
        if not intents:
            return first
        for intent in intents:
            places |= (await self.find(intent)).get(intent, set())
        return await self.prove_all(places, first)

    async def records(self, member: str, origin: str, first: int, count: int) -> LineageBatch:
        """Records of a log as one member holds them. Raises as :meth:`ask`."""
        batch = await self.ask(member, Pull(origin=origin, first=first, count=count), LineageBatch)
        if batch.pruned:
            raise Refused("record_pruned", f"{origin} {first}: {member} has only its hash; `mesh lineage prune` says where archives are")
        return batch

    async def leaves(self, member: str, origin: str, first: int, count: int) -> LineageBatch:
        """The same records without what they name. Raises as :meth:`ask`."""
        return await self.ask(member, Leaves(origin=origin, first=first, count=count), LineageBatch)

    async def each(self, ask: Callable[[str], Awaitable[R]]) -> dict[str, R | MeshError]:
        """What every member comes to, asked so, or why there is nothing, in the roster's order."""

        async def one(member: str) -> R | MeshError:
            try:
                return await ask(member)
            except MeshError as error:
                return error

        names = [member.name for member in self.roster.members]
        return dict(zip(names, await asyncio.gather(*(one(name) for name in names)), strict=True))

    async def prove_all(self, places: Iterable[Place], had: Iterable[Proved] = ()) -> list[Proved]:
        """The records at these places, in the order of :meth:`execution`, without places that no member has a record of.

        Any one member could have made such a place up. What was ``had`` already is not asked for again.

        Raises:
            MeshError: as :meth:`prove`, if there is no record at any of them.
        """
        held = {Place(record.origin, record.index): answer for answer in had for record in [record_of(answer)]}
        wanted = [place for place in sorted(places) if place not in held]
        asked = await asyncio.gather(*(self.prove(place) for place in wanted), return_exceptions=True)
        answers = [*held.values(), *(answer for answer in asked if isinstance(answer, Proved))]
        for answer in asked:
            if isinstance(answer, BaseException) and not (answers and isinstance(answer, MeshError)):
                raise answer
        return sorted(answers, key=lambda answer: _when(record_of(answer)))


def answers_in(said: Mapping[str, R | MeshError]) -> dict[str, R]:
    """What those said who answered.

    Raises:
        Unavailable: ``unreachable`` when nobody did.
    """
    answers = {name: answer for name, answer in said.items() if not isinstance(answer, MeshError)}
    if not answers:
        raise Unavailable("unreachable", "no member of the roster answers")
    return answers


def intent_of(record: Record) -> str:
    """The id of the intent that a record is about; empty for records about something else."""
    return record.intent if isinstance(record, DecisionMade | Denied | OutcomeRecorded) else ""


def _when(record: Record) -> tuple[bool, int, str, int]:
    return isinstance(record, OutcomeRecorded), record.at_ms, record.origin, record.index


def run(cli: Cli, work: Callable[[MeshClient, Library], Awaitable[R]]) -> R:
    """What ``work`` answers, with a client of the mesh that ``cli`` names, which has asked members for newer rosters.

    Raises as :func:`open_client`.
    """
    from mesh.adapters.clock import wall_ms

    async def inner() -> R:
        async with open_client(cli.context) as (client, library):
            mesh, known = await learn(cli, client, library, now_ms=wall_ms())
            answer = await work(mesh, known)
            for place, said in sorted(mesh.pruned.items()):
                cli.say(f"{mesh.naming.place(place.origin, place.index)} is left out: {_PRUNED}: {said}")
            return answer

    return asyncio.run(inner())


async def learn(cli: Cli, mesh: MeshClient, library: Library, *, now_ms: int) -> tuple[MeshClient, Library]:
    """A client of the members in force now, and the library with all rosters that members show."""
    learnt = await succeeding.learn(mesh.law, library.governance, (library.roster, *library.rosters), now_ms=now_ms)
    if cli.verbose and not learnt.reached:
        cli.say(f"no member answers: rosters are those of the files, epoch {learnt.governance.roster.epoch} is in force")
    return mesh.under(learnt.governance), msgspec.structs.replace(library, governance=learnt.governance, rosters=learnt.rosters)


def files(cli: Cli) -> Library:
    """What the files of the context say; nobody is asked.

    Raises:
        Refused: what is wrong with them.
    """
    from mesh.gate.context import load_context

    context = load_context(cli.context)
    return library_of(context.trust, context.path("."))


@asynccontextmanager
async def open_client(name: str | None) -> AsyncIterator[tuple[MeshClient, Library]]:
    """A client of the mesh that the context ``name`` describes, and what the context's files say.

    Raises:
        Refused: ``config_invalid`` and whatever is wrong with the files.
        Unavailable: ``unreachable``.
    """
    from mesh.adapters.bus import Bus
    from mesh.adapters.bus_table import bus_options
    from mesh.gate.context import load_context

    context = load_context(name)
    library = library_of(context.trust, context.path("."))
    options = bus_options(context.auditor, name="auditor", base=context.path("."))
    async with await Bus.connect(options) as bus:
        yield client_of(bus, library), library


def client_of(bus: "Bus", library: Library) -> MeshClient:
    """A client that asks over a connection that is there."""
    from mesh.core import subjects
    from mesh.core.messages import pack

    async def ask(member: str, message: Payload) -> bytes:
        return (await bus.request(subjects.sync(member), pack(message), timeout_ms=ASK_MS)).data

    return MeshClient(ask, library.governance)


def library_of(trust: "Trust", base: Path) -> Library:
    """What these files say.

    Raises:
        Refused: what is wrong with them.
    """
    from mesh.adapters.trustfiles import load_trust, read_bounded

    said = [read_bounded(base / name, ENVELOPE_BYTES_MAX) for name in trust.statements]
    governance = load_trust(trust, base)
    by_id = {envelope.identify(data)[1]: data for data in said}
    return Library(
        governance=governance,
        manifests=tuple(read_bounded(base / name, ENVELOPE_BYTES_MAX) for name in trust.policy),
        bundles=tuple(read_bounded(base / name, BUNDLE_BYTES_MAX) for name in trust.bundles),
        roster=read_bounded(base / trust.roster, ENVELOPE_BYTES_MAX),
        activations=tuple(data for data in said if isinstance(read_law(data).claims, Activation)),
        rosters=tuple(by_id[identity] for identity in governance.rosters.ids[1:]),
    )
