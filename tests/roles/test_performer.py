"""While one step goes to the disk the next is made, and still nothing is sent before it is durable, nor in another order."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from mesh.adapters.clock import Clock, Reading
from mesh.adapters.signer import KeyFile, Signer
from mesh.adapters.store import Store
from mesh.core.bytes import envelope
from mesh.core.messages import Answer, Authorized, DeniedAnswer, RefusedAnswer, unpack
from mesh.core.run.authorization import Authorization
from mesh.errors import Unavailable
from mesh.limits import BATCH_EVENTS_MAX
from mesh.protocol.begin import begin
from mesh.protocol.events import IntentArrived, Tick
from mesh.protocol.governor import Machine
from mesh.protocol.step import Outgoing, Persist, Reply, Send
from mesh.roles.loading import load_state
from mesh.roles.performer import Performer
from tests.support.factory import T0, Lab

LAB = Lab(members=1, f=0, k=1)


class SlowDisk(Store):
    """Storage whose commits wait until they are let through."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.open_gate = asyncio.Event()
        self.open_gate.set()
        self.begun = 0
        self.fails_from = 1 << 30
        """The first commit that fails."""

    async def commit(self, effects: Sequence[Persist]) -> None:
        self.begun += 1
        number = self.begun
        await self.open_gate.wait()
        if number >= self.fails_from:
            raise Unavailable("storage_failed", "pulled out")
        await super().commit(effects)


class Forgetful(SlowDisk):
    """Storage that finds only one of the keys it is asked for at a time."""

    async def once(self, space: Literal["intent", "outcome"], keys: Mapping[str, int]) -> dict[str, int]:
        return dict(list((await super().once(space, keys)).items())[:1])


class Bench:
    """One governor without a bus."""

    def __init__(self, store: SlowDisk) -> None:
        keys = LAB.keys["eu-1"]
        clock = Clock(source=lambda: Reading(T0 + 1_000, 0))
        machine = Machine(LAB.governance, LAB.governance.roster.member("eu-1"), LAB.engine)
        self.store = store
        self.said: list[tuple[int, bytes]] = []
        self.woken = 0
        signer = Signer([KeyFile(use, key) for use, key in keys.items()])
        self.performer = Performer(machine, store, signer, clock, deliver=self._deliver, failpoint=lambda _: None, wake=self._wake)

    @classmethod
    async def at(cls, path: Path, kind: type[SlowDisk] = SlowDisk) -> "Bench":
        store = await kind.open(path / "node.db", owner="eu-1")
        assert isinstance(store, SlowDisk)
        bench = cls(store)
        machine = bench.performer.machine
        stored = await load_state(store, machine.governance, machine.me)
        await bench.performer.begin(begin(machine, stored, boot="b1" * 32, now_ms=T0 + 1_000))
        await bench.performer.take([Tick()])
        bench.said.clear()
        store.begun = 0
        return bench

    async def _deliver(self, item: Outgoing, data: bytes) -> None:
        if isinstance(item, Send) and isinstance(item.to, Reply):
            await asyncio.sleep(0)
            self.said.append((item.to.waiter, data))

    def _wake(self) -> None:
        self.woken += 1

    def ask(self, *numbers: int, waiter: int = 0) -> None:
        self.performer.fold([IntentArrived(waiter + number, request(number)) for number in numbers])

    async def done(self) -> None:
        while not (self.performer.idle or self.performer.failed):  # noqa: ASYNC110 -- the commit that follows is another task
            await asyncio.sleep(0.001)

    async def begun(self, commits: int) -> None:
        while self.store.begun < commits:  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.001)


def request(number: int) -> bytes:
    _, intent, openings = LAB.intent(number, at_ms=T0 + 1_000)
    return LAB.request(intent, openings)


def answer_in(data: bytes) -> Authorized | DeniedAnswer | RefusedAnswer:
    return unpack(Answer, data)  # type: ignore[arg-type]  # a union is a type here


def index_in(data: bytes) -> int:
    answer = answer_in(data)
    assert isinstance(answer, Authorized)
    return envelope.read(Authorization, bytes(answer.authorization)).claims.index


async def test_what_arrives_during_a_commit_shares_the_next_one(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    bench.store.open_gate.clear()
    for number in range(5):
        bench.ask(number)
        await bench.begun(1)
    bench.store.open_gate.set()
    await bench.done()
    assert bench.store.begun == 2
    assert [waiter for waiter, _ in bench.said] == [0, 1, 2, 3, 4]
    indices = [index_in(data) for _, data in bench.said]
    assert indices == list(range(indices[0], indices[0] + 5))
    await bench.store.close()


async def test_nothing_is_sent_and_nothing_believed_before_its_own_commit(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    before = bench.performer.state
    bench.store.open_gate.clear()
    bench.ask(1)
    bench.ask(2)
    await bench.begun(1)
    await asyncio.sleep(0.01)
    assert bench.said == []
    assert bench.performer.state is before
    assert not bench.performer.idle
    bench.store.open_gate.set()
    await bench.done()
    assert bench.performer.state.log.frontier.size == before.log.frontier.size + 2
    await bench.store.close()


async def test_a_step_takes_in_no_more_than_a_batch(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    bench.store.open_gate.clear()
    bench.ask(0)
    assert bench.performer.room == BATCH_EVENTS_MAX
    bench.ask(*range(1, BATCH_EVENTS_MAX))
    assert bench.performer.room == 1
    bench.ask(BATCH_EVENTS_MAX)
    assert bench.performer.room == 0
    bench.store.open_gate.set()
    await bench.done()
    assert bench.performer.room == BATCH_EVENTS_MAX
    await bench.store.close()


async def test_an_intent_that_comes_again_while_it_is_being_stored_gets_the_same_words(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    bench.store.open_gate.clear()
    bench.ask(1, 2)
    await bench.begun(1)
    bench.ask(3)
    bench.ask(2, waiter=100)
    bench.ask(4)
    bench.store.open_gate.set()
    await bench.done()
    said = {waiter: answer_in(data) for waiter, data in bench.said}
    assert sorted(said) == [1, 2, 3, 4, 102]
    first, again = said[2], said[102]
    assert isinstance(first, Authorized)
    assert isinstance(again, Authorized)
    assert bytes(first.authorization) == bytes(again.authorization)
    assert all(isinstance(said[number], Authorized) for number in (1, 3, 4))
    await bench.store.close()


async def test_what_arrives_while_a_step_is_made_again_is_answered_after_it(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    await bench.performer.take([IntentArrived(1, request(1))])
    bench.ask(1, 2, waiter=10)
    late = asyncio.create_task(_ask_until(bench, 3))
    await bench.done()
    await late
    await bench.done()
    said = {waiter: answer_in(data) for waiter, data in bench.said}
    assert isinstance(said[11], Authorized)
    assert isinstance(said[12], Authorized)
    assert {number: isinstance(said[number], Authorized) for number in range(100, 103)} == dict.fromkeys(range(100, 103), True)
    await bench.store.close()


async def _ask_until(bench: Bench, count: int) -> None:
    """Ask at every turn of the loop, so that some of it falls into the making again."""
    for number in range(count):
        await asyncio.sleep(0)
        bench.ask(100 + number)


async def test_the_same_intent_twice_in_one_commit_is_authorized_once(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    bench.store.open_gate.clear()
    bench.ask(9)
    await bench.begun(1)
    bench.ask(1)
    bench.ask(1, waiter=100)
    bench.store.open_gate.set()
    await bench.done()
    said = dict(bench.said)
    assert index_in(said[101]) == index_in(said[1])
    await bench.store.close()


async def test_a_failing_disk_discards_what_was_made_on_it_and_sends_what_was_durable(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    bench.store.fails_from = 2
    bench.store.open_gate.clear()
    bench.ask(1)
    await bench.begun(1)
    bench.ask(2)
    woken = bench.woken
    bench.store.open_gate.set()
    await bench.begun(2)  # the first is durable
    durable = bench.performer.state
    bench.ask(3)
    await bench.done()
    assert bench.performer.failed
    assert not bench.performer.idle
    assert bench.woken > woken
    with pytest.raises(Unavailable, match="pulled out") as no:
        bench.performer.check()
    assert no.value.code == "storage_failed"
    assert [waiter for waiter, _ in bench.said] == [1]
    assert bench.performer.state is durable
    assert bench.store.begun == 2, "nothing is tried on top of what failed"
    await bench.store.close()


async def test_what_was_found_in_one_try_is_known_in_the_next(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path, Forgetful)
    await bench.performer.take([IntentArrived(number, request(number)) for number in (1, 2)])
    bench.ask(1, 2, waiter=10)
    await bench.done()
    bench.performer.check()
    said = dict(bench.said)
    assert [index_in(said[number]) for number in (11, 12)] == [index_in(said[number]) for number in (1, 2)]
    await bench.store.close()


async def test_once_stopped_nothing_more_is_signed_or_sent_though_its_commit_may_end(tmp_path: Path) -> None:
    bench = await Bench.at(tmp_path)
    size = bench.performer.state.log.frontier.size
    bench.store.open_gate.clear()
    bench.ask(1)
    await bench.begun(1)
    bench.ask(2)
    await bench.performer.stop()
    bench.store.open_gate.set()
    await asyncio.sleep(0.05)
    assert bench.said == []
    assert bench.store.begun == 1
    assert bench.performer.state.log.frontier.size == size
    with pytest.raises(Unavailable, match="stopped"):
        bench.performer.check()
    await bench.store.close()
