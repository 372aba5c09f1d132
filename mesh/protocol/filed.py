"""Records from a file as an auditor takes them from a mesh: the same events, so the same verdict.

Not here: reading files (``mesh audit run --from``), belief (:mod:`mesh.protocol.audit`).
"""

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from mesh.core.log.bundle import ProofBundle
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import LineageBatch, Openings, pack
from mesh.limits import BATCH_RECORDS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol.audit import Audit
from mesh.protocol.audited import AuditEvent, AuditState
from mesh.protocol.events import LineageArrived, NoteArrived, Tick
from mesh.protocol.step import Ask

__all__ = ["Filed", "proofs_as_events", "that_is_all"]

_BYTES: Final = MESSAGE_BYTES_MAX // 4
"""A batch is sent on once it has so much: one record with all its statements still fits."""
_WAIT_MS: Final = 1_000


class Filed:
    """Consecutive records of one log, gathered into batches."""

    def __init__(self) -> None:
        """Nothing yet."""
        self._origin = ""
        self._first = 0
        self._records: list[msgspec.Raw] = []
        self._bodies: dict[bytes, None] = {}
        self._openings: list[Openings] = []
        self._note = b""
        self._bytes = 0

    def add(
        self, origin: str, index: int, leaf: bytes, bodies: Iterable[bytes], openings: Openings | None, note: bytes
    ) -> list[AuditEvent]:
        """The next record, with the note that goes with it; what is complete by now."""
        full = len(self._records) == BATCH_RECORDS_MAX or self._bytes > _BYTES
        done = self.end() if full or (origin, index) != (self._origin, self._first + len(self._records)) else []
        if not self._records:
            self._origin, self._first = origin, index
        self._records.append(msgspec.Raw(leaf))
        self._bytes += len(leaf)
        for body in bodies:
            if body not in self._bodies:
                self._bodies[body] = None
                self._bytes += len(body)
        if openings is not None:
            self._openings.append(openings)
        if note and note != self._note:
            self._note = note
            done += [*self.end(), NoteArrived(note)]
        return done

    def end(self) -> list[AuditEvent]:
        """What is left."""
        if not self._records:
            return []
        batch = LineageBatch(
            origin=self._origin,
            first=self._first,
            records=self._records,
            bodies=[msgspec.Raw(body) for body in self._bodies],
            pruned=[],
            openings=self._openings,
            checkpoint="",
            path=[],
            start=[],
        )
        self._origin, self._first = self._origin, self._first + len(self._records)
        self._records, self._bodies, self._openings, self._bytes = [], {}, [], 0
        return [LineageArrived(pack(batch), pulled=False)]


def proofs_as_events(proofs: Iterable[ProofBundle]) -> Iterator[list[AuditEvent]]:
    """What the records of these proofs are to an auditor.

    Raises:
        Refused: the codec's codes, for a proof whose record or certificate is none.
    """
    filed = Filed()
    for proof in proofs:
        record = read_record(bytes(proof.record))
        opened = _opened(record.intent, proof) if isinstance(record, DecisionMade) else None
        note = TlogProof.parse(proof.proof.encode()).note if proof.proof else b""
        yield filed.add(record.origin, record.index, bytes(proof.record), map(bytes, proof.bodies), opened, note)
    yield filed.end()


def that_is_all(audit: Audit, state: AuditState, *, now_ms: int) -> AuditState:
    """The state once it is known that nobody has more: what lacks its openings is judged without them, what lacks more is found."""
    for turn in range(2 * len(audit.roster.members)):
        step = audit.step(state, [Tick()], now_ms=now_ms + turn * _WAIT_MS)
        state = step.state
        nothing = [_empty(ask) for ask in step.effects if isinstance(ask, Ask)]
        if not nothing:
            break
        state = audit.step(state, nothing, now_ms=now_ms + turn * _WAIT_MS).state
    return state


def _opened(intent: str, proof: ProofBundle) -> Openings | None:
    opened = Openings(intent=intent, openings=proof.openings, boxes=proof.boxes)
    return opened if opened.openings or opened.boxes else None


def _empty(ask: Ask) -> AuditEvent:
    batch = LineageBatch(
        origin=ask.origin, first=ask.first, records=[], bodies=[], pruned=[], openings=[], path=[], start=[], checkpoint=""
    )
    return LineageArrived(pack(batch), pulled=True)
