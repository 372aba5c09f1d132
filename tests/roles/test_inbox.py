"""Every queue has its own bound, heartbeats come first, and no flood of one kind stops another."""

from collections.abc import Callable

import pytest

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
    HeartbeatArrived,
    IntentArrived,
    LawArrived,
    LineageArrived,
    OfferArrived,
    OutcomesArrived,
    Shed,
    SyncArrived,
    Tick,
)
from mesh.roles.inbox import Inbox, Queue

QUEUES: dict[str, tuple[int, Callable[[Inbox], bool]]] = {
    "urgent": (QUEUE_URGENT_MAX, lambda inbox: inbox.urgent.put(HeartbeatArrived(b""), 1)),
    "law": (QUEUE_LAW_MAX, lambda inbox: inbox.law.put(LawArrived(b""), 1)),
    "offers": (QUEUE_LAW_MAX, lambda inbox: inbox.offers.put(OfferArrived(0, b""), 1)),
    "lineage": (QUEUE_LINEAGE_MAX, lambda inbox: inbox.lineage.put(LineageArrived(b"", pulled=False), 1)),
    "syncs": (QUEUE_SYNCS_MAX, lambda inbox: inbox.syncs.put(SyncArrived(0, ""), 1)),
    "outcomes": (QUEUE_OUTCOMES_MAX, lambda inbox: inbox.outcomes.put(OutcomesArrived(0, b""), 1)),
    "intents": (QUEUE_REQUESTS_MAX, lambda inbox: inbox.intents.put(IntentArrived(0, b""), 1)),
}


@pytest.mark.parametrize("name", QUEUES)
def test_a_queue_takes_its_bound_and_not_one_more_and_leaves_the_others_alone(name: str) -> None:
    count_max, put = QUEUES[name]
    inbox = Inbox()
    assert all(put(inbox) for _ in range(count_max))
    assert not put(inbox)
    assert all(other(inbox) for kind, (_, other) in QUEUES.items() if kind != name)


def test_a_queue_is_bounded_in_bytes_and_has_room_again_once_they_are_taken() -> None:
    queue = Queue[str](10)
    assert queue.put("large", QUEUE_BYTES_MAX - 1)
    assert not queue.put("two bytes", 2)
    assert queue.put("one byte", 1)
    assert queue.take(1) == ["large"]
    assert queue.put("two bytes", 2)
    queue.clear()
    assert queue.fits(QUEUE_BYTES_MAX)
    assert not queue.fits(QUEUE_BYTES_MAX + 1)


def _flooded() -> Inbox:
    inbox = Inbox()
    for count_max, put in QUEUES.values():
        for _ in range(count_max):
            put(inbox)
    inbox.tick()
    return inbox


def test_when_everything_is_full_every_kind_has_places_in_a_turn_and_little_law_and_heartbeats_come_first() -> None:
    events = _flooded().take(BATCH_EVENTS_MAX)
    assert len(events) == BATCH_EVENTS_MAX
    assert [type(event) for event in events[:5]] == [Tick, LawArrived, LawArrived, OfferArrived, HeartbeatArrived]
    for kind, least in ((HeartbeatArrived, 20), (LineageArrived, 7), (SyncArrived, 7), (OutcomesArrived, 7), (IntentArrived, 15)):
        assert sum(isinstance(event, kind) for event in events) >= least


@pytest.mark.parametrize("room", range(BATCH_EVENTS_MAX + 1))
def test_no_more_is_taken_than_there_is_room_for_and_something_whenever_there_is(room: int) -> None:
    inbox = _flooded()
    assert len(inbox.take(room)) == room
    alone = Inbox()
    alone.intents.put(IntentArrived(0, b""), 1)
    assert len(alone.take(room)) == min(room, 1)


def test_a_heartbeat_never_waits_behind_records() -> None:
    inbox = Inbox()
    for _ in range(QUEUE_LINEAGE_MAX):
        inbox.lineage.put(LineageArrived(b"", pulled=False), 1)
    inbox.urgent.put(HeartbeatArrived(b"beat"), 4)
    assert inbox.take(1) == [HeartbeatArrived(b"beat")]


def test_syncs_are_handed_over_at_once_but_only_once_between_two_ticks() -> None:
    inbox = Inbox()
    first, second, third = (SyncArrived(number, "aa") for number in range(3))
    inbox.syncs.put(first, 0)
    assert inbox.ready
    assert inbox.take(BATCH_EVENTS_MAX) == [first]
    inbox.syncs.put(second, 0)
    inbox.syncs.put(third, 0)
    assert inbox.asked
    assert not inbox.ready
    assert inbox.take(BATCH_EVENTS_MAX) == []
    inbox.tick()
    inbox.tick()
    assert inbox.take(BATCH_EVENTS_MAX) == [Tick(), second, third]
    assert not inbox.asked
    assert inbox.take(BATCH_EVENTS_MAX) == []


def test_one_heartbeat_names_all_whose_syncs_are_handed_over_together() -> None:
    inbox = Inbox()
    for number in range(QUEUE_SYNCS_MAX):
        inbox.syncs.put(SyncArrived(number, "aa"), 0)
    assert len(inbox.take(BATCH_EVENTS_MAX)) == BATCH_EVENTS_MAX - 1


def test_what_was_shed_is_counted_by_its_code_and_takes_no_queue() -> None:
    inbox = Inbox()
    for _ in range(100_000):
        inbox.shed("overloaded")
    assert not inbox.ready
    inbox.tick()
    assert inbox.take(BATCH_EVENTS_MAX) == [Tick(), Shed("overloaded", 100_000)]


def test_what_may_revoke_is_taken_before_heartbeats_and_intents_and_a_few_at_a_time() -> None:
    inbox = Inbox()
    inbox.intents.put(IntentArrived(0, b""), 1)
    inbox.urgent.put(HeartbeatArrived(b""), 1)
    inbox.offers.put(OfferArrived(1, b""), 1)
    inbox.offers.put(OfferArrived(2, b""), 1)
    said = [LawArrived(b"published"), LawArrived(b"pulled", "us-1"), LawArrived(b"more")]
    for event in said:
        inbox.law.put(event, 1)
    assert inbox.take(BATCH_EVENTS_MAX) == [*said[:2], OfferArrived(1, b""), HeartbeatArrived(b""), IntentArrived(0, b"")]
    assert inbox.asked
    assert inbox.take(BATCH_EVENTS_MAX) == [said[2], OfferArrived(2, b"")]
    assert not inbox.ready


def test_a_flood_of_offers_keeps_no_revocation_out() -> None:
    inbox = Inbox()
    while inbox.offers.put(OfferArrived(0, b""), 1):
        pass
    assert inbox.law.put(LawArrived(b""), 1)
    assert LawArrived(b"") in inbox.take(1)


def test_when_requests_are_forgotten_so_are_offers_but_not_what_members_say() -> None:
    inbox = Inbox()
    inbox.offers.put(OfferArrived(1, b""), 1)
    inbox.law.put(LawArrived(b""), 1)
    inbox.forget_requests()
    assert not inbox.asked
    assert inbox.take(BATCH_EVENTS_MAX) == [LawArrived(b"")]
