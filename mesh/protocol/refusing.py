"""How a member says that it will not attest a record, and what it shows of a log that has two histories.

Not here: when it does (:mod:`mesh.protocol.mirror`).
"""

from operator import methodcaller
from typing import Literal

from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.law.roster import Member
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.note import parse_note
from mesh.core.log.record import AttestRefused, Refusal
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Effect, Send, Sign

__all__ = ["conflict_key", "evidence", "refused_key", "say_refused"]


def say_refused(
    origin: str, leaf: bytes, index: int, reason: Literal["missing", "wrong"], code: str, *, me: Member, writer: Writer
) -> list[Effect]:
    """Say no to the record of that leaf hash, signed, and record that I did."""
    said = Refusal(
        mesh=writer.mesh,
        member=me.name,
        origin=origin,
        index=index,
        leaf=leaf.hex(),
        reason=reason,
        code=code,
        at_ms=writer.at_ms,
    )
    refusal = envelope.draft(said)
    writer.append(AttestRefused(mesh=writer.mesh, origin=writer.origin, index=writer.index, at_ms=writer.at_ms, refusal=said))
    subject = subjects.fraud(me.region, me.name)
    return [Sign("decision", refusal), Send(subject, methodcaller("statement", refusal.id))]


def evidence(note: bytes) -> str:
    """What the log signed, and its signature, from which anybody can make the note again."""
    checkpoint = read_checkpoint(note)
    line = next(line for line in parse_note(note).lines if line.name == checkpoint.origin)
    return f"size {checkpoint.size} root {checkpoint.root.hex()} (signature {line.signature.hex()})"


def refused_key(origin: str) -> str:
    """Under which storage keeps the index of the record that will not be attested."""
    return f"refused {origin}"


def conflict_key(origin: str) -> str:
    """Under which storage keeps the size at which a log showed two histories."""
    return f"conflict {origin}"
