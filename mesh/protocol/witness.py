"""A witness cosigns the largest consistent tree it has seen of a log, and never two histories (C2SP tlog-witness).

Rules
-----
1. A smaller size, or another root at the same size, is two histories: refused.
2. What will be signed, its time included, is persisted before it is signed: a retry signs the same bytes.
3. Times of one key never decrease; a clock that is behind borrows the last time. One that is behind by more than
   :data:`BEHIND_S` was ahead once, or is wrong now: nothing is signed until it has come so far.
4. Who asks is judged in this order: the bytes, the origin, the log's signature, the size that the proof begins at, the proof.
   Each refusal has its own status (:data:`STATUS`), as tlog-witness has it.
5. A log that stands still may have its checkpoint cosigned anew under a new time once :data:`RENEW_S` have passed, so that a
   reader can tell a quiet log from a frozen view. Within them it is a retry: rule 2.

Not here: belief in content (:mod:`mesh.protocol.attester`), the log's records (:mod:`mesh.protocol.mirror`), HTTP and files
(:mod:`mesh.roles.witness`).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from mesh.core.log.checkpoint import AddCheckpoint, Checkpoint, read_checkpoint, verify_growth
from mesh.core.log.merkle import EMPTY_ROOT
from mesh.core.log.note import Note, Verifier, format_lines, open_note, parse_note
from mesh.errors import Refused, Unavailable
from mesh.protocol.step import Head, NoteDraft, PutNote, Reply, Send, SetHead, Sign, Signed, Step

__all__ = ["BEHIND_S", "RENEW_S", "SIZE_TYPE", "STATUS", "Asked", "Forked", "add_checkpoint", "asked", "grown", "shown"]

RENEW_S: Final = 60
"""How long a cosignature's time stands for the same checkpoint."""
BEHIND_S: Final = 60
"""How far a clock may be behind the last time: as long as that time stands anyway."""
SIZE_TYPE: Final = "text/x.tlog.size"
"""Content type of the answer 409, whose body is the size cosigned last."""
STATUS: Final[Mapping[str, int]] = {
    "not_found": 404,
    "bad_signature": 403,
    "wrong_size": 409,
    "bad_proof": 422,
    "log_conflict": 422,
}
"""HTTP status of a refusal by its code; every other one is 400."""
_HERE: Final = Reply(0)


class Forked(Refused):
    """A log has signed another root for a size that was cosigned."""

    def __init__(self, checkpoint: Checkpoint, note: bytes) -> None:
        super().__init__("log_conflict", f"{checkpoint.origin[:80]} has signed two roots for size {checkpoint.size}")
        self.origin = checkpoint.origin
        self.note = note
        """The checkpoint under the log's own signature: with what was cosigned, a proof that nobody can deny."""


class Asked(msgspec.Struct, frozen=True):
    """A request that is well formed; nothing in it is believed."""

    request: AddCheckpoint
    checkpoint: Checkpoint


def asked(body: bytes) -> Asked:
    """Read a request.

    Raises:
        Refused: as :meth:`AddCheckpoint.parse` and :func:`read_checkpoint`.
    """
    request = AddCheckpoint.parse(body)
    return Asked(request, read_checkpoint(request.note))


def add_checkpoint(head: Head | None, ask: Asked, log: Sequence[Verifier], *, name: str, time_s: int) -> Step[Head]:
    """Cosign what was asked, if it continues what was cosigned before: the new head, and what to keep, sign and answer.

    Args:
        head: what was cosigned last of this origin; None for nothing.
        ask: the request.
        log: the keys that are trusted for its origin; none if the origin is unknown.
        name: of the witness's key.
        time_s: POSIX seconds.

    Raises:
        Refused: rule 4; :class:`Forked` for the plain case of two histories.
        Unavailable: ``clock_unsure``: rule 3.
    """
    request, checkpoint = ask.request, ask.checkpoint
    if not log:
        raise Refused("not_found", f"no log {checkpoint.origin[:80]!r}")
    opened = open_note(request.note, log)
    if request.old > checkpoint.size:
        raise Refused("malformed", f"a proof from size {request.old} to {checkpoint.size}")
    before = Checkpoint(checkpoint.origin, head.size if head else 0, head.root if head else EMPTY_ROOT)
    if request.old != before.size:
        raise Refused("wrong_size", f"{checkpoint.origin[:80]} was cosigned at size {before.size}, not {request.old}")
    note = Note(opened.text, tuple(signed.line for signed in opened.signed)).encode()
    if head is not None and checkpoint.size == head.size and checkpoint.root != head.root:
        raise Forked(checkpoint, note)
    verify_growth(before, checkpoint, request.proof)
    if head is not None and time_s < head.time_s - BEHIND_S:
        raise Unavailable("clock_unsure", f"{head.time_s - time_s} s behind what was signed last of {checkpoint.origin[:80]}")
    after = grown(head, checkpoint, time_s=time_s, renew_s=RENEW_S)
    draft = NoteDraft(name, opened.text, after.time_s)
    answer = (Sign("witness", draft), Send(_HERE, partial(_line, draft)))
    if after == head:
        return Step(after, answer)
    origin = checkpoint.origin
    return Step(after, (SetHead("witness", origin, after), PutNote("checkpoint", origin, after.size, note), *answer))


def shown(head: Head, note: bytes, *, name: str) -> Step[Head]:
    """What was cosigned last, with the line that was answered: the same bytes again (rule 2)."""
    draft = NoteDraft(name, parse_note(note).text, head.time_s)
    return Step(head, (Sign("witness", draft), Send(_HERE, partial(_beneath, note, draft))))


def grown(head: Head | None, checkpoint: Checkpoint, *, time_s: int, renew_s: int | None = None) -> Head:
    """The head after ``checkpoint``, whose growth from ``head`` has been verified; ``renew_s`` as in rule 5, None for never.

    Raises:
        Refused: ``log_conflict`` for a smaller size, or another root at the same size.
    """
    if head is None:
        return Head(checkpoint.size, checkpoint.root, time_s)
    if checkpoint.size < head.size or (checkpoint.size == head.size and checkpoint.root != head.root):
        raise Refused("log_conflict", f"{checkpoint.origin} at size {checkpoint.size}, cosigned {head.size}")
    if checkpoint.size == head.size and (renew_s is None or time_s - head.time_s < renew_s):
        return head
    return Head(checkpoint.size, checkpoint.root, max(time_s, head.time_s))


def _line(draft: NoteDraft, signed: Signed) -> bytes:
    return format_lines([signed.lines[draft.id]])


def _beneath(note: bytes, draft: NoteDraft, signed: Signed) -> bytes:
    return note + format_lines([signed.lines[draft.id]])
