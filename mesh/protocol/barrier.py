"""A start that signs nothing until others have told what this node signed before: its storage may be older than its signatures.

Rules
-----
1. Every other member is asked, with the nonce of this boot, until it has answered, and again as long as it holds governance that
   is not held here: of a forked stream nobody can tell from an old answer whether that was part of what is held now. An answer
   counts once, if all that it says this node signed is shown with this node's own signatures; one that shows less is none.
2. The start is through when k-1 others have answered, and what k-1 of them hold of governance is held here too, as far as it
   can be pulled. Whoever else can answer is waited for, too, but for one heartbeat interval only: what only one member knows is
   worth hearing.
3. The incarnation is one more than the largest that is stored here or was shown.
4. If more was shown than is stored, a later incarnation among it, storage was set back. Then the own log is refilled from the
   other members' mirrors up to what its key has signed, and *every* other member must have answered: what was signed and reached
   few may be with any of them.
5. Of other logs it is remembered what was cosigned (:mod:`mesh.protocol.mirror` cosigns nothing more until it holds that again).
6. Two roots under one's own signature are an alarm: somebody else has these keys. So is a checkpoint that storage should know and
   does not: no other was ever made of fewer records than are held.
7. Where k-1 is 0 there is nobody to ask.
8. Each answer brings the newest certificate of every log that the answerer holds: what was final. Who starts must hold that much
   before its word counts (:mod:`mesh.protocol.together`). A certificate shows itself, so a liar can only leave one out, and of k-1
   others and this member one is honest who attested it: that is what a certificate must show to be taken
   (:mod:`mesh.core.law.former`, rule 2, or rule 1: one honest member who attested it is there), or what nobody has could keep every
   start waiting. Of each log one counts, whatever else an answer holds; where not all fit, each member shows others.

Not here: closing a log that nobody can refill, under new keys.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from mesh.core.bytes import canonical, envelope
from mesh.core.bytes.envelope import Draft
from mesh.core.law.barrier import Barrier, Mark, Shown, check_barrier, marks_of, merged, note_of
from mesh.core.law.former import final_under
from mesh.core.law.governance import Governance
from mesh.core.law.heartbeat import Heartbeat, StreamHead
from mesh.core.law.roster import Member, Roster
from mesh.core.log.certificate import verify_certificate
from mesh.core.log.checkpoint import log_verifier, read_checkpoint
from mesh.core.log.note import Note, parse_note
from mesh.core.log.record import DecisionMade, OutcomeRecorded, read_record
from mesh.core.messages import BarrierAnswer, BarrierAsked, LineageBatch, unpack
from mesh.core.run.intent import Intent
from mesh.core.run.outcome import Outcome
from mesh.errors import Alarm, Refused
from mesh.limits import AUDIT_LOGS_MAX, INT_MAX, MESSAGE_BYTES_MAX
from mesh.protocol import mirror
from mesh.protocol.gossip import wanted
from mesh.protocol.holding import Mirror, MirrorContext
from mesh.protocol.lineage import LogState
from mesh.protocol.step import (
    Append,
    AppendHashes,
    Effect,
    Head,
    HeadUse,
    InsertOnce,
    Locate,
    Persist,
    PutBody,
    PutNote,
    PutOpenings,
    SetHead,
    SetMeta,
)
from mesh.protocol.stored import INCARNATION, REFILLED, Stored, StoredLog, mirror_of

__all__ = [
    "Passed",
    "Pending",
    "answer_draft",
    "ask_records",
    "asks",
    "certificates_in",
    "check",
    "heard_notes",
    "passed",
    "pending",
    "refill",
    "take_answer",
]

_USES: Final[tuple[HeadUse, ...]] = ("log", "witness", "attest")
_CERTIFICATES_BYTES: Final = MESSAGE_BYTES_MAX // 2
"""Of an answer, before each newline takes two bytes in JSON; the rest is for the marks."""
_KEPT: Final = (Append, AppendHashes, PutBody, PutOpenings, Locate)


class Pending(msgspec.Struct, frozen=True):
    """A start that is not through yet."""

    nonce: str
    """Of this boot."""
    stored: Stored
    """What storage holds; the own log as far as it was refilled."""
    origin: str
    """Of the own log."""
    begun: int
    """Records of it that were held at the start."""
    since_ms: int
    answers: Mapping[str, Shown]
    """By member."""
    goals: Mapping[str, bytes] = {}
    """Origin to the largest certificate over more than storage holds of that log, that anybody has shown."""
    refilling: Mirror | None = None
    """The own log, as a mirror of the others' mirrors."""

    @property
    def own(self) -> StoredLog:
        """The own log."""
        return self.stored.own


class Passed(msgspec.Struct, frozen=True):
    """What a start goes on with."""

    incarnation: int
    own: StoredLog
    cosigned: Mapping[str, Head]
    """Other logs' origins to what was cosigned of them beyond what storage knew."""
    goals: Mapping[str, bytes]
    """As in :class:`Pending`: what it must hold before its word counts."""
    effects: tuple[Persist, ...]


def pending(roster: Roster, me: Member, stored: Stored, *, boot: str, now_ms: int) -> Pending | None:
    """The start of a boot; none if there is nobody to ask (rule 7).

    Raises:
        Alarm: ``storage_rolled_back`` when more was signed than is held, and nobody could have it.
    """
    if roster.k > 1:
        return Pending(boot, stored, roster.origin(me), stored.own.frontier.size, now_ms, {})
    head = stored.own.log
    if head is not None and head.size > stored.own.frontier.size:
        raise Alarm("storage_rolled_back", f"signed {head.size} records, {stored.own.frontier.size} are held")
    return None


def take_answer(state: Pending, data: bytes, roster: Roster, me: Member, rosters: Sequence[Roster] = ()) -> Pending:
    """The start after an answer (rules 1 and 8); ``rosters`` from the first to the one in force.

    Raises:
        Refused: for one that does not count, as :func:`mesh.core.law.barrier.check_barrier`.
        Alarm: ``storage_rolled_back`` (rule 6).
    """
    message = unpack(BarrierAnswer, data)
    answer = envelope.read(Barrier, bytes(message.barrier))
    heartbeat = envelope.read(Heartbeat, bytes(message.heartbeat[0])) if message.heartbeat else None
    shown = check_barrier(answer, heartbeat, roster, me, nonce=state.nonce)
    for mark in shown.marks:
        _compare(state, mark)
    before = state.answers.get(shown.member)
    if before is not None:  # what it holds has changed since; what it has shown stays shown
        shown = msgspec.structs.replace(
            shown, incarnation=max(before.incarnation, shown.incarnation), marks=tuple(merged([*before.marks, *shown.marks]))
        )
    goals = dict(state.goals)
    for note in _largest(message.certificates):
        with suppress(Refused):  # somebody's spoilt line, or one of whom nobody is left
            _take_goal(state, goals, note, rosters)
    return msgspec.structs.replace(state, answers={**state.answers, shown.member: shown}, goals=goals)


def _largest(certificates: Iterable[str]) -> list[bytes]:
    """Of each log the one over most: whoever sends more has its work, not we."""
    found = dict[str, tuple[int, bytes]]()
    for text in certificates:
        with suppress(Refused):
            note = text.encode()
            said = read_checkpoint(note)
            if said.size > found.get(said.origin, (0, b""))[0]:
                found[said.origin] = said.size, note
    return [note for _, note in found.values()]


def _take_goal(state: Pending, goals: dict[str, bytes], note: bytes, rosters: Sequence[Roster]) -> None:
    """Rule 8."""
    said = read_checkpoint(note)
    stored = state.stored.mirrors.get(said.origin)
    held = max(stored.certified if stored else 0, read_checkpoint(goals[said.origin]).size if said.origin in goals else 0)
    if stored is not None and stored.root(said.size) == said.root:
        return
    keys = {member.log_key for roster in rosters for member in roster.members if roster.origin(member) == said.origin}
    if said.origin == state.origin or said.size <= held or not keys:
        return
    log, trusted = log_verifier(said.origin, keys.pop()), rosters[-1].epoch  # a log has one key, in whichever roster
    final_under(
        rosters,
        lambda attesters, k: verify_certificate(note, log=log, attesters=attesters, k=k),
        trusted=trusted,
        enough=lambda numbers: numbers.held or numbers.believed,
    )
    goals[said.origin] = note


def asks(state: Pending, member: str, governance: Governance) -> bool:
    """Whether that member is to be asked (rule 1)."""
    shown = state.answers.get(member)
    return shown is None or bool(wanted(governance, shown.frontier))


def check(state: Pending, governance: Governance, *, now_ms: int) -> None:
    """That the start is through (rules 2 and 4).

    Raises:
        Refused: ``barrier_pending``, or ``storage_rolled_back`` while more is known to be signed than is held.
    """
    roster = governance.roster
    count, others = len(state.answers), len(roster.members) - 1
    if set_back(state):
        said = f"{count} of {others} other members have said what this node signed; all must"
        own, size = state.own.frontier.size, _signed_size(state)
        if own < size:
            raise Refused("storage_rolled_back", f"{own} of {size} records that it signed are here again; {said}")
        if count < others:
            raise Refused("storage_rolled_back", said)
    if count < roster.k - 1:
        raise Refused("barrier_pending", f"{count} of {roster.k - 1} other members have said what this node signed")
    if count < others and now_ms - state.since_ms < roster.bounds.heartbeat_ms:
        raise Refused("barrier_pending", f"{count} of {others} other members have said what this node signed")
    covered = sum(not wanted(governance, shown.frontier) for shown in state.answers.values())
    if covered < roster.k - 1:
        raise Refused("barrier_pending", f"it holds what {covered} members hold of governance, {roster.k - 1} are needed")


def set_back(state: Pending) -> bool:
    """Whether more was signed than storage knows of (rule 4)."""
    if any(shown.incarnation > state.stored.incarnation for shown in state.answers.values()):
        return True
    head = state.own.log
    if head is not None and head.size > state.own.frontier.size:
        return True
    return any(mark.size > _size(_head(state, mark)) for mark in _marks(state))


def ask_records(state: Pending, context: MirrorContext) -> tuple[Pending, list[Effect]]:
    """Ask for the records that this node has signed and does not hold."""
    target = _target(state)
    if target is None or target.size <= state.own.frontier.size:
        return state, []
    held = state.refilling
    if held is None:
        held = msgspec.structs.replace(mirror_of(target.origin, state.own), witnessed=None, attested=None, refused=-1)
    if target.size not in held.signed:
        signed = {**held.signed, target.size: note_of(target, context.governance.roster, context.me)}
        held = msgspec.structs.replace(held, signed=signed, wanted=max(held.wanted, target.size))
    held, effects = mirror.pull_due(held, context)
    return msgspec.structs.replace(state, refilling=held), effects


def refill(state: Pending, batch: LineageBatch, context: MirrorContext, *, helper: str) -> tuple[Pending, list[Effect]]:
    """Take records of the own log from ``helper``, as far as they lead to what this log's key has signed.

    Raises:
        Refused: for a checkpoint that this log's key did not sign.
        Alarm: ``storage_rolled_back`` if it has signed two histories.
    """
    if state.refilling is None:
        return state, []
    held, effects = mirror.take_batch(state.refilling, batch, context, helper=helper)
    if held.held > state.refilling.held:
        held = msgspec.structs.replace(held, asked_ms=0)  # who brings something is asked for more at once
    if held.conflicted:
        raise Alarm("storage_rolled_back", f"{state.origin} was signed elsewhere, in two histories")
    kept: list[Effect] = [
        effect for effect in effects if isinstance(effect, _KEPT) or (isinstance(effect, PutNote) and effect.space == "certificate")
    ]
    if held.frontier.size == state.own.frontier.size:
        return msgspec.structs.replace(state, refilling=held), kept
    own = msgspec.structs.replace(
        state.own, frontier=held.frontier, last_ms=held.last_ms, certified=max(state.own.certified, held.certified), marks=()
    )
    stored = msgspec.structs.replace(state.stored, own=own)
    # Not as a head: it is what was signed before that tells the next start, should this one be interrupted, that it was set back.
    kept += [*_used(kept), SetMeta(REFILLED, held.frontier.size)]
    return msgspec.structs.replace(state, refilling=held, stored=stored), kept


def passed(state: Pending) -> Passed:
    """What to go on with once :func:`check` holds (rules 3 and 5).

    Raises:
        Alarm: ``storage_rolled_back``.
    """
    incarnation = 1 + max([state.stored.incarnation, *(shown.incarnation for shown in state.answers.values())])
    if incarnation > INT_MAX:
        raise Alarm("storage_rolled_back", "there is no larger incarnation")
    effects: list[Persist] = [SetMeta(INCARNATION, incarnation)]
    own, origin = state.own, state.origin
    size, marks = _signed_size(state), [mark for mark in _marks(state) if mark.origin == origin]
    if state.refilling is not None or size > _size(own.log):
        time_s = max([_time_s(own.log), *(mark.time_s for mark in marks)]) or own.last_ms // 1000
        head = Head(own.frontier.size, own.frontier.root(), time_s)
        if any(mark.size > head.size or (mark.size == head.size and mark.root != head.root.hex()) for mark in marks):
            raise Alarm("storage_rolled_back", f"{origin} was signed elsewhere: what is held does not lead to it")
        own = msgspec.structs.replace(own, log=head, witness=head, attest=head)
        effects += [SetHead(use, origin, head) for use in _USES]
    cosigned: dict[str, Head] = {}
    for mark in _marks(state):
        known = cosigned.get(mark.origin) or _head(state, mark, "witness")
        if mark.origin != origin and mark.size > _size(known):
            time_s = max(mark.time_s, _time_s(known))
            cosigned[mark.origin] = Head(mark.size, bytes.fromhex(mark.root), time_s)
    effects += [SetHead("witness", name, head) for name, head in sorted(cosigned.items())]
    return Passed(incarnation, own, cosigned, state.goals, tuple(effects))


def answer_draft(
    roster: Roster, me: Member, asked: BarrierAsked, frontier: Sequence[StreamHead], *, notes: Iterable[bytes], heartbeat: bytes
) -> Draft:
    """The answer to another member's start, before its signature.

    Args:
        roster: in force.
        me: who answers.
        asked: the question.
        frontier: what I hold of governance.
        notes: every note known that may show what the asker signed. Lines that are not its own count for nothing.
        heartbeat: its heartbeat of the largest incarnation; empty if none was heard.

    Raises:
        Refused: ``unknown_member``.
    """
    asker = roster.member(asked.asker)
    marks: list[Mark] = []
    for note in notes:
        try:
            marks += marks_of(parse_note(note), roster, asker)
        except Refused:
            continue  # somebody's spoilt line
    return envelope.draft(
        Barrier(
            mesh=roster.mesh,
            member=me.name,
            asker=asker.name,
            nonce=asked.nonce,
            incarnation=envelope.read(Heartbeat, heartbeat).claims.incarnation if heartbeat else 0,
            marks=merged(marks),
            frontier=list(frontier),
        )
    )


def heard_notes(mirrors: Mapping[str, Mirror], log: LogState, origin: str) -> list[bytes]:
    """What was heard and may not be stored yet: the largest signed note of ``origin``, and what others cosigned of the own ``log``."""
    signed: Mapping[int, bytes] = mirrors[origin].signed if origin in mirrors else {}
    notes = [signed[max(signed)]] if signed else []
    cosigned = [part for part in (log.closed, log.outstanding) if part is not None and part.lines]
    return [*notes, *(Note(part.text, tuple(part.lines.values())).encode() for part in cosigned)]


def certificates_in(notes: Iterable[bytes], *, by: str, nonce: str) -> list[str]:
    """Those of them that fit into an answer of this member to this start: of many logs everybody shows others."""
    kept, size = list[str](), 0
    for note in sorted(notes, key=lambda note: canonical.sha256_hex(f"{by} {nonce} ".encode() + note)):
        size += len(note)
        if size > _CERTIFICATES_BYTES or len(kept) == AUDIT_LOGS_MAX:
            break
        kept.append(note.decode())
    return kept


def _marks(state: Pending) -> list[Mark]:
    return [mark for shown in state.answers.values() for mark in shown.marks]


def _head(state: Pending, mark: Mark, use: HeadUse | None = None) -> Head | None:
    """What storage knows of the same."""
    log = state.own if mark.origin == state.origin else state.stored.mirrors.get(mark.origin)
    return log.head(use or mark.use) if log is not None else None


def _size(head: Head | None) -> int:
    return head.size if head is not None else 0


def _time_s(head: Head | None) -> int:
    return head.time_s if head is not None else 0


def _target(state: Pending) -> Mark | None:
    """The largest checkpoint of the own log that was shown."""
    return max((mark for mark in _marks(state) if mark.use == "log"), key=lambda mark: mark.size, default=None)


def _signed_size(state: Pending) -> int:
    """How many records of the own log were signed, by whatever key of this node."""
    return max([_size(state.own.log), *(mark.size for mark in _marks(state) if mark.origin == state.origin)])


def _compare(state: Pending, mark: Mark) -> None:
    """Rule 6, as far as storage remembers the same size."""
    known: dict[int, bytes] = {}
    if mark.origin == state.origin:
        known = {part.size: part.root() for part in (*state.own.marks, state.own.frontier)}
    for use in _USES:
        head = _head(state, mark, use)
        if head is not None:
            known[head.size] = head.root
    root, signed = known.get(mark.size), max(_size(_head(state, mark, "log")), state.stored.refilled)
    unknown = root is None and mark.origin == state.origin and signed < mark.size < state.begun
    if mark.size and (unknown or root not in {None, bytes.fromhex(mark.root)}):
        raise Alarm("storage_rolled_back", f"{mark.origin} was signed elsewhere: size {mark.size}, root {mark.root}")


def _used(effects: Sequence[Effect]) -> list[Persist]:
    """The keys that these records of the own log have used up: nothing of it is decided or recorded again."""
    bodies = {effect.id: effect.envelope for effect in effects if isinstance(effect, PutBody)}
    found: list[Persist] = []
    for append in effects:
        if not isinstance(append, Append):
            continue
        for index, leaf in enumerate(append.leaves, append.first):
            record = read_record(leaf)
            if isinstance(record, DecisionMade) and record.authorization and record.intent in bodies:
                intent = envelope.read(Intent, bodies[record.intent])
                found.append(InsertOnce("intent", intent.id, intent.claims.created_ms, index))
            elif isinstance(record, OutcomeRecorded) and record.outcome in bodies:
                outcome = envelope.read(Outcome, bodies[record.outcome])
                found.append(InsertOnce("outcome", outcome.id, outcome.claims.at_ms, index))
    return found
