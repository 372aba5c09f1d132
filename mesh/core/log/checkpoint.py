r"""Size and root of one log, signed by it and cosigned by others: C2SP tlog-checkpoint, tlog-cosignature, tlog-witness.

Rules
-----
1. A checkpoint is exactly ``origin\nsize\nbase64(root)\n``: extension lines are refused, since implementations differ over
   whether cosignatures cover them.
2. The log signs that text itself (0x01) under its origin as key name; cosigners sign time and text (0x04).
3. What a cosignature states follows from its key alone, so each statement (witness, attest) has a key of its own.
4. Whoever signs hands in 64 signature bytes: messages and lines are made here, secret keys stay with the signer.

Not here: what counts as enough (:mod:`mesh.core.log.certificate`); what a witness remembers and answers, which is protocol.
"""

import msgspec

from mesh.core.log.lines import HASH_BYTES, from_base64, from_decimal, hash_lines, hashes_of, text_of, to_base64
from mesh.core.log.merkle import EMPTY_ROOT, verify_consistency
from mesh.core.log.note import Line, SignatureType, Signed, Verifier, cosignature_message, open_note, parse_note
from mesh.errors import Refused
from mesh.limits import NOTE_BYTES_MAX, WITNESS_REQUEST_BYTES_MAX

__all__ = [
    "AddCheckpoint",
    "Checkpoint",
    "OpenedCheckpoint",
    "attest_name",
    "cosignature_line",
    "cosignature_message",
    "cosigner",
    "log_line",
    "log_origin",
    "log_verifier",
    "open_checkpoint",
    "read_checkpoint",
    "verify_growth",
    "witness_name",
]


class Checkpoint(msgspec.Struct, frozen=True):
    """What a log says of itself: not yet believed, unless it came out of :func:`open_checkpoint`."""

    origin: str
    size: int
    root: bytes

    def to_text(self) -> bytes:
        """The note text, which is also the message of the log's own signature."""
        return f"{self.origin}\n{self.size}\n{to_base64(self.root)}\n".encode()

    @classmethod
    def from_text(cls, data: bytes) -> "Checkpoint":
        """Read a note text.

        Raises:
            Refused: ``malformed``, ``non_canonical``, or ``too_large`` for a size past any log's.
        """
        if len(data) > NOTE_BYTES_MAX:
            raise Refused("too_large", f"{len(data)} bytes, at most {NOTE_BYTES_MAX}")
        origin, *rest = text_of(data).split("\n")
        if not origin or len(rest) != 3 or rest[2]:
            raise Refused("malformed", "a checkpoint is three lines: origin, size, root")
        checkpoint = cls(origin, from_decimal(rest[0]), from_base64(rest[1]))
        if len(checkpoint.root) != HASH_BYTES:
            raise Refused("malformed", f"a root is {HASH_BYTES} bytes")
        if checkpoint.to_text() != data:
            raise Refused("non_canonical")
        return checkpoint


class OpenedCheckpoint(msgspec.Struct, frozen=True):
    """A checkpoint that its log signed, with the cosignatures that were verified."""

    checkpoint: Checkpoint
    cosignatures: tuple[Signed, ...]
    strangers: int
    """How many lines were ignored because nobody knows their keys."""


class AddCheckpoint(msgspec.Struct, frozen=True):
    """A request to cosign: C2SP tlog-witness, the body of add-checkpoint. Nothing in it is believed."""

    old: int
    """The size the proof starts from: what the caller thinks the witness cosigned last."""
    proof: tuple[bytes, ...]
    note: bytes
    """The checkpoint, for :func:`read_checkpoint` and :func:`open_checkpoint`."""

    def encode(self) -> bytes:
        """The one spelling of this request."""
        return f"old {self.old}\n{hash_lines(self.proof)}\n".encode() + self.note

    @classmethod
    def parse(cls, data: bytes) -> "AddCheckpoint":
        """Read a request body.

        Raises:
            Refused: ``too_large``, ``malformed``, ``non_canonical``; a witness answers 400 to each.
        """
        if len(data) > WITNESS_REQUEST_BYTES_MAX:
            raise Refused("too_large", f"{len(data)} bytes, at most {WITNESS_REQUEST_BYTES_MAX}")
        head, _, note = data.partition(b"\n\n")
        first, *hashes = text_of(head).split("\n")
        request = cls(from_decimal(first.removeprefix("old ")), hashes_of(hashes), note)
        if request.encode() != data:
            raise Refused("non_canonical")
        parse_note(note)
        return request


def log_origin(mesh: str, node: str, epoch: int) -> str:
    """The origin, and log key name, of a node's log; a closed log is followed by one of the next ``epoch``."""
    return f"{mesh}/{node}/e{epoch}"


def witness_name(mesh: str, node: str) -> str:
    """The key name under which a node states that a log only grew."""
    return f"{mesh}/{node}/witness"


def attest_name(mesh: str, node: str) -> str:
    """The key name under which a node states that it holds a log's records and would have decided alike."""
    return f"{mesh}/{node}/attest"


def log_verifier(origin: str, key: str) -> Verifier:
    """Belief in the log key ``key`` (hex) of the log ``origin``."""
    return Verifier(origin, SignatureType.PLAIN, key)


def cosigner(name: str, key: str) -> Verifier:
    """Belief in the witness or attest key ``key`` (hex) under its name."""
    return Verifier(name, SignatureType.COSIGNATURE, key)


def log_line(origin: str, key: str, signature: bytes) -> Line:
    """The line for the log's signature (64 bytes) over :meth:`Checkpoint.to_text`."""
    return Line(origin, log_verifier(origin, key).key_id, signature)


def cosignature_line(name: str, key: str, time_s: int, signature: bytes) -> Line:
    """The line for a signature (64 bytes) over :func:`cosignature_message` with the same ``time_s`` (POSIX seconds)."""
    return Line(name, cosigner(name, key).key_id, time_s.to_bytes(8) + signature)


def read_checkpoint(data: bytes) -> Checkpoint:
    """The checkpoint a note holds, on nobody's word: to learn which log it speaks of.

    Raises:
        Refused: as :func:`mesh.core.log.note.parse_note` and :meth:`Checkpoint.from_text`.
    """
    return Checkpoint.from_text(parse_note(data).text)


def open_checkpoint(data: bytes, log: Verifier, cosigners: tuple[Verifier, ...] = ()) -> OpenedCheckpoint:
    """Believe a checkpoint on the word of its log, and every cosignature of ``cosigners`` that it carries.

    Raises:
        Refused: as :func:`read_checkpoint`; ``bad_signature`` without a valid line of the log, or when the line of any known
            key fails; ``bad_checkpoint`` for another log's origin.
    """
    opened = open_note(data, (log, *cosigners))
    if all(signed.verifier != log for signed in opened.signed):
        raise Refused("bad_signature", f"not signed by the log {log.name[:80]!r}")
    checkpoint = Checkpoint.from_text(opened.text)
    if checkpoint.origin != log.name:
        raise Refused("bad_checkpoint", f"origin {checkpoint.origin[:80]!r}, signed by {log.name[:80]!r}")
    cosignatures = tuple(signed for signed in opened.signed if signed.verifier != log)
    return OpenedCheckpoint(checkpoint, cosignatures, opened.strangers)


def verify_growth(old: Checkpoint, new: Checkpoint, proof: tuple[bytes, ...]) -> None:
    """Believe that ``new`` continues ``old``; a log never seen before has size 0 and the empty root.

    Raises:
        Refused: ``bad_proof`` (a witness answers 422): also for a proof where none is due, size 0 with another root, or
            another origin.
    """
    if any(each.size == 0 and each.root != EMPTY_ROOT for each in (old, new)):
        raise Refused("bad_proof", "size 0 with a root that is not the empty one")
    if old.origin != new.origin:
        raise Refused("bad_proof", "two different logs")
    if old.size:
        verify_consistency(old.size, new.size, old.root, new.root, proof)
    elif proof:
        raise Refused("bad_proof", "every tree continues the empty one, without a proof")
