"""Checkpoints of the example world's log, and the lines of members on them.

Not here: what stands in the log (:mod:`mesh.contracts.story`).
"""

from typing import Final

from mesh.contracts.example import MESH, NODE, key, start_ms
from mesh.core.log.checkpoint import Checkpoint, attest_name, cosignature_line, cosignature_message, log_line, log_origin, witness_name
from mesh.core.log.note import Line, Note

__all__ = ["ORIGIN", "checkpoint_note", "cosigned"]

ORIGIN: Final = log_origin(MESH, NODE, 1)


def checkpoint_note(size: int, root: bytes) -> bytes:
    """A checkpoint of the example's log, signed by it."""
    log = key(f"{NODE}/log")
    text = Checkpoint(ORIGIN, size, root).to_text()
    return Note(text, (log_line(ORIGIN, log.public, log.sign(text)),)).encode()


def cosigned(use: str, member: str, note: bytes) -> Line:
    """A member's line on a note, for either ``use``: ``attest`` or ``witness``."""
    text, time_s = note[: note.index(b"\n\n") + 1], start_ms(8) // 1000
    signer = key(f"{member}/{use}")
    name = attest_name(MESH, member) if use == "attest" else witness_name(MESH, member)
    return cosignature_line(name, signer.public, time_s, signer.sign(cosignature_message(text, time_s)))
