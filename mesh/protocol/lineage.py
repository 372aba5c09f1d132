"""The node's own log: records in, checkpoints out, certificates back; one writer, nothing unsigned for long.

Rules
-----
1. Records of one batch are appended together; their times never decrease.
2. At most one checkpoint is outstanding, and at most one is made per certify tick, whatever the load: members attest those
   sizes only.
3. A checkpoint's size and root are persisted with the cosignature times of this node's own witness and attest keys before
   anything is signed.
4. Lines of members are kept only if they verify over exactly the outstanding text. k attest lines of distinct members, the
   owner's own included, make the certificate; the log's own line must be there too. Lines of members that are caught do not count.
5. Nobody but this node signs with its log key: a note that does, and is of records that are not here or of others, means that
   storage was set back or that somebody runs a copy.
6. What others have cosigned of this log is kept, beyond what makes a certificate: they may ask for it when they start again.
7. While a certificate is missing the same checkpoint is announced again; members answer with the same lines.

Not here: what a record may say (:mod:`mesh.core.log.record`), storage, other nodes' logs (:mod:`mesh.protocol.mirror`).
"""

from collections.abc import Container, Mapping
from functools import partial
from typing import Final

import msgspec

from mesh.core import subjects
from mesh.core.law.roster import Member, Roster
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosigner, log_verifier, open_checkpoint, witness_name
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Line, Note, Verifier, parse_note, verify_lines
from mesh.core.log.record import Incident, Record, encode_record
from mesh.core.run.authorization import RecordRef
from mesh.errors import Alarm
from mesh.protocol.step import Announce, Append, Effect, Head, HeadUse, NoteDraft, PutNote, Send, SetHead, Sign, Signed

__all__ = [
    "CHECKPOINT_RECORDS_MAX",
    "Entangled",
    "LogState",
    "Outstanding",
    "Writer",
    "as_is",
    "certify",
    "checkpoint_due",
    "member_verifiers",
    "note_of",
    "own_drafts",
    "recognize",
    "take_lines",
]

CHECKPOINT_RECORDS_MAX: Final = 2_048
"""New records one checkpoint covers."""
_REPEAT_MS: Final = 1_000
"""A checkpoint without certificate is announced again after this long: members may have been away."""
_HEADS_MAX: Final = 64


class Outstanding(msgspec.Struct, frozen=True):
    """A checkpoint that is being certified."""

    head: Head
    text: bytes
    lines: Mapping[str, Line]
    """Key name to verified line: the log's, witnesses', attesters'."""
    sent_ms: int


class Entangled(msgspec.Struct, frozen=True):
    """What this log has said of others (:mod:`mesh.protocol.entangling`)."""

    at_ms: int
    """When last; before the first time, when this node started."""
    size: int = 0
    """Of this log, just behind the record in which it did."""
    sizes: Mapping[str, int] = {}
    """Origin to the largest size that was named."""


class LogState(msgspec.Struct, frozen=True):
    """What the owner remembers of its log."""

    origin: str
    frontier: Frontier
    last_ms: int
    """Time of the last record."""
    announced: int
    """Records published so far."""
    outstanding: Outstanding | None
    certified: int
    """Size of the newest certificate."""
    note: bytes
    """The newest published checkpoint with the log's signature; empty before the first."""
    tick_ms: int
    """When the last checkpoint was made."""
    signed_s: int
    """The time under which it was signed, in s; the next is not signed under an earlier one, whatever the clock says by then."""
    marks: tuple[Frontier, ...]
    """Frontiers at the multiples of :data:`CHECKPOINT_RECORDS_MAX` since the last certificate: a checkpoint never covers more
    new records than a peer can stage, however long nobody was there to attest."""
    heads: tuple[Head, ...] = ()
    """The last ones that were signed."""
    closed: Outstanding | None = None
    """The last checkpoint that became a certificate, for lines that still come (rule 6)."""
    entangled: Entangled = Entangled(0)


class Writer:
    """The working copy of the log within one step."""

    def __init__(self, state: LogState, *, mesh: str, now_ms: int) -> None:
        """Start from ``state``; every record of the step gets the time ``at_ms``."""
        self.mesh = mesh
        self.origin = state.origin
        self.at_ms = max(now_ms, state.last_ms)
        self._first = state.frontier.size
        self._leaves: list[bytes] = []
        self._hashes: list[bytes] = []

    @property
    def index(self) -> int:
        """Index of the next record."""
        return self._first + len(self._leaves)

    def append(self, record: Record) -> RecordRef:
        """Add a record that was made with this writer's origin, index and at_ms."""
        if record.index != self.index or record.origin != self.origin or record.at_ms != self.at_ms:
            msg = "record made for another place"
            raise AssertionError(msg)
        data = encode_record(record)
        digest = leaf_hash(data)
        ref = RecordRef(origin=self.origin, index=self.index, leaf=digest.hex())
        self._leaves.append(data)
        self._hashes.append(digest)
        return ref

    def alarm(self, code: str, detail: str) -> None:
        """Record that something was seen which must not happen; every auditor makes a finding of it."""
        self.append(Incident(mesh=self.mesh, origin=self.origin, index=self.index, at_ms=self.at_ms, code=code, detail=detail))

    def finish(self, state: LogState) -> tuple[LogState, list[Effect]]:
        """The log after the step, and the append, if there is any."""
        if not self._leaves:
            return state, []
        frontier, marks, left = state.frontier, list(state.marks), self._hashes
        while left:
            room = CHECKPOINT_RECORDS_MAX - frontier.size % CHECKPOINT_RECORDS_MAX
            frontier, left = frontier.extend(left[:room]), left[room:]
            if frontier.size % CHECKPOINT_RECORDS_MAX == 0:
                marks.append(frontier)
        grown = msgspec.structs.replace(state, frontier=frontier, last_ms=self.at_ms, marks=tuple(marks))
        return grown, [Append(self.origin, self._first, tuple(self._leaves), tuple(self._hashes))]


def checkpoint_due(state: LogState, roster: Roster, me: Member, *, now_ms: int) -> tuple[LogState, list[Effect]]:
    """Make a new checkpoint if one is due, or announce the outstanding one again (rules 2, 3, 7)."""
    pending = state.outstanding
    if pending is not None:
        if now_ms - pending.sent_ms < _REPEAT_MS:
            return state, []
        again = msgspec.structs.replace(pending, sent_ms=now_ms)
        first = min(state.announced, pending.head.size)
        grown = msgspec.structs.replace(state, outstanding=again, announced=pending.head.size)
        return grown, _announce(state, roster, me, pending.head, first=first)
    if state.frontier.size <= state.certified or now_ms - state.tick_ms < roster.bounds.certify_ms:
        return state, []
    marks = tuple(mark for mark in state.marks if mark.size > state.certified)
    frontier = marks[0] if marks else state.frontier
    head = Head(frontier.size, frontier.root(), max(now_ms // 1000, state.signed_s))
    text = Checkpoint(state.origin, head.size, head.root).to_text()
    uses: tuple[HeadUse, ...] = ("log", "witness", "attest")
    effects: list[Effect] = [SetHead(use, state.origin, head) for use in uses]
    effects += _announce(state, roster, me, head, first=state.announced)
    grown = msgspec.structs.replace(
        state,
        outstanding=Outstanding(head, text, {}, now_ms),
        announced=head.size,
        tick_ms=now_ms,
        marks=marks,
        signed_s=head.time_s,
        heads=(*state.heads, head)[-_HEADS_MAX:],
    )
    return grown, effects


def recognize(state: LogState, me: Member, note: bytes) -> None:
    """Compare a note about this log that came from outside with what this node has signed (rule 5).

    Raises:
        Refused: for a note that the log's key did not sign.
        Alarm: ``storage_rolled_back``.
    """
    checkpoint = open_checkpoint(note, log_verifier(state.origin, me.log_key)).checkpoint
    size, roots = checkpoint.size, {state.frontier.size: state.frontier.root(), **{head.size: head.root for head in state.heads}}
    if size > state.frontier.size or roots.get(size, checkpoint.root) != checkpoint.root:
        raise Alarm("storage_rolled_back", f"{state.origin} was signed elsewhere: size {size}, root {checkpoint.root.hex()}")


def own_drafts(roster: Roster, me: Member, head: Head) -> tuple[NoteDraft, NoteDraft, NoteDraft]:
    """The owner's three lines on its checkpoint: log, witness, attest."""
    origin = roster.origin(me)
    text = Checkpoint(origin, head.size, head.root).to_text()
    return (
        NoteDraft(origin, text, None),
        NoteDraft(witness_name(roster.mesh, me.name), text, head.time_s),
        NoteDraft(attest_name(roster.mesh, me.name), text, head.time_s),
    )


def _announce(state: LogState, roster: Roster, me: Member, head: Head, *, first: int) -> list[Effect]:
    log, witness, attest = own_drafts(roster, me, head)
    subject = subjects.cosig(me.region, me.name)
    return [
        Sign("log", log),
        Sign("witness", witness),
        Sign("attest", attest),
        Announce(state.origin, first, head.size, log),
        Send(subject, partial(note_of, (log, witness, attest))),
    ]


def note_of(drafts: tuple[NoteDraft, ...], signed: Signed) -> bytes:
    """A note with the signed lines of ``drafts``, which share one text."""
    return Note(drafts[0].text, tuple(signed.lines[draft.id] for draft in drafts)).encode()


def member_verifiers(roster: Roster, owner: Member) -> tuple[Verifier, ...]:
    """Every key whose line on a checkpoint of ``owner``'s log means something."""
    cosigners = {**roster.witness_keys(), **roster.attest_keys()}
    return (
        log_verifier(roster.origin(owner), owner.log_key),
        *(cosigner(name, key) for name, key in cosigners.items()),
    )


def take_lines(state: LogState, roster: Roster, me: Member, data: bytes, *, frozen: Container[str] = ()) -> tuple[LogState, list[Effect]]:
    """Take in the lines of a note about this log; with k attest lines, none of a ``frozen`` member, it becomes the certificate (rule 4).

    Raises:
        Refused: for a note that is malformed or carries a bad line of a known key.
    """
    pending = state.outstanding
    note = parse_note(data)
    if state.closed is not None and note.text == state.closed.text:
        return _late_lines(state, state.closed, note, roster, me)
    if pending is None or note.text != pending.text:
        return state, []
    new = tuple(line for line in note.lines if line.name not in pending.lines)
    verified = {item.verifier.name: item.line for item in verify_lines(note.text, new, member_verifiers(roster, me))}
    lines = {**pending.lines, **verified}
    own = lines.get(state.origin)
    published = Note(pending.text, (own,)).encode() if own is not None else state.note
    waiting = msgspec.structs.replace(state, outstanding=msgspec.structs.replace(pending, lines=lines), note=published)
    return certify(waiting, roster, me, frozen=frozen)


def _late_lines(state: LogState, closed: Outstanding, note: Note, roster: Roster, me: Member) -> tuple[LogState, list[Effect]]:
    """Rule 6."""
    new = tuple(line for line in note.lines if line.name not in closed.lines)
    verified = {item.verifier.name: item.line for item in verify_lines(note.text, new, member_verifiers(roster, me))}
    if not verified:
        return state, []
    closed = msgspec.structs.replace(closed, lines={**closed.lines, **verified})
    return msgspec.structs.replace(state, closed=closed), _cosigned(closed, roster, me, verified)


def _cosigned(closed: Outstanding, roster: Roster, me: Member, names: Container[str]) -> list[Effect]:
    """Of each other member of whom one of these lines is, all that it has cosigned of this checkpoint (rule 6)."""
    notes: list[Effect] = []
    for member in roster.members:
        both = [name(roster.mesh, member.name) for name in (attest_name, witness_name)]
        if member.name != me.name and any(name in names for name in both):
            lines = tuple(closed.lines[name] for name in both if name in closed.lines)
            notes.append(PutNote("cosigned", roster.origin(me), closed.head.size, Note(closed.text, lines).encode(), member.name))
    return notes


def certify(state: LogState, roster: Roster, me: Member, *, frozen: Container[str] = ()) -> tuple[LogState, list[Effect]]:
    """Close the outstanding checkpoint if enough members have attested it."""
    pending = state.outstanding
    if pending is None:
        return state, []
    attested = roster.attest_keys(without=frozen).keys() & pending.lines.keys()
    if len(attested) < roster.k or state.origin not in pending.lines:
        return state, []
    certificate = Note(pending.text, tuple(pending.lines[name] for name in (state.origin, *sorted(attested)))).encode()
    done = msgspec.structs.replace(state, outstanding=None, certified=pending.head.size, closed=pending)
    subject = subjects.checkpoint(me.region, me.name)
    return done, [
        PutNote("certificate", state.origin, pending.head.size, certificate),
        *_cosigned(pending, roster, me, pending.lines),
        Send(subject, partial(as_is, certificate), durable=True),
    ]


def as_is(data: bytes, _signed: Signed) -> bytes:
    """What is sent without anything newly signed in it."""
    return data
