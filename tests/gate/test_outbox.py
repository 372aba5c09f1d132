"""An outcome is forgotten only when k members attested its record, whoever lies or is away."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mesh.adapters.spent import Pending
from mesh.core.bytes import envelope
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import OutcomeRecorded
from mesh.core.log.tlogproof import TlogProof
from mesh.core.messages import OutcomeAnswer, OutcomeRequest, Proved, RefusedAnswer, pack, unpack
from mesh.core.run.authorization import Receipt, RecordRef
from mesh.core.run.outcome import Finished
from mesh.gate.core import Core
from mesh.gate.outbox import _batches
from mesh.limits import BATCH_EVENTS_MAX
from mesh.protocol.proving import record_of
from tests.core.kit import refuses
from tests.gate.wire import FakeBus, events_of, wish
from tests.support.epochs import EpochLab, attested_again, lived
from tests.support.factory import secret, sign_draft

DONE = Finished(status=0, outputs=[], duration_ms=1)


async def run(core: Core) -> None:
    await core.end(await core.begin(wish(), lambda: None), DONE)


async def backlog_empties(core: Core, wait_s: float = 5.0) -> bool:
    for _ in range(int(wait_s / 0.05)):
        if await core._store.backlog() == 0:
            return True
        await asyncio.sleep(0.05)
    return False


async def test_outcomes_are_forgotten_once_they_are_final(core: Core, bus: FakeBus) -> None:
    await run(core)
    assert await core._store.backlog() == 2
    assert await backlog_empties(core)
    assert core.outbox.counters["final"] == 2
    assert events_of(bus) == ["started", "finished"]


async def test_without_finality_nothing_is_forgotten(core: Core, bus: FakeBus) -> None:
    for name in ("ap-1", "sa-1"):
        bus.mesh.nodes[name].up = False
    await run(core)
    assert await core.outbox.wait_taken_in(2_000)
    await asyncio.sleep(1.0)
    assert await core._store.backlog() == 2
    for name in ("ap-1", "sa-1"):
        bus.mesh.nodes[name].up = True
    assert await backlog_empties(core)


async def test_another_region_takes_them_when_the_home_region_is_away(core: Core, bus: FakeBus) -> None:
    bus.mesh.nodes["eu-1"].up = False
    await run(core)
    assert await backlog_empties(core)
    assert events_of(bus) == ["started", "finished"]
    assert "mesh.v1.us.outcome" in [subject.rpartition(".")[0] for subject in bus.asked]


async def test_when_the_taker_is_away_another_member_proves_its_records(core: Core, bus: FakeBus) -> None:
    held = asyncio.Event()

    async def hold(subject: str) -> None:
        if ".sync." in subject and not held.is_set():
            await asyncio.sleep(0.05)

    bus.hold = hold
    bus.spoil = lambda subject, _data, answer: (
        pack(RefusedAnswer(code="draining", detail="")) if subject == "mesh.v1.sync.eu-1" and held.is_set() else answer
    )
    held.set()
    await run(core)
    assert await backlog_empties(core)
    assert "mesh.v1.sync.us-1" in bus.asked


def _receipts(answer: bytes, key: str, **changes: Any) -> bytes:
    receipts = unpack(OutcomeAnswer, answer).receipts
    claims = [msgspec.structs.replace(envelope.read(Receipt, bytes(raw)).claims, **changes) for raw in receipts]
    return pack(OutcomeAnswer(receipts=[msgspec.Raw(sign_draft(envelope.draft(one), secret(key))) for one in claims]))


Change = Callable[[bytes], bytes]
FORGED: dict[str, Change] = {
    "a stranger's receipts": lambda answer: _receipts(answer, "mallory"),
    "receipts for something else": lambda answer: _receipts(answer, "eu decision", statement="11" * 32),
    "too few receipts": lambda _answer: pack(OutcomeAnswer(receipts=[])),
    "a refusal": lambda _answer: pack(RefusedAnswer(code="overloaded", detail="")),
    "junk": lambda _answer: b"\x00",
}


@pytest.mark.parametrize("what", FORGED)
async def test_what_is_no_receipt_sends_them_to_the_next_region(core: Core, bus: FakeBus, what: str) -> None:
    bus.spoil = lambda subject, _data, answer: FORGED[what](answer) if ".eu.outcome." in subject else answer
    await run(core)
    assert await core.outbox.wait_taken_in(3_000)
    taken = {value.record.origin for value in core.outbox._taken.values()}
    assert "lab/eu-1/e1" not in taken
    assert await backlog_empties(core)


def _proved(answer: bytes, **changes: Any) -> bytes:
    proved: Proved | RefusedAnswer = unpack(Proved | RefusedAnswer, answer)  # type: ignore[arg-type]
    if not isinstance(proved, Proved) or not proved.proof:
        return answer
    proof = msgspec.structs.replace(TlogProof.parse(proved.proof.encode()), **changes)
    return pack(msgspec.structs.replace(proved, proof=proof.encode().decode()))


def _other_record(answer: bytes) -> bytes:
    proved: Proved | RefusedAnswer = unpack(Proved | RefusedAnswer, answer)  # type: ignore[arg-type]
    if not isinstance(proved, Proved):
        return answer
    leaf = bytes(proved.batch.records[0]).replace(b'"at_ms":1', b'"at_ms":2', 1)
    return pack(msgspec.structs.replace(proved, batch=msgspec.structs.replace(proved.batch, records=[msgspec.Raw(leaf)])))


LIES: dict[str, Change] = {
    "a proof of another place": lambda answer: _proved(answer, index=0),
    "another path": lambda answer: _proved(answer, path=(b"\x00" * 32,)),
    "another record": _other_record,
    "no record": lambda answer: pack(RefusedAnswer(code="not_found", detail="")),
}


@pytest.mark.parametrize("what", LIES)
async def test_a_proof_that_does_not_hold_is_no_proof(core: Core, bus: FakeBus, what: str) -> None:
    bus.spoil = lambda subject, _data, answer: LIES[what](answer) if ".sync." in subject else answer
    await run(core)
    await asyncio.sleep(1.2)
    assert await core._store.backlog() == 2
    bus.spoil = None
    assert await backlog_empties(core)


async def test_a_receipt_without_proof_is_given_up_and_the_outcome_goes_elsewhere(core: Core, bus: FakeBus) -> None:
    bus.spoil = lambda subject, _data, answer: pack(RefusedAnswer(code="not_found", detail="")) if ".sync." in subject else answer
    await run(core)
    assert await core.outbox.wait_taken_in(2_000)
    bus.time.ahead_ms += 5_001
    bus.spoil = None
    for _ in range(60):
        await asyncio.sleep(0.05)
        if core.outbox.counters["stalled"]:
            break
    assert core.outbox.counters["stalled"] or await backlog_empties(core)
    assert await backlog_empties(core)


async def test_one_outcome_that_nobody_takes_holds_up_no_other(core: Core, bus: FakeBus) -> None:
    poison = list[bytes]()

    def spoil(subject: str, data: bytes, answer: bytes) -> bytes:
        if ".outcome." not in subject:
            return answer
        outcomes = [bytes(raw) for raw in unpack(OutcomeRequest, data).outcomes]
        if not poison:
            poison.append(outcomes[0])
        return pack(RefusedAnswer(code="malformed", detail="")) if poison[0] in outcomes else answer

    bus.spoil = spoil
    await run(core)
    await run(core)
    for _ in range(100):
        await asyncio.sleep(0.05)
        if await core._store.backlog() == 1:
            break
    assert [item.envelope for item in await core._store.pending(10)] == poison


async def test_silence_is_no_refusal_so_nothing_is_asked_one_by_one(core: Core, bus: FakeBus) -> None:
    for node in bus.mesh.nodes.values():
        node.up = False
    items = [_pending(number, 10) for number in range(8)]
    bus.asked.clear()
    await core.outbox._send(items)
    assert sorted(bus.asked) == sorted(f"mesh.v1.{region}.outcome.{core.outbox._token}" for region in bus.regions)


async def test_what_a_sibling_has_delivered_is_waited_for_no_longer(core: Core, bus: FakeBus) -> None:
    for name in ("ap-1", "sa-1"):
        bus.mesh.nodes[name].up = False  # taken in, and not final
    await run(core)
    assert await core.outbox.wait_taken_in(2_000)
    taken = list(core.outbox._taken)
    await core._store.acknowledge(taken[:1])
    await core.outbox.deliver()
    assert list(core.outbox._taken) == taken[1:]


async def test_what_was_not_taken_in_is_sent_by_the_next_boot(core: Core, bus: FakeBus) -> None:
    bus.spoil = lambda subject, _data, answer: pack(RefusedAnswer(code="draining", detail="")) if ".outcome." in subject else answer
    await run(core)
    assert not await core.outbox.wait_taken_in(300)
    assert len(await core._store.pending(10)) == 2


def _pending(number: int, size: int) -> Pending:
    return Pending(f"{number:064x}", "00" * 32, number, b"x" * size)


@pytest.mark.parametrize(("count", "batches"), [(0, 0), (1, 1), (BATCH_EVENTS_MAX, 1), (BATCH_EVENTS_MAX + 1, 2)])
def test_a_message_holds_a_bounded_number(count: int, batches: int) -> None:
    found = _batches([_pending(number, 10) for number in range(count)])
    assert len(found) == batches
    assert [item.sequence for batch in found for item in batch] == list(range(count))


def test_a_message_holds_a_bounded_number_of_bytes() -> None:
    assert [len(batch) for batch in _batches([_pending(number, 200_000) for number in range(5)])] == [2, 2, 1]


async def test_keys_of_who_has_left_make_nobody_forget_an_outcome(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    story = lived(1)
    answers = {record: answer for answer in story.answers(story.authorization) if isinstance(record := record_of(answer), OutcomeRecorded)}
    record, answer = next(iter(answers.items()))
    leaf = leaf_hash(bytes(answer.batch.records[0])).hex()
    place = RecordRef(origin=record.origin, index=record.index, leaf=leaf)
    monkeypatch.setattr(core.outbox, "_governance", lambda: EpochLab(3).governance)
    there = msgspec.structs.replace(answer, proof=attested_again(answer.proof, "ap-1", "sa-1", "us-1"))
    assert core.outbox._verify(there, record.outcome, place), "three of those who attested it are there still"
    drawer = msgspec.structs.replace(answer, proof=attested_again(answer.proof, "eu-1", "ap-1", "us-1"))
    with refuses("former_certificate"):
        core.outbox._verify(drawer, record.outcome, place)
