"""What the tests of the machines share: a lab's first governor, records as another member would write them, and how to tell a no."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.canonical import Payload
from mesh.core.bytes.envelope import Statement
from mesh.core.law.barrier import Barrier
from mesh.core.law.fold import admit_governance, restore
from mesh.core.law.governance import Governance
from mesh.core.law.halt import Halt
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.policy import Manifest
from mesh.core.law.revocation import Revocation, Target
from mesh.core.law.roster import Member, Roster
from mesh.core.law.travel import Said
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosignature_line, cosignature_message, log_line, read_checkpoint, witness_name
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Line, Note
from mesh.core.log.record import DecisionMade, Record, read_record
from mesh.core.messages import BarrierAnswer, BarrierAsked, LineageBatch, pack, unpack
from mesh.core.run.intent import Intent
from mesh.protocol.barrier import answer_draft
from mesh.protocol.begin import begin
from mesh.protocol.documents import Documents
from mesh.protocol.events import BarrierArrived, Event
from mesh.protocol.freshness import Freshness
from mesh.protocol.governor import Machine
from mesh.protocol.intake import Intake, IntentArrived
from mesh.protocol.lineage import LogState, Writer
from mesh.protocol.serving import body_ids, pull_answer, shown_paths
from mesh.protocol.state import Facts, GovernorState
from mesh.protocol.step import Append, Effect, PutBody, PutOpenings, Reply, Send, Sign, Signed, Step, phases
from mesh.protocol.stored import Stored
from tests.support.factory import DOMAIN, MESH, T0, Lab, secret, sign

__all__ = [
    "BOOT",
    "DOMAIN",
    "LAB",
    "ME",
    "MESH",
    "NOW",
    "OWNER",
    "T0",
    "Governor",
    "Owner",
    "ahead",
    "altered",
    "answers",
    "batch",
    "beat",
    "checkpoint",
    "empty_log",
    "halted",
    "intent_of",
    "line",
    "only",
    "perform",
    "revoking",
    "secret",
    "sign",
    "started",
    "told",
]

LAB: Final = Lab()
ME: Final[Member] = LAB.roster.member("eu-1")
OWNER: Final[Member] = LAB.roster.member("us-1")
NOW: Final = T0 + 60_000
BOOT: Final = "b0" * 32


def empty_log(origin: str) -> LogState:
    """A log that has nothing yet."""
    return LogState(
        origin=origin,
        frontier=Frontier.empty(),
        last_ms=0,
        announced=0,
        outstanding=None,
        certified=0,
        note=b"",
        tick_ms=0,
        signed_s=0,
        marks=(),
    )


def only(kind: type[Any], effects: Iterable[Effect]) -> list[Any]:
    """The effects of that kind."""
    return [effect for effect in effects if isinstance(effect, kind)]


def perform(effects: Sequence[Effect], member: Member = ME) -> Signed:
    """What the effects' signatures make."""
    kept: list[Signed] = []

    def look(signed: Signed) -> bytes:
        kept.append(signed)
        return b""

    uses = {use: LAB.keys[member.name][use] for use in ("log", "witness", "attest", "decision")}
    runner = phases(
        Step(None, (*only(Sign, effects), Send("x", look))),
        sign=lambda use, message: uses[use].sign(message),
        public={use: key.public for use, key in uses.items()},  # type: ignore[misc]  # the four uses
        failpoint=lambda _: None,
    )
    for _ in runner:
        pass
    return kept[0]


def answers(effects: Sequence[Effect], member: Member = ME) -> dict[int, bytes]:
    """Waiter to the bytes it is answered with."""
    signed = perform(effects, member)
    return {effect.to.waiter: effect.build(signed) for effect in only(Send, effects) if isinstance(effect.to, Reply)}


def altered(data: bytes, kind: type[Payload], *keys: Any, **changes: Any) -> bytes:
    """The statement in ``data`` with other claims, signed by ``keys``."""
    return sign(msgspec.structs.replace(envelope.read(kind, data).claims, **changes), *keys)


def intent_of(number: int = 0, **changes: Any) -> tuple[str, bytes]:
    """Id and envelope of an intent of the lab's agent with other claims."""
    data = altered(LAB.intent(number)[1], Intent, LAB.holder, **changes)
    return envelope.identify(data)[1], data


def revoking(
    *targets: tuple[str, str], manifest: Manifest | None = None, bundles: Iterable[bytes] | None = None, spares: Iterable[str] = ()
) -> Governance:
    """The lab's governance with these revoked, sparing these documents of an issuer, or with another manifest."""
    said = []
    previous = ""
    for sequence, (kind, value) in enumerate(targets, 1):
        claims = Revocation(
            mesh=MESH,
            revoker=LAB.revoker.public,
            sequence=sequence,
            previous=previous,
            since="",
            target=msgspec.convert({"type": kind, "value": value}, Target),
            spares=sorted(spares) if kind == "issuer" else [],
            reason="test",
            issued_ms=T0,
        )
        said.append(envelope.read(Revocation, sign(claims, LAB.revoker)))
        previous = said[-1].id
    data = LAB.manifest_envelope if manifest is None else sign(manifest, *LAB.signers[:2])
    return admit_governance(
        envelope.read(Roster, LAB.roster_envelope),
        pin=LAB.pin,
        manifests=[envelope.read(Manifest, data)],
        bundles=[LAB.bundle_bytes] if bundles is None else bundles,
        said=said,
    )


def halted(*, resumed: bool = False) -> Governance:
    """The lab's governance with its domain halted, or resumed again."""
    plain = Halt(mesh=MESH, domain=DOMAIN, sequence=1, previous="", since="", lifts=[], reason="test", issued_ms=T0)
    halt = envelope.read(Halt, sign(plain, LAB.revoker))
    resume = msgspec.structs.replace(plain, sequence=2, previous=halt.id, lifts=[halt.id])
    said = [halt, envelope.read(Halt, sign(resume, LAB.revoker))] if resumed else [halt]
    return restore(LAB.governance, said)


def line(member: Member, use: str, text: bytes, time_s: int = NOW // 1000) -> Line:
    """A member's line on a checkpoint."""
    key = secret(f"{member.region} {use}")
    if use == "log":
        return log_line(LAB.roster.origin(member), key.public, key.sign(text))
    name = (witness_name if use == "witness" else attest_name)(MESH, member.name)
    return cosignature_line(name, key.public, time_s, key.sign(cosignature_message(text, time_s)))


def checkpoint(leaves: Sequence[bytes], *members: Member, owner: Member = OWNER, use: str = "attest") -> bytes:
    """The owner's note over these records, with the lines of ``members``."""
    text = Checkpoint(LAB.roster.origin(owner), len(leaves), Frontier.empty().extend(map(leaf_hash, leaves)).root()).to_text()
    return Note(text, (line(owner, "log", text), *(line(member, use, text) for member in members))).encode()


def beat(member: str, sequence: int, signed_ms: int, /, *, incarnation: int = 1, echo: Sequence[str] = (), **changes: Any) -> bytes:
    """A member's heartbeat."""
    value = Heartbeat(
        mesh=MESH,
        member=member,
        incarnation=incarnation,
        sequence=sequence,
        signed_ms=signed_ms,
        roster_epoch=1,
        frontier=list(LAB.governance.frontier),
        policies=[],
        checkpoint="",
        behind=False,
        echo=list(echo),
    )
    return sign(msgspec.structs.replace(value, **changes), LAB.keys[member]["decision"])


def told(
    name: str,
    *notes: bytes,
    heartbeat: bytes = b"",
    nonce: str = BOOT,
    asker: str = ME.name,
    frontier: Sequence[StreamHead] | None = None,
    by: str = "",
    certificates: Sequence[str] = (),
    **changes: Any,
) -> bytes:
    """What a member answers to the start of ``asker``; ``by`` is who signs it, if not the member itself."""
    heads = LAB.governance.frontier if frontier is None else frontier
    asked = BarrierAsked(asker=asker, nonce=nonce)
    draft = answer_draft(LAB.roster, LAB.roster.member(name), asked, heads, notes=notes, heartbeat=heartbeat)
    claims = canonical.decode(Barrier, draft.payload, bytes_max=1 << 20)
    said = sign(msgspec.structs.replace(claims, **changes), LAB.keys[by or name]["decision"])
    return pack(
        BarrierAnswer(barrier=msgspec.Raw(said), heartbeat=[msgspec.Raw(heartbeat)] if heartbeat else [], certificates=list(certificates))
    )


def started(machine: Machine, stored: Stored, *, now_ms: int = NOW, given: Sequence[Statement[Said]] = ()) -> Step[GovernorState]:
    """A start that all others have answered, who know nothing of this node."""
    first = begin(machine, stored, boot=BOOT, now_ms=now_ms, given=given)
    events = [BarrierArrived(told(member.name)) for member in LAB.roster.members if member.name != ME.name]
    then = machine.step(first.state, events, now_ms=now_ms, wall_ms=now_ms, facts=Facts())
    return Step(then.state, (*first.effects, *then.effects))


class Owner:
    """Another governor that writes records as they should be, or as they should not."""

    def __init__(self, member: Member = OWNER, *, engine: Any = None) -> None:
        self.member = member
        self.origin = LAB.roster.origin(member)
        self.engine = engine or LAB.engine
        self.log = empty_log(self.origin)
        self.leaves: list[bytes] = []
        self.bodies: dict[str, bytes] = {}
        self.openings: dict[str, bytes] = {}

    def decide(self, *requests: bytes, at_ms: int = NOW, governance: Governance = LAB.governance) -> list[DecisionMade]:
        """Take these requests in, and keep everything."""
        writer = Writer(self.log, mesh=MESH, now_ms=at_ms)
        intake = Intake(governance=governance, me=self.member, writer=writer, documents=Documents(), engine=self.engine, known={})
        intake.take([IntentArrived(waiter, data) for waiter, data in enumerate(requests)], None)
        found = self.keep([*intake.effects, *self._finish(writer)])
        return [record for record in found if isinstance(record, DecisionMade)]

    def write(self, make: Callable[[Writer], Record], *, at_ms: int = NOW) -> None:
        """Append any record, however wrong."""
        writer = Writer(self.log, mesh=MESH, now_ms=at_ms)
        self.append(canonical.encode(make(writer)), at_ms=at_ms)

    def append(self, leaf: bytes, *, at_ms: int = NOW) -> None:
        """Append leaf data as it is."""
        self.leaves.append(leaf)
        self.log = msgspec.structs.replace(
            self.log, frontier=self.log.frontier.append(leaf_hash(leaf)), last_ms=max(at_ms, self.log.last_ms)
        )

    def _finish(self, writer: Writer) -> list[Effect]:
        self.log, effects = writer.finish(self.log)
        return effects

    def keep(self, effects: Sequence[Effect]) -> list[Record]:
        """Remember what the effects persist; the records among it."""
        found: list[Record] = []
        for effect in effects:
            if isinstance(effect, Append):
                self.leaves += effect.leaves
                found += [read_record(leaf) for leaf in effect.leaves]
            elif isinstance(effect, PutBody):
                self.bodies.setdefault(effect.id, effect.envelope)
            elif isinstance(effect, PutOpenings):
                self.openings.setdefault(effect.intent, effect.openings)
        return found

    def note(self, *members: Member, size: int | None = None) -> bytes:
        """The checkpoint over its first records, with attest lines of these members."""
        return checkpoint(self.leaves[:size], *members, owner=self.member)


def batch(owner: Owner, first: int = 0, count: int | None = None, note: bytes = b"", *, without: Sequence[str] = ()) -> LineageBatch:
    """What a pull of the owner's records brings, without the bodies of these ids."""
    leaves = owner.leaves[first : None if count is None else first + count]
    bodies = {
        key: owner.bodies[key] for leaf in leaves for key in body_ids(read_record(leaf)) if key in owner.bodies and key not in without
    }
    hashes, size = [leaf_hash(leaf) for leaf in owner.leaves], read_checkpoint(note).size if note else 0
    path, start = shown_paths(hashes, first, first + len(leaves), size)
    return unpack(LineageBatch, pull_answer(owner.origin, first, leaves, bodies, owner.openings, note, path=path, start=start))


class Governor:
    """The lab's first governor: the whole machine, its state kept as if every commit succeeded."""

    def __init__(self, governance: Governance = LAB.governance, *, now_ms: int = NOW) -> None:
        self.machine = Machine(governance, ME, LAB.engine)
        self.state = GovernorState(
            incarnation=1,
            sequence=0,
            governance=governance,
            asking={},
            untold=(),
            news=False,
            log=empty_log(LAB.roster.origin(ME)),
            mirrors={},
            fresh=Freshness.begin(BOOT),
            was_fresh=False,
            beat_ms=0,
            noise={},
            noise_ms=0,
        )
        self.now_ms = now_ms
        self.effects: tuple[Effect, ...] = ()

    def take(self, *events: Event, wall_ms: int | None = None, facts: Facts | None = None) -> list[Effect]:
        """Fold one batch."""
        step = self.machine.step(
            self.state, events, now_ms=self.now_ms, wall_ms=self.now_ms if wall_ms is None else wall_ms, facts=facts or Facts()
        )
        self.state, self.effects = step.state, step.effects
        return list(step.effects)

    def records(self) -> list[Record]:
        """Those of the last batch."""
        return [read_record(leaf) for append in only(Append, self.effects) for leaf in append.leaves]


def ahead(stream: str = "policy/payments", sequence: int = 9) -> list[StreamHead]:
    """A frontier of somebody who knows more."""
    mine = {head.stream: head for head in LAB.governance.frontier}
    mine[stream] = StreamHead(stream=stream, sequence=sequence, head="ab" * 32, forked=False, held="")
    return [mine[key] for key in sorted(mine)]
