"""An outcome is sent to governors until one has recorded it and k members attested the record: only then may it be forgotten.

Rules
-----
1. What waits stands in the spent store; here is only who took it in, so a restart loses nothing and sends again.
2. A receipt is a promise, a proof is the fact: inclusion in a checkpoint with a certificate, verified here.
3. A receipt without proof past ``attest_stall_ms`` is given up, and the outcome goes to the next region.
4. A governor that refuses a batch is asked about each outcome alone, so that one bad one holds up nobody. Silence is no refusal:
   then all of them wait together.

Not here: making outcomes (:mod:`mesh.protocol.outcomechain`), taking them in (:mod:`mesh.protocol.outcomes`).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple, cast

import msgspec

from mesh.adapters.bus import Bus
from mesh.adapters.clock import Clock
from mesh.adapters.spent import Pending, SpentStore
from mesh.core import subjects
from mesh.core.law.former import final_under
from mesh.core.law.governance import Governance
from mesh.core.log.checkpoint import log_verifier
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import OutcomeRecorded, read_record
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import OutcomeAnswer, OutcomeRequest, Prove, Proved, RefusedAnswer, pack, unpack
from mesh.core.run.authorization import RecordRef
from mesh.errors import MeshError, Refused
from mesh.gate.asking import Regions
from mesh.limits import BATCH_EVENTS_MAX, MESSAGE_BYTES_MAX, OUTBOX_OUTCOMES_MAX
from mesh.protocol.enforcer import Place, check_receipt

__all__ = ["Outbox"]

_ASK_MS: Final = 2_000
_BATCH_BYTES: Final = MESSAGE_BYTES_MAX // 2
_PAUSE_S_MAX: Final = 5.0

_OUTCOME_ANSWER: Final = cast("type[OutcomeAnswer | RefusedAnswer]", OutcomeAnswer | RefusedAnswer)
_PROVE_ANSWER: Final = cast("type[Proved | RefusedAnswer]", Proved | RefusedAnswer)

_log = logging.getLogger(__name__)


class _Taken(NamedTuple):
    record: RecordRef
    at_ms: int


class Outbox:
    """The outcomes of one audience on their way into the logs."""

    def __init__(
        self, bus: Bus, store: SpentStore, place: Place, governance: Callable[[], Governance], regions: Regions, clock: Clock
    ) -> None:
        """Deliver what waits in ``store`` for the enforcer ``place``, to ``regions``, one after the other."""
        self._bus = bus
        self._store = store
        self._document = place.document.envelope
        self._token = subjects.short(place.document.claims.subject)
        self._governance = governance
        self._regions = regions
        self._clock = clock
        self._taken: dict[str, _Taken] = {}
        self._coming = 0
        self._came = 0
        """Counts arrivals, so that a round that began before one does not speak for it."""
        self._wake = asyncio.Event()
        self._taken_in = asyncio.Event()
        self.counters: Counter[str] = Counter()

    @contextmanager
    def coming(self) -> Generator[None]:
        """Inside, an outcome is being kept; afterwards it waits in the store."""
        self._coming += 1
        self._came += 1
        self._taken_in.clear()
        try:
            yield
        finally:
            self._coming -= 1
            self._wake.set()

    async def run(self) -> None:
        """Deliver for ever.

        Raises:
            MeshError: when the store fails; what the bus and governors do wrong is tried again.
        """
        tick_s = 2 * self._governance().roster.bounds.certify_ms / 1000
        pause_s = tick_s
        while True:
            self._wake.clear()
            before = self.counters["taken"] + self.counters["final"]
            waiting = await self.deliver()
            progress = self.counters["taken"] + self.counters["final"] > before
            pause_s = tick_s if progress or not waiting else min(2 * pause_s, _PAUSE_S_MAX)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause_s if waiting else None)

    async def wait_taken_in(self, wait_ms: int) -> bool:
        """Whether every outcome has a receipt within ``wait_ms``."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._taken_in.wait(), wait_ms / 1000)
        return self._taken_in.is_set()

    async def deliver(self) -> int:
        """One round: send what nobody has, prove what somebody has; how many outcomes still wait.

        Raises:
            MeshError: the store failed.
        """
        came = self._came if self._coming == 0 else -1
        pending = await self._store.pending(OUTBOX_OUTCOMES_MAX)
        # Gates of one identity share a store: what a sibling has proved is no longer mine to wait for.
        self._taken = {item.id: self._taken[item.id] for item in pending if item.id in self._taken}
        stall_ms = self._governance().roster.bounds.attest_stall_ms
        now_ms = self._clock.now_ms()
        for item in pending:
            taken = self._taken.get(item.id)
            if taken is not None and now_ms - taken.at_ms > stall_ms:  # rule 3
                del self._taken[item.id]
                self._rotate("stalled")
        for batch in _batches([item for item in pending if item.id not in self._taken]):
            await self._send(batch)
        if came == self._came and all(item.id in self._taken for item in pending):
            self._taken_in.set()
        final = await self._prove([item.id for item in pending])
        if final:
            await self._store.acknowledge(final)
            self.counters["final"] += len(final)
            for identity in final:
                del self._taken[identity]
        return len(pending) - len(final)

    async def _send(self, batch: Sequence[Pending]) -> None:
        request = OutcomeRequest(identity=msgspec.Raw(self._document), outcomes=[msgspec.Raw(item.envelope) for item in batch])
        refused = False
        for _ in self._regions.every:
            try:
                subject = subjects.outcome(self._regions.current, self._token)
                message = await self._bus.request(subject, pack(request), timeout_ms=_ASK_MS)
                answer = unpack(_OUTCOME_ANSWER, message.data)
                if isinstance(answer, RefusedAnswer):
                    refused = True
                    raise Refused("unrecorded", f"{answer.code}: {answer.detail}"[:200])
                self._take(batch, answer)
                return
            except MeshError as error:
                _log.info("outcomes not taken in %s: %s", self._regions.current, error)
                self._rotate(error.code)
        if refused and len(batch) > 1:  # rule 4
            for item in batch:
                await self._send([item])

    def _take(self, batch: Sequence[Pending], answer: OutcomeAnswer) -> None:
        if len(answer.receipts) != len(batch):
            raise Refused("unrecorded", f"{len(answer.receipts)} receipts for {len(batch)} outcomes")
        for item, receipt in zip(batch, answer.receipts, strict=True):
            self._taken[item.id] = _Taken(check_receipt(bytes(receipt), item.id, self._governance()), self._clock.now_ms())
            self.counters["taken"] += 1

    def _rotate(self, why: str) -> None:
        self.counters[why] += 1
        self._regions.turn()

    async def _prove(self, ids: Sequence[str]) -> list[str]:
        final = list[str]()
        waiting = set[str]()
        places = sorted((self._taken[identity].record.index, identity) for identity in ids if identity in self._taken)
        for _, identity in places:
            record = self._taken[identity].record
            if record.origin in waiting:  # what comes after a record that is not final is not final either
                continue
            if await self._is_final(identity, record):
                final.append(identity)
            else:
                waiting.add(record.origin)
        return final

    async def _is_final(self, identity: str, record: RecordRef) -> bool:
        # Each mirrors the others, so any will do when the owner is away, or unknown while the root has forked the rosters.
        members = [member.name for member in self._governance().roster.members]
        for member in sorted(members, key=lambda name: name != record.origin.split("/")[1]):
            try:
                ask = pack(Prove(origin=record.origin, index=record.index))
                message = await self._bus.request(subjects.sync(member), ask, timeout_ms=_ASK_MS)
                answer = unpack(_PROVE_ANSWER, message.data)
                if isinstance(answer, Proved):
                    return self._verify(answer, identity, record)
            except MeshError as error:
                self.counters[error.code] += 1
        return False

    def _verify(self, answer: Proved, identity: str, record: RecordRef) -> bool:
        if not answer.proof or not answer.batch.records:
            return False
        leaf = bytes(answer.batch.records[0])
        said = read_record(leaf)
        if leaf_hash(leaf).hex() != record.leaf or not isinstance(said, OutcomeRecorded) or said.outcome != identity:
            raise Refused("bad_proof", f"{record.origin} {record.index} is another record")
        proof = TlogProof.parse(answer.proof.encode())
        if proof.index != record.index:
            raise Refused("bad_proof", f"{record.origin} {record.index}: a proof of {proof.index}")
        governance = self._governance()
        roster, rosters = governance.roster, governance.rosters
        log = log_verifier(record.origin, rosters.owner(record.origin).log_key)
        final_under(
            rosters.chain_with(roster), lambda attesters, k: proof.verify(leaf, log=log, cosigners=attesters, k=k), trusted=roster.epoch
        )
        return True


def _batches(pending: Sequence[Pending]) -> list[list[Pending]]:
    found = list[list[Pending]]()
    room = 0
    for item in pending:
        if not found or len(found[-1]) == BATCH_EVENTS_MAX or len(item.envelope) > room:
            found.append([])
            room = _BATCH_BYTES
        found[-1].append(item)
        room -= len(item.envelope)
    return found
