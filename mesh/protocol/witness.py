"""A witness cosigns the largest consistent tree it has seen of a log, and never two histories (C2SP tlog-witness).

Rules
-----
1. A smaller size, or another root at the same size, is two histories: refused.
2. What will be signed, its time included, is persisted before it is signed: a retry signs the same bytes.
3. Times of one key never decrease; a clock that is behind borrows the last time.

Not here: belief in content (:mod:`mesh.protocol.attester`), the log's records (:mod:`mesh.protocol.mirror`).
"""

from mesh.core.log.checkpoint import Checkpoint
from mesh.errors import Refused
from mesh.protocol.step import Head

__all__ = ["grown"]


def grown(head: Head | None, checkpoint: Checkpoint, *, time_s: int) -> Head:
    """The head after ``checkpoint``, whose growth from ``head`` has been verified.

    Raises:
        Refused: ``log_conflict`` for a smaller size, or another root at the same size.
    """
    if head is None:
        return Head(checkpoint.size, checkpoint.root, time_s)
    if checkpoint.size < head.size or (checkpoint.size == head.size and checkpoint.root != head.root):
        raise Refused("log_conflict", f"{checkpoint.origin} at size {checkpoint.size}, cosigned {head.size}")
    if checkpoint.size == head.size:
        return head
    return Head(checkpoint.size, checkpoint.root, max(time_s, head.time_s))
