"""What a log shows to strangers, and what strangers say of it: its certificate with the lines of external witnesses beneath.

Rules
-----
1. A line of an external witness is kept only if its own configured key signed exactly the published text, with a time.
2. Such a line counts to nothing: certificates, quorums and freshness never see it. A witness that lies, or says nothing, costs its line.
3. A witness is asked from the size that it cosigned last, as far as is known. It may name another, once; one beyond what is
   published is no answer.

Not here: who is asked and when (:mod:`mesh.roles.cosigners`).
"""

from collections.abc import Iterable
from typing import Final

from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.lines import from_decimal, text_of
from mesh.core.log.note import Line, Note, Verifier, append_lines, format_lines, parse_lines, parse_note, verify_lines
from mesh.errors import Refused
from mesh.protocol.witness import SIZE_TYPE

__all__ = ["cosigned", "published", "told_size"]

_SIZE_BYTES_MAX: Final = 17
"""Sixteen digits and a newline."""


def cosigned(note: bytes, answer: bytes, witness: Verifier) -> bytes:
    """The text of ``note`` with the line that ``witness`` has answered (rule 1).

    Raises:
        Refused: ``not_cosigned``.
    """
    text = parse_note(note).text
    try:
        signed = verify_lines(text, parse_lines(answer), (witness,))
    except Refused as refusal:
        raise Refused("not_cosigned", f"its answer: {refusal}") from None
    if len(signed) != 1 or signed[0].time_s == 0:
        raise Refused("not_cosigned", "its answer holds no line of its key with a time")
    return Note(text, (signed[0].line,)).encode()


def told_size(kind: str, body: bytes, size: int) -> int:
    """The size that a witness says it cosigned last, in its answer 409 to a checkpoint of ``size`` (rule 3).

    Raises:
        Refused: ``not_cosigned``.
    """
    try:
        told = from_decimal(text_of(body[:_SIZE_BYTES_MAX]).removesuffix("\n"))
    except Refused:
        told = -1
    if kind != SIZE_TYPE or body != b"%d\n" % told or not 0 <= told <= size:
        raise Refused("not_cosigned", f"asked for {size}, it tells {body[:20]!r}")
    return told


def published(certificate: bytes, notes: Iterable[bytes]) -> bytes:
    """The certificate with those lines of ``notes`` that are beneath its text, each a note as :func:`cosigned` made it."""
    text = parse_note(certificate).text
    lines = [line for note in map(parse_note, notes) if note.text == text for line in note.lines]
    shown = certificate
    for line in sorted(lines, key=_order):
        try:
            shown = append_lines(shown, [line])
        except Refused:  # too many, or two of one name and key id: whoever came first stays
            continue
    read_checkpoint(shown)
    return shown


def _order(line: Line) -> bytes:
    return format_lines([line])
