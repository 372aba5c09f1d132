"""What waits for the next step: a queue for each kind, each bounded in count and bytes, so that none can fill another's place.

Rules
-----
1. A few governance statements come first: what they deny is denied in that very turn. Then heartbeats and cosignatures, which
   never wait behind records; then records, syncs, outcomes, intents.
2. However many wait in a queue, those behind it keep some places of every turn: a flood delays the others, it does not stop them.
3. Syncs are handed over once between two ticks, so there is one echoing heartbeat a tick, however many ask.
4. Ticks and counts of what was shed are never queued: one tick waits at most, counts add up.

Not here: who is told that a queue is full (:mod:`mesh.roles.governor`).
"""

from collections import Counter, deque
from typing import Final, Generic, TypeVar

from mesh.limits import (
    BATCH_EVENTS_MAX,
    QUEUE_BYTES_MAX,
    QUEUE_LAW_MAX,
    QUEUE_LINEAGE_MAX,
    QUEUE_OUTCOMES_MAX,
    QUEUE_REQUESTS_MAX,
    QUEUE_SYNCS_MAX,
    QUEUE_URGENT_MAX,
)
from mesh.protocol.events import (
    AccusationArrived,
    BarrierArrived,
    CosigArrived,
    Event,
    FromMember,
    HeartbeatArrived,
    IntentArrived,
    Judged,
    LawArrived,
    LineageArrived,
    NoteArrived,
    OfferArrived,
    OutcomesArrived,
    Shed,
    SyncArrived,
    Tick,
)

__all__ = ["Inbox", "Queue"]

E = TypeVar("E")

_TURN_INTENTS: Final = 32
"""Decided without a look at anything else: some 6 ms."""

_TURN_LAW: Final = 2
"""Each may bring a hundred statements to verify: some 10 ms."""
_TURN_OFFERS: Final = 1
_TURN_SYNCS: Final = BATCH_EVENTS_MAX - 1
"""Named by one heartbeat, which also names its own boot."""


class Queue(Generic[E]):
    """First in, first out, bounded in count and bytes."""

    def __init__(self, count_max: int) -> None:
        """At most ``count_max`` events, and ``QUEUE_BYTES_MAX`` bytes."""
        self._count_max = count_max
        self._events: deque[tuple[E, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events)

    def fits(self, size: int) -> bool:
        """Whether an event of ``size`` bytes has a place."""
        return len(self._events) < self._count_max and self._bytes + size <= QUEUE_BYTES_MAX

    def put(self, event: E, size: int) -> bool:
        """Queue an event of ``size`` bytes if it fits; whether it did."""
        if not self.fits(size):
            return False
        self._events.append((event, size))
        self._bytes += size
        return True

    def take(self, count: int) -> list[E]:
        """The oldest ``count`` events, or as many as there are."""
        taken = [self._events.popleft() for _ in range(min(count, len(self._events)))]
        self._bytes -= sum(size for _, size in taken)
        return [event for event, _ in taken]

    def clear(self) -> None:
        """Forget all of them."""
        self._events.clear()
        self._bytes = 0


class Inbox:
    """All queues of one governor."""

    def __init__(self) -> None:
        """Empty."""
        self.urgent: Queue[BarrierArrived | HeartbeatArrived | CosigArrived] = Queue(QUEUE_URGENT_MAX)
        self.lineage: Queue[LineageArrived | NoteArrived | AccusationArrived] = Queue(QUEUE_LINEAGE_MAX)
        self.law: Queue[LawArrived] = Queue(QUEUE_LAW_MAX)
        self.offers: Queue[OfferArrived] = Queue(QUEUE_LAW_MAX)
        """Apart from what members say: a flood of offers must not keep a revocation out."""
        self.syncs: Queue[SyncArrived] = Queue(QUEUE_SYNCS_MAX)
        self.outcomes: Queue[OutcomesArrived] = Queue(QUEUE_OUTCOMES_MAX)
        self.intents: Queue[IntentArrived] = Queue(QUEUE_REQUESTS_MAX)
        self.judged: list[Judged] = []
        """What this node has done by itself: one for each manifest, erasure or floor that their signers made."""
        self._shed: Counter[str] = Counter()
        self._ticked = False
        self._echoes = True
        """Whether no syncs were handed over since the last tick."""

    @property
    def ready(self) -> bool:
        """Whether :meth:`take` has anything."""
        syncs = self._echoes and self.syncs
        waits = self.urgent or self.law or self.offers or self.lineage or syncs or self.outcomes or self.intents
        return bool(self._ticked or self.judged or waits)

    @property
    def asked(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self.offers or self.syncs or self.outcomes or self.intents)

    def tick(self) -> None:
        """Time has passed."""
        self._ticked = self._echoes = True

    def arrived(self, event: FromMember) -> bool:
        """Queue what another member said, whether it was asked or not; whether there was a place."""
        size = len(event.data)
        if isinstance(event, LawArrived):
            return self.law.put(event, size)
        if isinstance(event, BarrierArrived | HeartbeatArrived | CosigArrived):
            return self.urgent.put(event, size)
        return self.lineage.put(event, size)

    def shed(self, code: str) -> None:
        """Count a request that was refused."""
        self._shed[code] += 1

    def take(self, room: int) -> list[Event]:
        """At most ``room`` events for the next step."""
        if room <= 0:
            return []
        events: list[Event] = []
        ticked, self._ticked = self._ticked, False
        if ticked:
            events.append(Tick())
            while self._shed and len(events) < room:
                events.append(Shed(*self._shed.popitem()))
        while self.judged and len(events) < room:
            events.append(self.judged.pop(0))
        left = room - len(events)
        intents = min(len(self.intents), left // 4)  # rule 2
        outcomes = min(len(self.outcomes), left // 8)
        syncs = min(len(self.syncs), left // 8) if self._echoes else 0
        lineage = min(len(self.lineage), left // 8)
        events += self.law.take(min(left, _TURN_LAW))  # rule 1
        events += self.offers.take(min(room - len(events), _TURN_OFFERS))
        events += self.urgent.take(room - len(events) - lineage - syncs - outcomes - intents)
        events += self.lineage.take(room - len(events) - syncs - outcomes - intents)
        if self._echoes:  # rule 3
            echoed = self.syncs.take(min(room - len(events) - outcomes - intents, _TURN_SYNCS))
            self._echoes = not echoed
            events += echoed
        events += self.outcomes.take(room - len(events) - intents)
        events += self.intents.take(min(room - len(events), _TURN_INTENTS))
        return events

    def forget_requests(self) -> None:
        """Forget whoever waits for an answer; the owner tells them."""
        for queue in (self.offers, self.syncs, self.outcomes, self.intents):
            queue.clear()
