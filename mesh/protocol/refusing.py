"""How a member says that it will not attest a record, and what it shows of a log that has two histories.

Not here: when it does (:mod:`mesh.protocol.mirror`), what others make of it (:mod:`mesh.protocol.accusing`).
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import msgspec

from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Draft
from mesh.core.law.roster import Member
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.note import parse_note
from mesh.core.log.record import AttestRefused, Refusal
from mesh.core.messages import Accusation, pack
from mesh.protocol.lineage import Writer
from mesh.protocol.step import Effect, PutNote, Send, Sign, Signed

__all__ = ["accuse_of", "conflict_key", "evidence", "refused_key", "say_again", "say_refused"]


def say_refused(
    origin: str, leaf: bytes, index: int, reason: Literal["missing", "wrong"], code: str, *, me: Member, writer: Writer
) -> list[Effect]:
    """Say no to the record of that leaf hash, signed, and record that I did."""
    return _said(_refuse(origin, leaf, index, reason, code, me=me, writer=writer), "", [], me)


def accuse_of(
    origin: str, leaf: bytes, index: int, code: str, *, note: bytes, path: Sequence[bytes], me: Member, writer: Writer
) -> tuple[bytes, list[Effect]]:
    """As :func:`say_refused`, that it is wrong, with what binds its owner; and what is kept, so that it can be said again.

    Args:
        origin: of the log.
        leaf: the record's hash.
        index: where it stands.
        code: of the check that failed.
        note: of the log, over the record.
        path: from the record to that.
        me: who says so.
        writer: of my own log.
    """
    lone = parse_note(note).only(origin).encode().decode()
    shown = [value.hex() for value in path]
    refusal = _refuse(origin, leaf, index, "wrong", code, me=me, writer=writer)
    unsigned = envelope.assemble(refusal.payload_type, refusal.payload, {})
    kept = pack(Accusation(note=lone, path=shown, refusal=msgspec.Raw(unsigned)))
    return kept, [PutNote("refused", origin, index + 1, kept), *_said(refusal, lone, shown, me)]


def say_again(kept: Accusation, me: Member) -> list[Effect]:
    """The same bytes once more."""
    return _said(envelope.draft(envelope.read(Refusal, bytes(kept.refusal)).claims), kept.note, kept.path, me)


def _refuse(origin: str, leaf: bytes, index: int, reason: Literal["missing", "wrong"], code: str, *, me: Member, writer: Writer) -> Draft:
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
    writer.append(AttestRefused(mesh=writer.mesh, origin=writer.origin, index=writer.index, at_ms=writer.at_ms, refusal=said))
    return envelope.draft(said)


def _said(refusal: Draft, note: str, path: list[str], me: Member) -> list[Effect]:
    return [Sign("decision", refusal), Send(subjects.fraud(me.region, me.name), partial(_accusation, refusal.id, note, path))]


def _accusation(identity: str, note: str, path: list[str], signed: Signed) -> bytes:
    return pack(Accusation(note=note, path=path, refusal=msgspec.Raw(signed.statements[identity])))


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
