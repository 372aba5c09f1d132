"""What a member that starts is told of what it has signed, by whoever may know better than its storage.

Rules
-----
1. An answer is bound to the nonce of one boot, and names who asked: it is of no use to anybody else, or at any other start.
2. Whatever it says that the asker has signed, it shows with the asker's own signature: a :class:`Mark` carries its own, the
   heartbeat of the largest incarnation travels beside. So nobody can make a start wait for what never was; a liar can only
   leave something out.
3. Only the frontier is the answerer's own word.

Not here: how many answers are enough, and what follows from them (:mod:`mesh.protocol.barrier`).
"""

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import msgspec

from mesh.core.bytes import envelope
from mesh.core.bytes.canonical import Count, Hex32, Payload, Token
from mesh.core.bytes.envelope import Statement, statement
from mesh.core.law.heartbeat import Frontier, Heartbeat
from mesh.core.law.roster import Member, Roster
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosignature_line, cosigner, log_line, log_verifier, witness_name
from mesh.core.log.note import Line, Note, Verifier, verify_lines
from mesh.core.log.record import Origin
from mesh.errors import Refused
from mesh.limits import MEMBERS_MAX

__all__ = ["MARKS_MAX", "Barrier", "Mark", "Shown", "check_barrier", "marks_of", "merged", "note_of", "shown_beat"]

MARKS_MAX: Final = MEMBERS_MAX + 2
"""An attestation of each log; a checkpoint of the asker's own, and a cosignature on the answerer's."""
_SIGNATURE_BYTES: Final = 64
_SignatureHex = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$(?!\\n)", min_length=128, max_length=128)]
Use = Literal["attest", "log", "witness"]


class Mark(Payload):
    """One checkpoint that the asker has signed."""

    use: Use
    """With which of its keys."""
    origin: Origin
    size: Count
    root: Hex32
    time_s: Count
    """Of a cosignature, POSIX seconds; 0 of the log's own signature, which states none."""
    signature: _SignatureHex


@statement("barrier")
class Barrier(Payload):
    """Signed by the answerer's decision key; the only thing that is signed before one's own start is through."""

    mesh: Token
    member: Token
    """Who answers."""
    asker: Token
    nonce: Hex32
    """Of the asker's boot."""
    incarnation: Count
    """The largest of the asker's that was ever heard; 0 if none was."""
    marks: Annotated[list[Mark], msgspec.Meta(max_length=MARKS_MAX)]
    """The largest of each use and origin that is known; sorted by both, each once."""
    frontier: Frontier
    """The answerer's."""


class Shown(msgspec.Struct, frozen=True):
    """An answer that was believed, with everything shown."""

    member: str
    incarnation: int
    marks: tuple[Mark, ...]
    frontier: Frontier


def check_barrier(
    answer: Statement[Barrier], heartbeat: Statement[Heartbeat] | None, roster: Roster, asker: Member, *, nonce: str
) -> Shown:
    """Believe an answer to ``asker``'s question.

    Args:
        answer: as it was read.
        heartbeat: what travelled beside it.
        roster: in force.
        asker: who asked.
        nonce: of its boot.

    Raises:
        Refused: ``wrong_mesh``, ``unknown_member``, ``bad_signature`` (also of what must be the asker's own), ``stale`` for another
            question's answer, ``malformed`` if what is said and what is shown differ.
    """
    claims = answer.claims
    if claims.mesh != roster.mesh:
        raise Refused("wrong_mesh", claims.mesh)
    member = roster.member(claims.member)
    if member.name == asker.name:
        raise Refused("unknown_member", f"{member.name} answers itself")
    answer.verify(member.decision_key)
    if (claims.asker, claims.nonce) != (asker.name, nonce):
        raise Refused("stale", f"an answer to {claims.asker}, boot {claims.nonce[:12]}")
    if claims.marks != merged(claims.marks):
        raise Refused("malformed", "marks that are not sorted, each once")
    # Whoever answers under the roster before mine, or after it, knows logs that mine does not: they bind nothing here.
    origins = {roster.origin(one) for one in roster.members}
    marks = tuple(mark for mark in claims.marks if mark.origin in origins)
    for mark in marks:
        _check_mark(mark, roster, asker)
    shown = 0
    if heartbeat is not None:
        beat = heartbeat.verify(asker.decision_key)
        if (beat.mesh, beat.member) != (roster.mesh, asker.name):
            raise Refused("malformed", f"a heartbeat of {beat.member}")
        shown = beat.incarnation
    if claims.incarnation != shown:
        raise Refused("malformed", f"incarnation {claims.incarnation} is said, {shown} shown")
    return Shown(member.name, shown, marks, claims.frontier)


def merged(marks: Sequence[Mark]) -> list[Mark]:
    """The largest of each use and origin, sorted by both."""
    largest: dict[tuple[str, str], Mark] = {}
    for mark in marks:
        known = largest.get((mark.use, mark.origin))
        if known is None or mark.size > known.size:
            largest[mark.use, mark.origin] = mark
    return [largest[key] for key in sorted(largest)]


def marks_of(note: Note, roster: Roster, asker: Member) -> list[Mark]:
    """What a note shows that ``asker`` has signed.

    Raises:
        Refused: ``bad_signature`` for a line of the asker's that fails; as :meth:`~mesh.core.log.checkpoint.Checkpoint.from_text`.
    """
    checkpoint = Checkpoint.from_text(note.text)
    marks: list[Mark] = []
    for use, verifier in _verifiers(roster, asker).items():
        if use == "log" and verifier.name != checkpoint.origin:
            continue
        for signed in verify_lines(note.text, note.lines, (verifier,)):
            mark = Mark(
                use=use,
                origin=checkpoint.origin,
                size=checkpoint.size,
                root=checkpoint.root.hex(),
                time_s=signed.time_s,
                signature=signed.line.signature[-_SIGNATURE_BYTES:].hex(),
            )
            marks.append(mark)
    return marks


def _verifiers(roster: Roster, asker: Member) -> dict[Use, Verifier]:
    return {
        "attest": cosigner(attest_name(roster.mesh, asker.name), asker.attest_key),
        "log": log_verifier(roster.origin(asker), asker.log_key),
        "witness": cosigner(witness_name(roster.mesh, asker.name), asker.witness_key),
    }


def _check_mark(mark: Mark, roster: Roster, asker: Member) -> None:
    verifier = _verifiers(roster, asker)[mark.use]
    if mark.use == "log" and (mark.time_s or mark.origin != verifier.name):
        raise Refused("malformed", f"a log's signature on {mark.origin[:80]} at {mark.time_s}")
    verifier.verify(Checkpoint(mark.origin, mark.size, bytes.fromhex(mark.root)).to_text(), _line(mark, verifier))


def _line(mark: Mark, verifier: Verifier) -> Line:
    """The signature line that a mark stands for."""
    signature = bytes.fromhex(mark.signature)
    if mark.use == "log":
        return log_line(verifier.name, verifier.key, signature)
    return cosignature_line(verifier.name, verifier.key, mark.time_s, signature)


def note_of(mark: Mark, roster: Roster, asker: Member) -> bytes:
    """The note that a mark stands for, with that one line."""
    text = Checkpoint(mark.origin, mark.size, bytes.fromhex(mark.root)).to_text()
    return Note(text, (_line(mark, _verifiers(roster, asker)[mark.use]),)).encode()


def shown_beat(beat: Statement[Heartbeat], member: Member) -> bytes:
    """A heartbeat that was believed, as it is kept to be shown: with its member's signature only."""
    payload_type = envelope.kind_of(Heartbeat).payload_type
    return envelope.assemble(payload_type, beat.payload, {member.decision_key: beat.signatures[member.decision_key]})
