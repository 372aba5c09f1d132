"""What a governor's storage knows when it starts, and the parts of its state that follow from that alone.

Not here: what else a start needs (:mod:`mesh.protocol.begin`), what others know better (:mod:`mesh.protocol.barrier`).
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from mesh.core.bytes.envelope import Statement
from mesh.core.law.travel import Said
from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.merkle import Frontier
from mesh.protocol.hearing import NOBODY, Words
from mesh.protocol.histories import Recent
from mesh.protocol.holding import Mirror
from mesh.protocol.lineage import Entangled, LogState, Outstanding
from mesh.protocol.step import Head, HeadUse

__all__ = ["INCARNATION", "REFILLED", "ROSTER_EPOCH", "Stored", "StoredLog", "mirror_of", "own_log"]

INCARNATION: Final = "incarnation"
REFILLED: Final = "refilled"
ROSTER_EPOCH: Final = "roster epoch"
"""Of the roster under which the next start begins."""


class StoredLog(msgspec.Struct, frozen=True, kw_only=True):
    """What storage knows of one log."""

    frontier: Frontier
    last_ms: int
    """Time of the last record; 0 without records."""
    certified: int
    log: Head | None = None
    witness: Head | None = None
    attest: Head | None = None
    marks: tuple[Frontier, ...] = ()
    """Frontiers at multiples of ``CHECKPOINT_RECORDS_MAX`` past the certificate; for the own log."""
    refused: int = -1
    conflicted: bool = False
    checkpoint: bytes = b""
    """The newest checkpoint of another's log that is held; empty for none."""
    certificate: bytes = b""
    """The newest certificate; by whichever roster."""
    attested: bytes = b""
    """The checkpoint that was attested last, where newer ones are held that were not; else empty."""
    refusal: bytes = b""
    """This node's refusal of a record of another's log, as it is said again; empty for none."""
    recent: Recent | None = None
    """Of another's log: the hashes of its last records, from the certificate on, as far as they are remembered."""

    def root(self, size: int) -> bytes | None:
        """Of the tree of its first records, if it is known."""
        if size == self.frontier.size:
            return self.frontier.root()
        return self.recent.root(size) if self.recent is not None else None

    def head(self, use: HeadUse) -> Head | None:
        """What was signed last with a key of that use."""
        return {"log": self.log, "witness": self.witness, "attest": self.attest}[use]


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What storage knows."""

    incarnation: int
    """Of the last boot; 0 before the first."""
    own: StoredLog
    mirrors: Mapping[str, StoredLog]
    """By origin; a log never seen may be absent."""
    law: tuple[Statement[Said], ...] = ()
    """Governance statements, believed before they were stored."""
    heard: Mapping[str, int] = {}
    """Other members' largest incarnations of which a heartbeat is kept."""
    refilled: int = 0
    """How many records of the own log came back from others, at a start that may not have got through."""
    words: Words = NOBODY
    """What enforcers said last that they have heard."""


def own_log(origin: str, stored: StoredLog, *, now_ms: int) -> LogState:
    """The own log as it goes on from there; a checkpoint without certificate is outstanding."""
    head, outstanding = stored.log, None
    if head is not None and head.size > stored.certified:
        outstanding = Outstanding(head, Checkpoint(origin, head.size, head.root).to_text(), {}, 0)
    return LogState(
        origin=origin,
        frontier=stored.frontier,
        last_ms=stored.last_ms,
        announced=stored.certified,
        outstanding=outstanding,
        certified=stored.certified,
        note=b"",
        tick_ms=min(now_ms, stored.last_ms),
        signed_s=head.time_s if head is not None else 0,
        marks=stored.marks,
        heads=(head,) if head is not None else (),
        entangled=Entangled(now_ms),
    )


def mirror_of(origin: str, stored: StoredLog | None) -> Mirror:
    """Another log as it goes on from there."""
    if stored is None:
        stored = StoredLog(frontier=Frontier.empty(), last_ms=0, certified=0)
    return Mirror(
        origin=origin,
        frontier=stored.frontier,
        last_ms=stored.last_ms,
        staged=(),
        witnessed=stored.witness,
        attested=stored.attest,
        # After a restore more was cosigned than is held: until that is here again, nothing more is.
        wanted=max(stored.frontier.size, stored.witness.size if stored.witness is not None else 0),
        certified=stored.certified,
        asked_ms=0,
        asked=0,
        waiting_ms=0,
        missing=-1,
        refused=stored.refused,
        conflicted=stored.conflicted,
        recent=stored.recent,
        refusal=stored.refusal,
    )
