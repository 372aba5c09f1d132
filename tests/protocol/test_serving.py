"""Records leave in messages that any receiver can take, and no opening is ever published."""

from typing import Any, Final

import pytest

from mesh.core.bytes import canonical, envelope
from mesh.core.log.record import Denied, Noise, OutcomeRecorded, read_record
from mesh.core.messages import LineageBatch, unpack
from mesh.limits import BATCH_RECORDS_MAX, MESSAGE_BYTES_MAX
from mesh.protocol.serving import announce_batches, body_ids, opening_ids, pull_answer
from tests.protocol.machines import LAB, MESH, NOW, OWNER, Owner, intent_of

ORIGIN: Final = LAB.roster.origin(OWNER)
PLACE: Final[dict[str, Any]] = {"mesh": MESH, "origin": ORIGIN, "index": 0, "at_ms": NOW}


def _small(count: int) -> Owner:
    owner = Owner()
    for index in range(count):
        record = Denied(
            mesh=MESH,
            origin=ORIGIN,
            index=index,
            at_ms=NOW,
            intent=f"{index:064x}",
            identity="cd" * 32,
            subject="x",
            code="stale",
            detail="",
        )
        owner.append(canonical.encode(record))
    return owner


def _large(count: int) -> Owner:
    owner = Owner()
    for number in range(count):
        _, intent = intent_of(number, created_ms=NOW, expires_ms=NOW + 9_000, purpose="p" * 1_000, params={"amount": 1})
        owner.decide(LAB.request(intent, []))
    return owner


def _read(messages: list[bytes]) -> list[LineageBatch]:
    assert all(len(message) <= MESSAGE_BYTES_MAX for message in messages)
    return [unpack(LineageBatch, message) for message in messages]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (BATCH_RECORDS_MAX, [BATCH_RECORDS_MAX]),
        (BATCH_RECORDS_MAX + 1, [BATCH_RECORDS_MAX, 1]),
        (3 * BATCH_RECORDS_MAX, [BATCH_RECORDS_MAX] * 3),
    ],
)
def test_records_are_cut_at_the_most_that_a_message_may_hold(count: int, sizes: list[int]) -> None:
    owner = _small(count)
    batches = _read(announce_batches(ORIGIN, 5, owner.leaves, {}, b"note\n"))
    assert [len(batch.records) for batch in batches] == sizes
    assert [batch.first for batch in batches] == [5 + sum(sizes[:at]) for at in range(len(sizes))]
    assert [bytes(raw) for batch in batches for raw in batch.records] == owner.leaves


def test_the_note_goes_with_the_last_message_only() -> None:
    batches = _read(announce_batches(ORIGIN, 0, _small(300).leaves, {}, b"note\n"))
    assert [batch.checkpoint for batch in batches] == ["", "", "note\n"]


def test_a_statement_stands_in_a_message_once_however_many_records_name_it() -> None:
    owner = _large(1)
    fat = dict.fromkeys(owner.bodies, b'{"fat":"' + b"x" * 120_000 + b'"}')
    (batch,) = _read(announce_batches(ORIGIN, 0, owner.leaves * 40, fat, b"note\n"))
    assert (len(batch.records), len(batch.bodies)) == (40, 3)


def test_no_message_is_larger_than_the_bus_takes_and_every_one_says_what_it_must() -> None:
    owner = _small(200)
    fat = {f"{index:064x}": b'{"fat":"' + b"x" * 20_000 + b'"}' for index in range(200)}
    note = ("\N{EM DASH} " * 1_000 + "\n").encode()
    messages = announce_batches(ORIGIN, 0, owner.leaves, fat, note)
    batches = _read(messages)
    assert [bytes(raw) for batch in batches for raw in batch.records] == owner.leaves
    assert all(len(batch.bodies) == len(batch.records) for batch in batches)
    assert 5 <= len(batches) <= 6
    assert max(map(len, messages)) > MESSAGE_BYTES_MAX * 9 // 10


def test_a_statement_that_is_not_held_is_left_out() -> None:
    owner = _large(2)
    name = read_record(owner.leaves[0]).intent  # type: ignore[union-attr]  # it is a decision
    del owner.bodies[name]
    (batch,) = _read(announce_batches(ORIGIN, 0, owner.leaves, owner.bodies, b""))
    assert {envelope.identify(bytes(raw))[1] for raw in batch.bodies} == set(owner.bodies)


def test_openings_are_pulled_never_published() -> None:
    owner = Owner()
    _, intent, openings = LAB.intent(1, memo="private", at_ms=NOW)
    owner.decide(LAB.request(intent, openings))
    (published,) = announce_batches(ORIGIN, 0, owner.leaves, owner.bodies, b"")
    assert b"private" not in published
    pulled = unpack(LineageBatch, pull_answer(ORIGIN, 0, owner.leaves, owner.bodies, owner.openings, b""))
    assert [item.openings for item in pulled.openings] == [openings]


def test_a_pull_answers_with_as_much_as_fits_into_one_message() -> None:
    owner = _small(300)
    batch = unpack(LineageBatch, pull_answer(ORIGIN, 7, owner.leaves, {}, {}, b"note\n"))
    assert (batch.origin, batch.first, len(batch.records), batch.checkpoint) == (ORIGIN, 7, BATCH_RECORDS_MAX, "note\n")
    fat = {f"{index:064x}": b'{"fat":"' + b"x" * 100_000 + b'"}' for index in range(300)}
    message = pull_answer(ORIGIN, 0, owner.leaves, fat, {}, b"note\n")
    assert len(message) <= MESSAGE_BYTES_MAX
    assert len(unpack(LineageBatch, message).records) == 9


def test_a_pull_of_nothing_is_answered_with_the_note() -> None:
    batch = unpack(LineageBatch, pull_answer(ORIGIN, 3, [], {}, {}, b"note\n"))
    assert (batch.records, batch.first, batch.checkpoint) == ([], 3, "note\n")


def test_each_record_names_the_statements_that_whoever_examines_it_needs() -> None:
    owner = _large(1)
    decision = read_record(owner.leaves[0])
    outcome = OutcomeRecorded(**PLACE, event="finished", outcome="aa" * 32, identity="bb" * 32, intent="cc" * 32, authorization="dd" * 32)
    assert set(body_ids(decision)) == set(owner.bodies)
    assert opening_ids(decision) == (decision.intent,)  # type: ignore[union-attr]  # it is a decision
    assert (body_ids(outcome), opening_ids(outcome)) == (("aa" * 32, "bb" * 32), ())
    assert body_ids(Denied(**PLACE, intent="ee" * 32, identity="cd" * 32, subject="", code="stale", detail="")) == ("ee" * 32, "cd" * 32)
    assert body_ids(Noise(**PLACE, code="stale", count=1, from_ms=0, to_ms=0)) == ()
