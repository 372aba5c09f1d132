"""A mirror holds another member's log, and says so: witnessed when it only grew, attested when I would have written it.

Rules
-----
1. Records are staged as they come, in order, and examined at once; nothing unsigned is stored. Only a checkpoint signed by the
   log's own key, whose root the staged records lead to, moves them into storage: what an operator of the bus injects is
   thrown away there.
2. The checkpoint is cosigned as a witness because the tree was grown from the root cosigned before. It is attested only if
   every record is complete and right.
3. A wrong record is refused once, signed, and nothing of that log is attested from there on. A record that stays incomplete is
   refused once as missing, signed, and attested when it is complete after all. Either only once the log's own signature covers it:
   nobody else's words are held against an owner.
4. What is missing is pulled: from the owner first, then from the other members in turn; at most one pull per interval. Only what
   the log's own key has signed is known to be missing.
5. A checkpoint seen before is answered with the same lines again: times were persisted with the head.
6. Of a note only what was verified is kept: the log's own line, and the lines of a certificate if they make one. A line that
   somebody added or spoilt costs that line.
7. Another root at a size already cosigned is two histories: nothing more is cosigned for that log, the incident is recorded.
"""

from functools import partial
from typing import Final, Literal

import msgspec

from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import Checkpoint, attest_name, log_verifier, read_checkpoint, witness_name
from mesh.core.log.merkle import Frontier
from mesh.core.log.note import Note, open_note, parse_note
from mesh.core.log.record import AttestRefused, Incident, Refusal
from mesh.core.messages import LineageBatch
from mesh.core.run.params import Opening
from mesh.errors import Refused
from mesh.protocol import decide
from mesh.protocol.attester import Examined, Material, examine_records, storing
from mesh.protocol.documents import Documents
from mesh.protocol.lineage import Writer, note_of
from mesh.protocol.step import Ask, Effect, Head, NoteDraft, PutNote, Send, SetHead, SetMeta, Sign, Signed
from mesh.protocol.witness import grown

__all__ = ["Mirror", "MirrorContext", "conflict_key", "pull_due", "refused_key", "take_batch", "take_note"]

_PULL_MS: Final = 300
"""Between two pulls of one log: a round trip and the answer's examination."""
_STAGED_MAX: Final = 4_096
"""Records waiting for their checkpoint; beyond, they are pulled again later rather than held."""


class Mirror(msgspec.Struct, frozen=True):
    """What is held of one log."""

    origin: str
    frontier: Frontier
    """Of the records in storage."""
    last_ms: int
    staged: tuple[Examined, ...]
    witnessed: Head | None
    attested: Head | None
    note: bytes
    """The newest checkpoint with the log's signature whose records are not all here; empty if none."""
    wanted: int
    """The largest size the owner has signed, as far as seen."""
    certified: int
    asked_ms: int
    asked: int
    """How many pulls since the last progress: chooses whom to ask."""
    waiting_ms: int
    """Since when a record that its log has signed is incomplete; 0 if none is."""
    missing: int
    """Index of the record that was refused as missing; -1 if there is none."""
    refused: int
    """Index of the record that will not be attested; -1 if there is none."""
    conflicted: bool

    @property
    def held(self) -> int:
        """Records stored or staged."""
        return self.frontier.size + len(self.staged)


class MirrorContext(msgspec.Struct, frozen=True):
    """What a mirror's step works with besides its own state."""

    governance: Governance
    me: Member
    owner: Member
    writer: Writer
    documents: Documents
    engine: decide.Engine
    now_ms: int


def take_batch(state: Mirror, batch: LineageBatch, context: MirrorContext, *, pulled: bool) -> tuple[Mirror, list[Effect]]:
    """Stage the records of ``batch`` that come next, then see whether they complete a checkpoint.

    Raises:
        Refused: for records that are not records.
    """
    state = _stage(state, batch, context, pulled=pulled)
    if batch.checkpoint:
        return take_note(state, batch.checkpoint.encode(), context, answer=not pulled)
    return _accept(state, context)


def take_note(state: Mirror, note: bytes, context: MirrorContext, *, answer: bool) -> tuple[Mirror, list[Effect]]:
    """Consider a checkpoint or certificate of this log; ``answer`` whether one that I have cosigned is answered again.

    Raises:
        Refused: for a note that the log's key did not sign.
    """
    note, checkpoint = _believed(state, note, context)
    head = state.witnessed
    if head is not None and checkpoint.size == head.size:
        if checkpoint.root != head.root:
            return _conflict(state, checkpoint, context)
        state, effects = _certificate(state, note, checkpoint.size)
        return state, effects or (_lines(state, checkpoint, context) if answer else [])
    if checkpoint.size > state.frontier.size:
        # Aim at the nearest signed size: a long absence is caught up in pieces that can be staged.
        nearer = not state.note or checkpoint.size < read_checkpoint(state.note).size
        state = msgspec.structs.replace(state, note=note if nearer else state.note, wanted=max(state.wanted, checkpoint.size))
    return _accept(state, context)


def _believed(state: Mirror, note: bytes, context: MirrorContext) -> tuple[bytes, Checkpoint]:
    """Rule 6."""
    roster, log = context.governance.roster, log_verifier(state.origin, context.owner.log_key)
    opened = open_note(note, (log,))
    checkpoint = Checkpoint.from_text(opened.text)
    if checkpoint.origin != state.origin:
        raise Refused("bad_checkpoint", f"of {checkpoint.origin[:80]!r}, signed by {state.origin[:80]!r}")
    if opened.strangers >= roster.k and checkpoint.size > state.certified:
        try:
            verify_certificate(note, log=log, attesters=roster.attest_keys(), k=roster.k)
        except Refused:
            pass
        else:
            return note, checkpoint
    return Note(opened.text, tuple(signed.line for signed in opened.signed)).encode(), checkpoint


def pull_due(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Ask for what is missing (rule 4)."""
    incomplete = next((offset for offset, item in enumerate(state.staged) if item.incomplete), None)
    if incomplete is None and state.wanted <= state.held:
        return state, []
    if context.now_ms - state.asked_ms < _PULL_MS:
        return state, []
    if incomplete is not None:
        state = msgspec.structs.replace(state, staged=state.staged[:incomplete])
    members = [context.owner.name, *(item.name for item in context.governance.roster.members)]
    others = [name for name in dict.fromkeys(members) if name != context.me.name]
    target = others[(state.asked // 2) % len(others)]
    asked = msgspec.structs.replace(state, asked_ms=context.now_ms, asked=state.asked + 1)
    return asked, [Ask(target, state.origin, asked.held)]


def _stage(state: Mirror, batch: LineageBatch, context: MirrorContext, *, pulled: bool) -> Mirror:
    skip = state.held - batch.first
    leaves = [bytes(raw) for raw in batch.records[max(skip, 0) :]]
    if skip < 0 or not leaves or len(state.staged) + len(leaves) > _STAGED_MAX:
        return state  # a gap: once a checkpoint says that it is one, what is between is pulled
    bodies: dict[str, bytes] = {}
    for raw in batch.bodies:
        data = bytes(raw)
        bodies[_statement_id(data)] = data
    openings: dict[str, list[Opening]] = {item.intent: item.openings for item in batch.openings}
    last_ms = state.staged[-1].record.at_ms if state.staged else state.last_ms
    examined = examine_records(
        leaves,
        Material(bodies, openings),
        owner=context.owner,
        first=state.held,
        after_ms=last_ms,
        governance=context.governance,
        documents=context.documents,
        engine=context.engine,
        now_ms=context.now_ms,
    )
    progress = pulled and not any(item.incomplete for item in examined)
    return msgspec.structs.replace(state, staged=(*state.staged, *examined), asked=0 if progress else state.asked)


def _statement_id(data: bytes) -> str:
    # An unparsable body is under no id; the record that needed it is then incomplete.
    try:
        return envelope.identify(data)[1]
    except Refused:
        return ""


def _accept(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rules 1 and 2: move staged records into storage once a signed checkpoint covers them."""
    if not state.note or state.conflicted:
        return state, []
    checkpoint = read_checkpoint(state.note)
    if checkpoint.size <= state.frontier.size:
        return msgspec.structs.replace(state, note=b""), []
    count = checkpoint.size - state.frontier.size
    if len(state.staged) < count:
        return state, []
    records = state.staged[:count]
    frontier = state.frontier.extend(item.hash for item in records)
    if frontier.root() != checkpoint.root:
        # Whoever injected these, they are not what the log signed: fetch them again.
        return msgspec.structs.replace(state, staged=(), waiting_ms=0), []
    incomplete = next((offset for offset, item in enumerate(records) if item.incomplete), None)
    if incomplete is not None:
        return _wait(state, records[incomplete], state.frontier.size + incomplete, context)
    head = grown(state.witnessed, checkpoint, time_s=context.now_ms // 1000)
    effects: list[Effect] = [
        *storing(state.origin, state.frontier.size, records),
        PutNote("checkpoint", state.origin, head.size, state.note),
    ]
    effects.append(SetHead("witness", state.origin, head))
    first, note = state.frontier.size, state.note
    state = msgspec.structs.replace(
        state,
        frontier=frontier,
        last_ms=records[-1].record.at_ms,
        staged=state.staged[count:],
        witnessed=head,
        note=b"",
        asked=0,
        waiting_ms=0,
        missing=-1,
    )
    wrong = next((offset for offset, item in enumerate(records) if item.code), None)
    if wrong is not None and state.refused < 0:
        effects += [
            SetMeta(refused_key(state.origin), first + wrong),
            *_say_refused(state, records[wrong], first + wrong, "wrong", context),
        ]
        state = msgspec.structs.replace(state, refused=first + wrong)
    if state.refused < 0:
        state = msgspec.structs.replace(state, attested=head)
        effects.append(SetHead("attest", state.origin, head))
    state, certificate = _certificate(state, note, head.size)
    return state, [*effects, *certificate, *_lines(state, checkpoint, context)]


def _wait(state: Mirror, item: Examined, index: int, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """The log has signed a record that is not complete here: said once, when it has lasted too long (rule 3)."""
    state = msgspec.structs.replace(state, waiting_ms=state.waiting_ms or context.now_ms)
    lasted_ms = context.now_ms - state.waiting_ms
    if lasted_ms <= context.governance.roster.bounds.attest_stall_ms or state.missing == index or state.refused >= 0:
        return state, []
    return msgspec.structs.replace(state, missing=index), _say_refused(state, item, index, "missing", context)


def _lines(state: Mirror, checkpoint: Checkpoint, context: MirrorContext) -> list[Effect]:
    """My lines on a checkpoint that I have cosigned: the same bytes every time (rule 5)."""
    mesh, me = context.governance.roster.mesh, context.me
    text = checkpoint.to_text()
    drafts: list[NoteDraft] = []
    effects: list[Effect] = []
    for use, name, head in (
        ("witness", witness_name(mesh, me.name), state.witnessed),
        ("attest", attest_name(mesh, me.name), state.attested),
    ):
        if head is not None and (head.size, head.root) == (checkpoint.size, checkpoint.root):
            draft = NoteDraft(name, text, head.time_s)
            drafts.append(draft)
            effects.append(Sign("witness" if use == "witness" else "attest", draft))
    if not drafts:
        return []
    subject = subjects.cosig(context.owner.region, context.owner.name)
    return [*effects, Send(subject, partial(note_of, tuple(drafts)))]


def _certificate(state: Mirror, note: bytes, size: int) -> tuple[Mirror, list[Effect]]:
    """Keep the note, which is believed, as a certificate if it is a new one: with the log's line stand others then."""
    if size <= state.certified or len(parse_note(note).lines) == 1:
        return state, []
    return msgspec.structs.replace(state, certified=size), [PutNote("certificate", state.origin, size, note)]


def _say_refused(state: Mirror, item: Examined, index: int, reason: Literal["missing", "wrong"], context: MirrorContext) -> list[Effect]:
    """Rule 3: say no, signed, and record that I did."""
    writer = context.writer
    said = Refusal(
        mesh=writer.mesh,
        member=context.me.name,
        origin=state.origin,
        index=index,
        leaf=item.hash.hex(),
        reason=reason,
        code=item.code,
        at_ms=writer.at_ms,
    )
    refusal = envelope.draft(said)
    writer.append(AttestRefused(mesh=writer.mesh, origin=writer.origin, index=writer.index, at_ms=writer.at_ms, refusal=said))
    subject = subjects.fraud(context.me.region, context.me.name)
    return [Sign("decision", refusal), Send(subject, partial(_statement, refusal.id))]


def _statement(identity: str, signed: Signed) -> bytes:
    return signed.statements[identity]


def _conflict(state: Mirror, checkpoint: Checkpoint, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 7."""
    if state.conflicted:
        return state, []
    writer = context.writer
    writer.append(
        Incident(
            mesh=writer.mesh,
            origin=writer.origin,
            index=writer.index,
            at_ms=writer.at_ms,
            code="log_conflict",
            detail=f"{state.origin} signed another root at size {checkpoint.size}: {checkpoint.root.hex()}",
        )
    )
    return msgspec.structs.replace(state, conflicted=True), [SetMeta(conflict_key(state.origin), checkpoint.size)]


def refused_key(origin: str) -> str:
    """Under which storage keeps the index of the record that will not be attested."""
    return f"refused {origin}"


def conflict_key(origin: str) -> str:
    """Under which storage keeps the size at which a log showed two histories."""
    return f"conflict {origin}"
