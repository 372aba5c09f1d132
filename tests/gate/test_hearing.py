"""An enforcer says what it has heard once it acts by it, until a governor has recorded it, and never sooner."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.heartbeat import reaches
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.log.record import EnforcerHeard, read_record
from mesh.core.messages import HeardRequest, LawBatch, OutcomeAnswer, RefusedAnswer, pack, unpack
from mesh.core.run.heard import Heard
from mesh.errors import Unavailable
from mesh.gate.core import Core
from mesh.gate.errors import Denied
from mesh.gate.hearing import EVERY_S
from mesh.protocol.hearing import is_heard
from tests.gate.wire import FakeBus, opened, wish
from tests.support.factory import MESH, T0, Lab, sign
from tests.support.heard import request, word


def revocations(lab: Lab, count: int) -> list[Statement[Revocation]]:
    """A stream of so many, the first of which revokes the lab's workload."""
    made = list[Statement[Revocation]]()
    for number in range(1, count + 1):
        target = Target(type="subject", value="spiffe://lab/agent/anna" if number == 1 else f"spiffe://lab/agent/{number}")
        claims = Revocation(
            mesh=MESH,
            revoker=lab.revoker.public,
            sequence=number,
            previous=made[-1].id if made else "",
            since="",
            target=target,
            spares=[],
            reason="",
            issued_ms=T0,
        )
        made.append(envelope.read(Revocation, sign(claims, lab.revoker)))
    return made


def learns(core: Core, *said: Statement[Revocation]) -> None:
    core.outlook.learn(pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in said])))


def words(bus: FakeBus) -> list[Heard]:
    """All that are in the governors' own logs, in the order in which they were said."""
    found = dict[str, Heard]()
    for node in bus.mesh.nodes.values():
        for record in map(read_record, node.logs.get(node.origin, [])):
            if isinstance(record, EnforcerHeard):
                found[record.heard] = envelope.read(Heard, node.bodies[record.heard]).claims
    return sorted(found.values(), key=lambda item: item.sequence)


async def until(done: Callable[[], bool], wait_s: float = 6.0) -> None:
    for _ in range(int(wait_s / 0.02)):
        if done():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not happen")


def watched(bus: FakeBus, look: Callable[[Heard], None]) -> None:
    """Show every word at the moment in which it is sent."""
    request = bus.request

    async def looking(subject: str, data: bytes, *, timeout_ms: int) -> object:
        if is_heard(data):
            look(envelope.read(Heard, bytes(unpack(HeardRequest, data).heard)).claims)
        return await request(subject, data, timeout_ms=timeout_ms)

    bus.request = looking  # type: ignore[assignment,method-assign]  # the same with a look before


async def test_a_fresh_boot_says_once_by_what_it_acts(core: Core, bus: FakeBus, lab: Lab) -> None:
    await until(lambda: len(words(bus)) == 1)
    await asyncio.sleep(3 * EVERY_S)
    (said,) = words(bus)
    assert said.frontier == list(core.outlook.governance.frontier)
    assert (said.enforcer, said.boot, said.sequence) == (lab.place_key.public, "b1" * 32, 1)
    assert core.teller.counters["recorded"] == 1


async def test_nothing_is_said_before_k_members_have_answered(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    bus.silent = True
    bus.spoil = lambda subject, _data, answer: pack(RefusedAnswer(code="draining", detail="")) if ".sync." in subject else answer
    core = await opened(lab, bus, tmp_path / "spent.db")
    learns(core, *revocations(lab, 1))
    await asyncio.sleep(3 * EVERY_S)
    assert not [subject for subject in bus.asked if ".outcome." in subject]
    bus.silent, bus.spoil = False, None
    await until(lambda: len(words(bus)) == 1)
    await core.close(wait_ms=0)


async def test_what_is_said_is_in_force_when_it_is_said(core: Core, bus: FakeBus, lab: Lab) -> None:
    await until(lambda: len(words(bus)) == 1)
    (revocation,) = revocations(lab, 1)
    held = list[bool]()

    def look(said: Heard) -> None:
        held.append(said.frontier == list(core.outlook.view().governance.frontier))

    watched(bus, look)
    learns(core, revocation)
    with pytest.raises(Denied, match="revoked"):
        await core.present(wish(), await core.request(wish()), lambda: None)
    await until(lambda: len(words(bus)) == 2)
    assert held
    assert all(held)
    assert reaches(words(bus)[-1].frontier, stream_of(lab.revoker.public), 1, revocation.id)


async def test_a_flood_of_changes_becomes_few_words_and_the_last_says_all(core: Core, bus: FakeBus, lab: Lab) -> None:
    await until(lambda: len(words(bus)) == 1)
    made, sent = revocations(lab, 40), list[Heard]()
    watched(bus, sent.append)
    for revocation in made:
        learns(core, revocation)
        await asyncio.sleep(0.01)
    await until(lambda: reaches(words(bus)[-1].frontier, stream_of(lab.revoker.public), 40, made[-1].id))
    numbers = [said.sequence for said in sent]
    assert len(set(numbers)) <= 40 * 0.05 / EVERY_S + 3
    assert numbers == sorted(numbers)
    assert set(numbers) == set(range(2, max(numbers) + 1)), "dense in what was sent"


async def test_it_is_brought_to_another_governor_until_one_has_recorded_it(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    refusals = [b"garbage", pack(RefusedAnswer(code="overloaded", detail="")), pack(OutcomeAnswer(receipts=[]))]
    asked = list[str]()

    def spoil(subject: str, data: bytes, answer: bytes) -> bytes:
        if not is_heard(data):
            return answer
        asked.append(subject.split(".")[2])
        if refusals:
            return refusals.pop(0)
        if len(asked) == 4:
            raise Unavailable("unreachable", subject)
        return answer

    bus.spoil = spoil
    core = await opened(lab, bus, tmp_path / "spent.db")
    await until(lambda: core.teller.counters["recorded"] == 1)
    assert asked == ["eu", "us", "ap", "sa", "eu"]
    await asyncio.sleep(3 * EVERY_S)
    assert len(asked) == 5, "what is recorded is brought no more"
    await core.close(wait_ms=0)


async def test_what_is_newer_takes_the_place_of_what_is_not_recorded(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    down = [True]

    def spoil(_subject: str, data: bytes, answer: bytes) -> bytes:
        return pack(RefusedAnswer(code="unavailable", detail="")) if is_heard(data) and down[0] else answer

    bus.spoil = spoil
    core = await opened(lab, bus, tmp_path / "spent.db")
    await until(lambda: core.teller.counters["unavailable"] >= 1)
    made, sent = revocations(lab, 2), list[Heard]()
    learns(core, *made)
    watched(bus, sent.append)
    await until(lambda: bool(sent))
    down[0] = False
    await until(lambda: core.teller.counters["recorded"] == 1)
    assert {said.sequence for said in sent} == {2}
    await core.close(wait_ms=0)


async def test_a_receipt_for_something_else_is_none(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    first = list[bytes]()

    def spoil(_subject: str, data: bytes, answer: bytes) -> bytes:
        if not is_heard(data):
            return answer
        first.append(answer)
        return first[0]

    bus.spoil = spoil
    core = await opened(lab, bus, tmp_path / "spent.db")
    await until(lambda: core.teller.counters["recorded"] == 1)
    learns(core, *revocations(lab, 1))
    await until(lambda: core.teller.counters["unrecorded"] >= 2)
    assert core.teller.counters["recorded"] == 1
    await core.close(wait_ms=0)


async def test_what_another_boot_has_overtaken_is_said_anew(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    others = list[int]()

    async def overtake(subject: str) -> None:
        if ".outcome." in subject and not others:
            await asyncio.sleep(0)
            others.append(bus.time.now_ms() + 200)  # its clock is ahead, as far as clocks may be
            other = word(lab, at_ms=others[0], boot="b9" * 32)
            bus.mesh.now_ms = bus.time.now_ms()
            for name in bus.regions.values():
                bus.mesh.report(name, request(other.envelope, lab.place_envelope))

    bus.hold = overtake
    core = await opened(lab, bus, tmp_path / "spent.db")
    await until(lambda: core.teller.counters["recorded"] == 1)
    said = [item for item in words(bus) if item.boot == "b1" * 32]
    assert core.teller.counters["superseded"] >= 1
    assert [(item.sequence, item.at_ms > others[0]) for item in said] == [(core.teller.counters["superseded"] + 1, True)]
    await core.close(wait_ms=0)


async def test_whether_it_is_recorded_or_not_work_runs(lab: Lab, bus: FakeBus, tmp_path: Path) -> None:
    bus.spoil = lambda _subject, data, answer: pack(RefusedAnswer(code="unavailable", detail="")) if is_heard(data) else answer
    core = await opened(lab, bus, tmp_path / "spent.db")
    work = await core.begin(wish(), lambda: None)
    assert work.refusal is None
    await core.close(wait_ms=0)
