"""The process around the machine: an alarm stops it and is told, failing storage is opened again, draining ends in time."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from mesh.adapters.decision_thread import DecisionThread
from mesh.core import subjects
from mesh.core.messages import Authorized, Pull, RefusedAnswer, Sync, pack, unpack
from mesh.dev.cluster import Cluster
from mesh.errors import Alarm, MeshError, Unavailable
from mesh.protocol.events import Event, IntentArrived
from mesh.protocol.step import Persist
from mesh.roles.config import load_config
from mesh.roles.governor import GovernorNode
from tests.live.kit import Client, code_of
from tests.support.unguarded import unguarded

pytestmark = pytest.mark.asyncio
NAME = "eu-1"
ORIGIN = "dev/eu-1/e1"
CORRUPT = 5
"""How a process ends that met a forged or broken record."""


def _flip(single: Cluster, index: int) -> None:
    """Change one record in the file behind the node's back, past what forbids it."""
    path = single.files.folder / "nodes" / NAME / "data" / "node.db"
    with unguarded(path) as file:
        assert file.execute("UPDATE record SET data = CAST(data || x'20' AS BLOB) WHERE idx = ?", (index,)).rowcount == 1


async def _ended(single: Cluster) -> int:
    process = single.nodes[NAME]
    return await asyncio.to_thread(process.wait, 20)


async def _some_records(single: Cluster) -> None:
    client = await Client.connect(single.files.context)
    for _ in range(5):
        assert code_of(await client.ask()) == "authorized"
    await client.bus.close()


async def test_a_node_does_not_start_on_a_changed_record_and_says_why(single: Cluster) -> None:
    await _some_records(single)
    single.stop([NAME])
    _flip(single, 1)
    with pytest.raises(Unavailable, match="storage_corrupt"):
        single.start([NAME])
    assert await _ended(single) == CORRUPT
    assert "error[storage_corrupt]" in single.log(NAME).read_text()


async def test_a_record_that_changes_later_is_found_though_nobody_asks_and_stops_the_node(single: Cluster) -> None:
    await _some_records(single)
    assert single.alive(NAME)
    _flip(single, 1)
    assert await _ended(single) == CORRUPT
    assert "error[storage_corrupt]" in single.log(NAME).read_text()


@asynccontextmanager
async def _inside(single: Cluster) -> AsyncIterator[tuple[GovernorNode, "asyncio.Task[None]"]]:
    """The same node in this process, to break parts of it."""
    single.stop([NAME])
    thread = DecisionThread()
    node = GovernorNode(load_config(single.files.node(NAME)), lambda _: None, thread)
    ready = asyncio.Event()
    running = asyncio.create_task(node.run(ready.set))
    await asyncio.wait_for(ready.wait(), 10)
    try:
        yield node, running
    finally:
        node.stop()
        with suppress(MeshError):
            await running
        await asyncio.to_thread(thread.close)


async def test_who_asks_for_a_changed_record_is_told_unavailable_and_the_node_stops(
    single: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await Client.connect(single.files.context)
    async with _inside(single) as (node, running):
        assert node.performer is not None

        async def corrupt(*_: object) -> list[bytes]:
            raise Alarm("storage_corrupt", "a bit")

        monkeypatch.setattr(node.performer.store, "records", corrupt)
        answer = await client.bus.request(subjects.sync(NAME), pack(Pull(origin=ORIGIN, first=0, count=1)), timeout_ms=2_000)
        assert unpack(RefusedAnswer, answer.data).code == "unavailable"
        with pytest.raises(Alarm, match="storage_corrupt"):
            await asyncio.wait_for(running, 10)
    await client.bus.close()


async def test_an_error_nobody_foresaw_answers_who_waits_and_stops_the_node_by_its_own_code(
    single: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await Client.connect(single.files.context)
    async with _inside(single) as (node, running):
        assert node.performer is not None
        machine = node.performer.machine
        step = machine.step

        def broken(state: Any, events: Sequence[Event], **rest: Any) -> Any:
            if any(isinstance(event, IntentArrived) for event in events):
                raise ZeroDivisionError("who knows")
            return step(state, events, **rest)

        monkeypatch.setattr(machine, "step", broken)
        assert code_of(await client.ask()) == "unavailable"
        with pytest.raises(Alarm, match="ZeroDivisionError: who knows") as alarm:
            await asyncio.wait_for(running, 10)
    assert alarm.value.code == "internal_error"
    assert "Traceback" in caplog.text
    await client.bus.close()


async def test_storage_that_fails_once_is_opened_again_and_the_node_goes_on(single: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await Client.connect(single.files.context)
    async with _inside(single) as (node, running):
        assert node.performer is not None
        before = node.performer

        async def failing(_: Sequence[Persist]) -> None:
            raise Unavailable("storage_failed", "no space")

        monkeypatch.setattr(before.store, "commit", failing)
        answers = [code_of(await client.ask())]
        end = time.monotonic() + 15
        while answers[-1] != "authorized" and time.monotonic() < end:
            await asyncio.sleep(0.1)
            answers.append(code_of(await client.ask()))
        assert answers[0] == "unavailable"
        assert answers[-1] == "authorized"
        assert node.performer is not before
        assert not running.done()
    await client.bus.close()


async def test_a_node_drains_in_time_while_others_keep_asking_for_heartbeats(single: Cluster) -> None:
    client = await Client.connect(single.files.context)
    asked: list[int] = [0]

    async def pester() -> None:
        while True:
            with suppress(Unavailable):
                await client.bus.publish(subjects.sync(NAME), pack(Sync(nonce=secrets.token_hex(32))))
                asked[0] += 1
            await asyncio.sleep(0.001)

    pestering = [asyncio.create_task(pester()) for _ in range(4)]
    assert isinstance(await client.ask(), Authorized)
    begun = time.monotonic()
    await asyncio.to_thread(single.stop, [NAME])
    assert single.nodes[NAME].returncode == 0
    assert time.monotonic() - begun < 9
    assert asked[0] > 100
    for task in pestering:
        task.cancel()
    await asyncio.gather(*pestering, return_exceptions=True)
    await client.bus.close()


async def test_a_node_without_a_bus_does_not_wait_for_others_to_attest_its_last_record(single: Cluster) -> None:
    single.kill_bus()
    begun = time.monotonic()
    await asyncio.to_thread(single.stop, [NAME])
    assert single.nodes[NAME].returncode == 0
    assert time.monotonic() - begun < 4


async def test_a_flood_of_syncs_is_answered_by_few_heartbeats(single: Cluster) -> None:
    client = await Client.connect(single.files.context)
    ask = [pack(Sync(nonce=secrets.token_hex(32))) for _ in range(400)]
    begun = time.monotonic()
    answers = await asyncio.gather(*(client.bus.request(subjects.sync(NAME), data, timeout_ms=5_000) for data in ask))
    took_s = time.monotonic() - begun
    assert len(answers) == 400
    beats = {answer.data for answer in answers}
    assert len(beats) <= took_s / 0.05 + 2
    await client.bus.close()
