"""A certificate makes records final: one checkpoint that k distinct members attested. It is a C2SP signed note.

Rules
-----
1. The text is the checkpoint; the lines are the log's own and those of attest keys, sorted by name, so that any C2SP tool can
   check it.
2. Members are counted as public-key bytes: a key under two names counts once. The log's own line never counts; its
   owner's attest line counts as one, because 2k > n + f already allows for an owner that lies.
3. Every line must be verified, where a note's other readers skip strangers: so no byte of a certificate lies outside of what
   was checked.

Not here: who the members of an epoch are, and k (the roster); proofs from a record to the checkpoint
(:mod:`mesh.core.log.merkle`).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated

import msgspec

from mesh.core.bytes.canonical import Count, Payload
from mesh.core.log.checkpoint import Checkpoint, cosigner, open_checkpoint
from mesh.core.log.note import Line, Signed, Verifier, append_lines
from mesh.errors import Refused
from mesh.limits import NOTE_BYTES_MAX

__all__ = ["Attested", "Certificate", "certificate_note", "verify_certificate"]


class Certificate(Payload):
    """What travels: the note, and the roster epoch whose members and k it is to be judged by."""

    roster_epoch: Count
    note: Annotated[str, msgspec.Meta(max_length=NOTE_BYTES_MAX)]


class Attested(msgspec.Struct, frozen=True):
    """A checkpoint that k distinct members attested: every record below its size is final."""

    checkpoint: Checkpoint
    attestations: tuple[Signed, ...]
    """Who attested, and when (``time_s``), in the order of the lines; at least k distinct keys."""


def certificate_note(signed: bytes, attestations: Iterable[Line]) -> bytes:
    """The note of a certificate, from the checkpoint as its log signed it and the attest lines, in the one order.

    Raises:
        Refused: as :func:`mesh.core.log.note.append_lines`.
    """
    return append_lines(signed, sorted(attestations, key=lambda line: line.name))


def verify_certificate(note: bytes, *, log: Verifier, attesters: Mapping[str, str], k: int) -> Attested:
    """Believe a checkpoint on the word of ``k`` of ``attesters`` (key name to public key in hex).

    Raises:
        Refused: ``not_final`` below k distinct keys; ``bad_signature`` for a stranger's line; otherwise as
            :func:`mesh.core.log.checkpoint.open_checkpoint`.
    """
    opened = open_checkpoint(note, log, tuple(cosigner(name, key) for name, key in attesters.items()))
    if opened.strangers:
        raise Refused("bad_signature", f"{opened.strangers} lines of unknown keys")
    keys = frozenset(signed.verifier.key for signed in opened.cosignatures)
    if k < 1 or len(keys) < k:
        raise Refused("not_final", f"{len(keys)} of {k} attested {opened.checkpoint.origin} at {opened.checkpoint.size}")
    return Attested(opened.checkpoint, opened.cosignatures)
