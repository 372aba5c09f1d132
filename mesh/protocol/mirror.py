"""A mirror holds another member's log, and says so: witnessed when it only grew, attested when I would have written it.

Rules
-----
1. Records are staged as they come, in order, and examined at once; nothing unsigned is stored. Only a checkpoint signed by the
   log's own key, whose root the staged records lead to, moves them into storage: what an operator of the bus injects is
   thrown away there. What was asked for replaces what is staged.
2. The checkpoint is cosigned as a witness because the tree was grown from the root cosigned before. It is attested only if
   every record is complete and right.
3. A wrong record is refused once, signed, and nothing of that log is attested from there on. A record that stays incomplete is
   refused once as missing, signed, and attested when it is complete after all. Either only once the log's own signature covers it:
   nobody else's words are held against an owner.
4. What is missing is pulled: from the owner first, then from the other members in turn; at most one pull per interval. Only what
   the log's own key has signed is known to be missing. Once staged records led nowhere, all are taken from one member at a time,
   until a checkpoint is reached: whoever sends what the log never signed delays, and no more.
5. A checkpoint seen before is answered with the same lines again: times were persisted with the head.
6. Of a note only what was verified is kept: the log's own line, and the lines of a certificate if they make one. A line that
   somebody added or spoilt costs that line.
7. Two roots signed for one size, or a signed root that another contradicts, are two histories: nothing more is cosigned for that
   log, the incident is recorded with both.
8. A leaf that is no record at all is staged too. Once a signed root covers it, it is refused as wrong, and nothing of that log
   is stored from there on.
9. Where more was cosigned than is held, because storage was set back, records are taken in silence up to there, and must lead to
   the root that was cosigned.
10. An owner that has left is not asked, and told nothing: lines on its log are for all (:mod:`mesh.protocol.together`).
11. An owner whose own answers keep leading elsewhere than its signed roots is recorded as an incident, once; it proves nothing.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.law.governance import Governance
from mesh.core.law.roster import Member
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import Checkpoint, attest_name, log_verifier, read_checkpoint, witness_name
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Line, Note, open_note, parse_note
from mesh.core.log.record import read_record
from mesh.core.messages import LineageBatch
from mesh.core.run.params import Opening
from mesh.errors import Refused
from mesh.protocol import decide
from mesh.protocol.attester import Examined, Material, examine_records, storing
from mesh.protocol.documents import Documents
from mesh.protocol.gone import ERASED, Certified, certified, passes, reached
from mesh.protocol.lineage import Writer, note_of
from mesh.protocol.refusing import conflict_key, evidence, refused_key, say_refused
from mesh.protocol.step import Ask, Effect, Head, NoteDraft, PutNote, Send, SetHead, SetMeta, Sign
from mesh.protocol.witness import grown

__all__ = ["Mirror", "MirrorContext", "pull_due", "take_batch", "take_note"]

_PULL_MS: Final = 300
"""Between two pulls of one log: a round trip and the answer's examination."""
_STAGED_MAX: Final = 4_096
"""Records waiting for their checkpoint; beyond, they are pulled again later rather than held."""
_SIGNED_MAX: Final = 64
"""On either side of what is stored."""
_MOVED: Final = {"asked": 0, "waiting_ms": 0, "missing": -1, "alone": False, "astray": 0, "said": 0, "said_ms": 0}
"""What begins anew once something was stored."""
_ASTRAY_MIN: Final = 4
"""Answers of an owner that led nowhere before it is an incident: one may have been spoilt on its way."""


class Mirror(msgspec.Struct, frozen=True):
    """What is held of one log."""

    origin: str
    frontier: Frontier
    """Of the records in storage."""
    last_ms: int
    staged: tuple[Examined, ...]
    witnessed: Head | None
    attested: Head | None
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
    signed: Mapping[int, bytes] = {}
    """Size to the note with the log's signature: the last ones that were stored, the nearest ones that are not."""
    tail: tuple[bytes, ...] = ()
    """Leaf hashes after the staged records, from one on that is no record (rule 8)."""
    tail_code: str = ""
    """Why the first of them is none."""
    alone: bool = False
    """Whether staged records led nowhere since the last progress, so that one member at a time is believed."""
    astray: int = 0
    """How often since then the owner's own answers did; -1 once it was said."""
    astray_ms: int = 0
    """When first."""
    left: bool = False
    """Whether its owner is no member any more."""
    goal: int = 0
    """The largest size that is known to have been final, by whichever roster; ``certified`` is by the one in force."""
    room: int = 0
    """How many records beyond that are taken although the owner has left."""
    moved_ms: int = 0
    """When something was stored last; before that, when this node started."""
    certificate: bytes = b""
    """By the roster in force, at ``certified``; empty until there is one."""
    lines: Mapping[int, Mapping[str, Line]] = {}
    """Size to the lines of members that were heard on its checkpoint, by key name."""
    final: Mapping[int, Certified] = {}
    """Sizes beyond what is stored that are known to be final, by whichever roster; only looked at where openings were erased."""
    said: int = 0
    """How often my own line was said to all since then; ``said_ms`` when last."""
    said_ms: int = 0

    @property
    def held(self) -> int:
        """Records stored or staged."""
        return self.frontier.size + len(self.staged) + len(self.tail)

    @property
    def note(self) -> bytes:
        """The nearest signed checkpoint whose records are not all stored; empty if there is none."""
        return self.signed[min(beyond)] if (beyond := [size for size in self.signed if size > self.frontier.size]) else b""

    @property
    def frozen(self) -> bool:
        """Whether nothing more is stored of this log (rules 7 and 8)."""
        return self.conflicted or self.refused >= self.frontier.size


class MirrorContext(msgspec.Struct, frozen=True):
    """What a mirror's step works with besides its own state."""

    governance: Governance
    me: Member
    owner: Member
    writer: Writer
    documents: Documents
    engine: decide.Engine
    now_ms: int


def take_batch(state: Mirror, batch: LineageBatch, context: MirrorContext, *, helper: str) -> tuple[Mirror, list[Effect]]:
    """Stage the records of ``batch``, then see whether they complete a checkpoint.

    Args:
        state: the mirror.
        batch: of its log.
        context: what to judge by.
        helper: who was asked for them; empty for what the log's owner has published.

    Raises:
        Refused: for a checkpoint that the log's key did not sign.
    """
    state = _stage(state, batch, context, helper=helper)
    if batch.checkpoint:
        return take_note(state, batch.checkpoint.encode(), context, answer=not helper)
    return _accept(state, context)


def take_note(state: Mirror, note: bytes, context: MirrorContext, *, answer: bool) -> tuple[Mirror, list[Effect]]:
    """Consider a checkpoint or certificate of this log; ``answer`` whether one that I have cosigned is answered again.

    Raises:
        Refused: for a note that the log's key did not sign.
    """
    whole, (note, checkpoint) = note, _believed(state, note, context)
    if state.left and checkpoint.size > max(state.goal, state.certified) + state.room and len(parse_note(note).lines) == 1:
        return state, []  # its former owner goes on alone
    known = _root_at(state, checkpoint.size)
    if known not in {None, checkpoint.root}:
        return _two_roots(state, note, context)
    if state.witnessed is not None and checkpoint.size == state.witnessed.size <= state.frontier.size:
        state, effects = _certificate(state, note, checkpoint.size)
        return state, effects or (_lines(state, checkpoint, context) if answer else [])
    if checkpoint.size > state.frontier.size:
        final = certified(state.final, whole, checkpoint, context.governance, context.owner, stored=state.frontier.size)
        signed = _remember(state, note, checkpoint.size)
        state = msgspec.structs.replace(state, wanted=max(state.wanted, checkpoint.size), signed=signed, final=final)
    return _accept(state, context)


def _root_at(state: Mirror, size: int) -> bytes | None:
    """The root that the log's key is known to have signed for that size."""
    if state.witnessed is not None and state.witnessed.size == size:
        return state.witnessed.root
    return read_checkpoint(state.signed[size]).root if size in state.signed else None


def _remember(state: Mirror, note: bytes, size: int) -> dict[int, bytes]:
    """The signed notes with this one, the one with more lines if there are two."""
    notes = dict(state.signed)
    if size not in notes or len(parse_note(note).lines) > len(parse_note(notes[size]).lines):
        notes[size] = note
    sizes, stored = sorted(notes), state.frontier.size
    kept = [*[size for size in sizes if size <= stored][-_SIGNED_MAX:], *[size for size in sizes if size > stored][:_SIGNED_MAX]]
    return {size: notes[size] for size in kept}


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
    if state.frozen or (incomplete is None and state.wanted <= state.held):
        return state, []
    if context.now_ms - state.asked_ms < _PULL_MS:
        return state, []
    first = state.held
    if incomplete is not None and state.staged[incomplete].code == ERASED:
        # Its owner may still have the openings; if it is final, what shows that may stand far behind it.
        first = first if state.asked % 2 and first < state.wanted else state.frontier.size + incomplete
    elif incomplete is not None:
        state = msgspec.structs.replace(state, staged=state.staged[:incomplete], tail=())
        first = state.held
    if state.alone and state.asked % 2 == 0:
        state = msgspec.structs.replace(state, staged=(), tail=())
    asked = msgspec.structs.replace(state, asked_ms=context.now_ms, asked=state.asked + 1)
    return asked, [Ask(_asked_last(asked, context), state.origin, min(first, asked.held))]


def _asked_last(state: Mirror, context: MirrorContext) -> str:
    """Whom the newest pull was for: the count of pulls chooses, two for each."""
    members = [*([] if state.left else [context.owner.name]), *(item.name for item in context.governance.roster.members)]
    others = [name for name in dict.fromkeys(members) if name != context.me.name]
    return others[((state.asked - 1) // 2) % len(others)] if state.asked else ""


def _stage(state: Mirror, batch: LineageBatch, context: MirrorContext, *, helper: str) -> Mirror:
    have, place = state.held - state.frontier.size, batch.first - state.frontier.size
    start = min(max(place, 0), have) if helper else have
    leaves = [bytes(raw) for raw in batch.records[max(start - place, 0) :]][: _STAGED_MAX - start]
    if place > have or not leaves or state.frozen:
        return state  # a gap: once a checkpoint says that it is one, what is between is pulled
    asked = _asked_last(state, context)
    if state.alone and helper not in {"", context.owner.name, asked}:
        return state
    kept, unread = state.staged[:start], state.tail[: max(start - len(state.staged), 0)]
    if unread:
        grown_ = msgspec.structs.replace(state, tail=(*unread, *map(leaf_hash, leaves)))
    else:
        examined, code = _examine(leaves, batch, context, first=state.frontier.size + start, after_ms=_last_ms(state, kept))
        before = state.staged[start : start + len(examined)]
        tail = tuple(leaf_hash(leaf) for leaf in leaves[len(examined) :])
        if not tail and [item.hash for item in before] == [item.hash for item in examined]:
            # The same again: what was complete stays so, and what follows stays.
            better = (old if new.incomplete else new for old, new in zip(before, examined, strict=True))
            grown_ = msgspec.structs.replace(state, staged=(*kept, *better, *state.staged[start + len(examined) :]))
        else:
            grown_ = msgspec.structs.replace(state, staged=(*kept, *examined), tail=tail, tail_code=code)
    progress = helper == asked != "" and grown_.held > state.held and not any(item.incomplete for item in grown_.staged)
    # Who brings what is next is asked again.
    return msgspec.structs.replace(grown_, asked=state.asked - 1 + state.asked % 2) if progress else grown_


def _last_ms(state: Mirror, kept: tuple[Examined, ...]) -> int:
    return kept[-1].record.at_ms if kept else state.last_ms


def _examine(leaves: list[bytes], batch: LineageBatch, context: MirrorContext, *, first: int, after_ms: int) -> tuple[list[Examined], str]:
    """The leaves up to the first that is no record, and why it is none."""
    bodies = {_statement_id(bytes(raw)): bytes(raw) for raw in batch.bodies}
    openings: dict[str, list[Opening]] = {item.intent: item.openings for item in batch.openings}
    examine = partial(
        examine_records,
        material=Material(bodies, openings),
        owner=context.owner,
        first=first,
        after_ms=after_ms,
        governance=context.governance,
        documents=context.documents,
        engine=context.engine,
        now_ms=context.now_ms,
    )
    try:
        return examine(leaves), ""
    except Refused:
        count, code = _readable(leaves)
        return examine(leaves[:count]), code


def _readable(leaves: list[bytes]) -> tuple[int, str]:
    """How many come before the first that is no record, and why it is none."""
    for count, leaf in enumerate(leaves):
        try:
            read_record(leaf)
        except Refused as refusal:
            return count, refusal.code
    return len(leaves), ""


def _statement_id(data: bytes) -> str:
    # An unparsable body is under no id; the record that needed it is then incomplete.
    try:
        return envelope.identify(data)[1]
    except Refused:
        return ""


def _accept(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rules 1, 7 and 8: the nearest signed size that the staged records lead to."""
    if state.frozen:
        return state, []
    base, frontier, other = state.frontier.size, state.frontier, 0
    hashes = [*(item.hash for item in state.staged), *state.tail]
    for size in sorted(state.signed):
        if not base < size <= state.held:
            continue
        frontier = frontier.extend(hashes[frontier.size - base : size - base])
        if frontier.root() != read_checkpoint(state.signed[size]).root:
            other = other or size
        elif other:
            said = f"{evidence(state.signed[other])} and, of another history, {evidence(state.signed[size])}"
            return _conflict(state, other, said, context)
        elif size > base + len(state.staged):
            return _unreadable(state, context)
        else:
            return _take_in(state, frontier, context)
    return _astray(state, context) if other else (state, [])


def _take_in(state: Mirror, frontier: Frontier, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rules 1 and 2: these staged records are what the log has signed."""
    first, note = state.frontier.size, state.signed[frontier.size]
    checkpoint, records = read_checkpoint(note), state.staged[: frontier.size - first]
    reach = reached(state.final, state.frontier, state.staged, state.tail)
    waits = (item.incomplete and not passes(item, at, reach) for at, item in enumerate(records, first))
    incomplete = next((offset for offset, waiting in enumerate(waits) if waiting), None)
    if incomplete is not None:
        return _wait(state, records[incomplete], first + incomplete, context)
    if not _leads_through(state, records, frontier.size):
        return _conflict(state, frontier.size, f"{evidence(note)}, which does not continue what was cosigned before", context)
    silent = state.witnessed is not None and frontier.size < state.witnessed.size  # rule 9
    head = state.witnessed if silent else grown(state.witnessed, checkpoint, time_s=context.now_ms // 1000)
    effects: list[Effect] = [*storing(state.origin, first, records), PutNote("checkpoint", state.origin, frontier.size, note)]
    if not silent and head is not None:
        effects.append(SetHead("witness", state.origin, head))
    state = msgspec.structs.replace(
        state,
        frontier=frontier,
        last_ms=records[-1].record.at_ms,
        staged=state.staged[len(records) :],
        witnessed=head,
        moved_ms=context.now_ms,
        **_MOVED,
    )
    wrong = next((offset for offset, item in enumerate(records) if item.code and not item.incomplete), None)
    if wrong is not None and state.refused < 0:
        item = records[wrong]
        effects += [
            SetMeta(refused_key(state.origin), first + wrong),
            *say_refused(state.origin, item.hash, first + wrong, "wrong", item.code, me=context.me, writer=context.writer),
        ]
        state = msgspec.structs.replace(state, refused=first + wrong)
    if state.refused < 0 and not silent and head is not None:
        state = msgspec.structs.replace(state, attested=head)
        effects.append(SetHead("attest", state.origin, head))
    state, certificate = _certificate(state, note, checkpoint.size)
    effects += [*certificate, *_lines(state, checkpoint, context)]
    state, more = _accept(state, context)
    return state, [*effects, *more]


def _leads_through(state: Mirror, records: Sequence[Examined], size: int) -> bool:
    """Whether these records lead to the root that was cosigned among them, if one was (rule 9)."""
    first, head = state.frontier.size, state.witnessed
    if head is None or not first < head.size <= size:
        return True
    return state.frontier.extend([item.hash for item in records[: head.size - first]]).root() == head.root


def _astray(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """What is staged is not what the log signed, whoever sent it: fetch it again, from one member at a time (rules 4 and 11)."""
    reach = max(size for size in state.signed if size <= state.frontier.size + _STAGED_MAX)
    if state.alone and state.held < reach:
        return state, []  # a root that lies further on may show that the one before it is the lie
    if state.alone and state.astray >= 0 and _asked_last(state, context) == context.owner.name:
        count, since_ms = state.astray + 1, state.astray_ms if state.astray else context.now_ms
        if count >= _ASTRAY_MIN and context.now_ms - since_ms > context.governance.roster.bounds.attest_stall_ms:
            said = f"what {context.owner.name} answers does not lead to its signed root: {evidence(state.note)}"
            context.writer.alarm("bad_checkpoint", f"{state.origin}: {said}")
            count = -1
        state = msgspec.structs.replace(state, astray=count, astray_ms=since_ms)
    return msgspec.structs.replace(state, staged=(), tail=(), waiting_ms=0, alone=True, asked=state.asked + state.asked % 2), []


def _unreadable(state: Mirror, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 8."""
    index = state.frontier.size + len(state.staged)
    said = (
        say_refused(state.origin, state.tail[0], index, "wrong", state.tail_code, me=context.me, writer=context.writer)
        if state.refused < 0
        else []
    )
    state = msgspec.structs.replace(state, refused=index, staged=(), tail=())
    # Nothing before it is stored either: the frontier must be where a signed size is, and none lies between.
    return msgspec.structs.replace(state, waiting_ms=0), [SetMeta(refused_key(state.origin), index), *said]


def _wait(state: Mirror, item: Examined, index: int, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """The log has signed a record that is not complete here: said once, when it has lasted too long (rule 3)."""
    state = msgspec.structs.replace(state, waiting_ms=state.waiting_ms or context.now_ms)
    lasted_ms = context.now_ms - state.waiting_ms
    if lasted_ms <= context.governance.roster.bounds.attest_stall_ms or state.missing == index or state.refused >= 0:
        return state, []
    said = say_refused(state.origin, item.hash, index, "missing", item.code, me=context.me, writer=context.writer)
    return msgspec.structs.replace(state, missing=index), said


def _lines(state: Mirror, checkpoint: Checkpoint, context: MirrorContext) -> list[Effect]:
    """My lines on a checkpoint that I have cosigned: the same bytes every time (rule 5)."""
    if state.left:
        return []
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
    return msgspec.structs.replace(state, certified=size, certificate=note), [PutNote("certificate", state.origin, size, note)]


def _two_roots(state: Mirror, note: bytes, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 7, for one size."""
    size = read_checkpoint(note).size
    head = state.witnessed
    before = evidence(state.signed[size]) if size in state.signed else f"root {head.root.hex() if head is not None else ''}"
    return _conflict(state, size, f"{evidence(note)} and, of another history, {before}", context)


def _conflict(state: Mirror, size: int, said: str, context: MirrorContext) -> tuple[Mirror, list[Effect]]:
    """Rule 7."""
    if state.conflicted:
        return state, []
    context.writer.alarm("log_conflict", f"{state.origin} signed {said}")
    return msgspec.structs.replace(state, conflicted=True, staged=(), tail=()), [SetMeta(conflict_key(state.origin), size)]
