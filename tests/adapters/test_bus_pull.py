"""Stored messages: published until held, pulled until acknowledged, whatever happens to callers and servers."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import nats
import pytest

from mesh.adapters import bus_receive
from mesh.adapters.bus import Bus, BusOptions, Delivery, Message
from mesh.adapters.bus_message import receipt
from mesh.adapters.natsserver import NatsServer
from mesh.errors import Unavailable
from mesh.limits import MESSAGE_BYTES_MAX

ACK_WAIT_NS = 300_000_000
CONFIG = "max_payload: 2MB"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer.start(tmp_path / "nats", config=CONFIG) as running:
        yield running


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with await Bus.connect(BusOptions(servers=(server.url,), name="node", watch_ms=50)) as connected:
        await api(connected, "STREAM.CREATE.S", {"name": "S", "subjects": ["s.*"], "storage": "file"})
        consumer = {"durable_name": "d", "ack_policy": "explicit", "ack_wait": ACK_WAIT_NS}
        await api(connected, "CONSUMER.CREATE.S.d", {"stream_name": "S", "config": {"name": "d", **consumer}})
        yield connected


async def api(bus: Bus, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    answer = await bus.request(f"$JS.API.{verb}", json.dumps(body).encode() if body else b"", timeout_ms=5_000)
    found: dict[str, Any] = json.loads(answer.data)
    assert "error" not in found, found
    return found


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for happens in another process
            await asyncio.sleep(0.01)


async def put(bus: Bus, *data: bytes) -> None:
    for one in data:
        await bus.store("s.a", one, message_id=one.decode(), timeout_ms=2_000)


async def pull(bus: Bus, batch: int = 10, timeout_ms: int = 200) -> list[Delivery]:
    return await bus.pull("S", "d", batch=batch, timeout_ms=timeout_ms)


async def test_what_is_stored_is_pulled_in_order_with_its_place(bus: Bus) -> None:
    await put(bus, b"1", b"2", b"3")
    got = await pull(bus, batch=2)
    assert [(d.subject, d.data, d.sequence, d.headers["Nats-Msg-Id"]) for d in got] == [("s.a", b"1", 1, "1"), ("s.a", b"2", 2, "2")]
    assert [d.waiting for d in got] == [2, 1]
    assert [d.data for d in await pull(bus, batch=1)] == [b"3"]


async def test_an_empty_stream_gives_an_empty_list_in_time(bus: Bus) -> None:
    with anyio.fail_after(2):
        assert await pull(bus) == []
        assert await pull(bus, batch=1) == []


async def test_what_is_acknowledged_or_given_up_stays_away_and_the_rest_comes_again(bus: Bus) -> None:
    await put(bus, b"ack", b"nak", b"term", b"silence")
    for delivery in await pull(bus):
        match delivery.data:
            case b"ack":
                await delivery.ack()
            case b"nak":
                await delivery.nak()
            case b"term":
                await delivery.term()
            case _:
                pass
    again = set[bytes]()
    with anyio.move_on_after(1.5):
        while True:
            again |= {delivery.data for delivery in await pull(bus)}
    assert again == {b"nak", b"silence"}


async def test_the_same_id_is_stored_once_and_says_so(bus: Bus) -> None:
    first = await bus.store("s.a", b"x", message_id="same", timeout_ms=2_000)
    second = await bus.store("s.a", b"x", message_id="same", timeout_ms=2_000)
    assert (first.stream, first.sequence, first.duplicate) == ("S", 1, False)
    assert (second.sequence, second.duplicate) == (1, True)


async def test_without_a_stream_or_consumer_the_answer_is_unreachable(bus: Bus) -> None:
    for call in (
        lambda: bus.store("elsewhere", b"x", message_id="1", timeout_ms=1_000),
        lambda: bus.pull("S", "nobody", batch=10, timeout_ms=500),
        lambda: bus.pull("NONE", "d", batch=1, timeout_ms=500),
    ):
        with anyio.fail_after(3), pytest.raises(Unavailable) as no:
            await call()
        assert no.value.code == "unreachable"


async def test_what_answers_but_is_no_stream_is_not_believed(bus: Bus) -> None:
    asked: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe("impostor", asked.put_nowait)
    call = asyncio.create_task(bus.store("impostor", b"x", message_id="1", timeout_ms=2_000))
    await (await asked.get()).respond(b"thanks")
    with pytest.raises(Unavailable) as no:
        await call
    assert no.value.code == "unavailable"


@pytest.mark.parametrize(
    "answer", [b"", b"{}", b"[]", b"\xff", b"[" * 100_000, b'{"stream":1,"seq":1}', b'{"error":{"description":"full"}}']
)
async def test_an_answer_that_is_no_acknowledgement_is_none(bus: Bus, answer: bytes) -> None:
    with pytest.raises(Unavailable) as no:
        receipt(Message("s", answer, "", {}, bus))
    assert no.value.code == "unavailable"


async def test_cancelled_pulls_lose_nothing_and_leave_nothing_on_the_server(bus: Bus) -> None:
    """nats-py leaves a pull request behind for each cancelled fetch; the next message would be lost in it."""
    for _ in range(30):
        with anyio.move_on_after(0.005):
            await pull(bus, timeout_ms=2_000)
    info = await api(bus, "CONSUMER.INFO.S.d")
    assert info["num_waiting"] <= 1
    await put(bus, b"x")
    with anyio.fail_after(3):
        assert [d.data for d in await pull(bus, timeout_ms=2_000)] == [b"x"]


async def test_two_callers_of_one_consumer_share_without_doubling(bus: Bus) -> None:
    await put(bus, *(b"%d" % n for n in range(20)))
    got: list[bytes] = []

    async def take() -> None:
        for _ in range(5):
            got.extend(d.data for d in await pull(bus, batch=2))

    async with anyio.create_task_group() as group:
        group.start_soon(take)
        group.start_soon(take)
    assert sorted(got, key=int) == [b"%d" % n for n in range(20)]


async def test_pulling_goes_on_after_the_server_was_killed_and_nothing_acknowledged_or_stored_is_lost(
    bus: Bus, server: NatsServer, tmp_path: Path
) -> None:
    await put(bus, b"1", b"2")
    await (await pull(bus, batch=1))[0].ack()
    await pull(bus, batch=1)
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    await until(lambda: not bus.healthy)
    with pytest.raises(Unavailable):
        await pull(bus)
    with NatsServer.start(tmp_path / "nats", port=urlsplit(server.url).port or 0, config=CONFIG):
        await until(lambda: bus.healthy)
        await put(bus, b"3")
        got: set[bytes] = set()
        with anyio.fail_after(10):
            while not got >= {b"2", b"3"}:  # and perhaps b"1": the server acknowledges acknowledgements before they are safe
                for delivery in await pull(bus):
                    got.add(delivery.data)
                    await delivery.ack()


async def test_pulling_goes_on_with_a_new_client(bus: Bus) -> None:
    assert await pull(bus) == []
    waiting = asyncio.create_task(pull(bus, timeout_ms=1_000))
    await asyncio.sleep(0.05)
    bus._client._reading_task.cancel()
    await until(lambda: bus.counters["rebuilds"] == 1)
    with pytest.raises(Unavailable) as no:
        await waiting
    assert no.value.code == "unreachable"
    await put(bus, b"x")
    with anyio.fail_after(5):
        while not await pull(bus):
            pass


async def test_an_acknowledgement_without_a_connection_is_refused(bus: Bus, server: NatsServer) -> None:
    await put(bus, b"x")
    delivery = (await pull(bus, batch=1))[0]
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not bus.healthy)
    with pytest.raises(Unavailable) as no:
        await delivery.ack()
    assert no.value.code == "unreachable"


async def test_a_stored_message_that_is_too_large_is_dropped_counted_and_never_comes_again(bus: Bus, server: NatsServer) -> None:
    raw = await nats.connect(server.url)
    js = raw.jetstream()
    await js.publish("s.a", bytes(MESSAGE_BYTES_MAX + 1))
    await js.publish("s.a", bytes(MESSAGE_BYTES_MAX))
    await raw.close()
    got = await pull(bus)
    assert [len(d.data) for d in got] == [MESSAGE_BYTES_MAX]
    await got[0].ack()
    assert bus.counters["dropped_oversize"] == 1
    await asyncio.sleep(2 * ACK_WAIT_NS / 1e9)
    assert await pull(bus) == []
    assert bus.counters["dropped_oversize"] == 1


async def test_close_does_not_wait_for_what_was_pulled(bus: Bus) -> None:
    """What a fetch finds in its queue it takes without saying so, and nats-py's drain waits in vain for the word."""
    await pull(bus)
    puller = bus._pullers["S", "d", ""]
    await puller._client.publish(puller._native._deliver, b"late", headers={"Status": "408"})
    await asyncio.sleep(0.1)
    await pull(bus)
    started = time.monotonic()
    await bus.close(drain_ms=3_000)
    assert time.monotonic() - started < 2


async def test_a_pull_that_is_under_way_at_close_is_ended(server: NatsServer, bus: Bus) -> None:
    waiting = asyncio.create_task(pull(bus, timeout_ms=30_000))
    await asyncio.sleep(0.05)
    with anyio.fail_after(5):
        await bus.close()
        with pytest.raises(Unavailable) as no:
            await waiting
    assert no.value.code == "unreachable"


@pytest.mark.parametrize(
    ("reply", "numbers"),
    [
        ("$JS.ACK.S.d.1.7.3.1700000000000000000.5", (7, 5)),
        ("$JS.ACK.eu.acc.S.d.1.7.3.1700000000000000000.5", (7, 5)),
        ("$JS.ACK._.acc.S.d.1.7.3.1700000000000000000.5.token", (7, 5)),
        ("", None),
        ("_INBOX.a", None),
        ("$JS.ACK.S.d.1.x.3.1.5", None),
        ("$JS.ACK.S.d.1.-7.3.1.5", None),
        ("$JS.ACK.S.d.1.7.3.1", None),
        ("$JS.ACK.a.S.d.1.7.3.1.5", None),
        ("mesh.v1.law.S.d.1.7.3.1.5", None),
    ],
)
def test_only_a_stream_s_own_reply_subject_gives_a_place(reply: str, numbers: tuple[int, int] | None) -> None:
    assert bus_receive._numbers(reply) == numbers


async def test_a_message_slipped_into_a_pull_is_dropped_and_counted(bus: Bus, server: NatsServer) -> None:
    waiting = asyncio.create_task(pull(bus, batch=1, timeout_ms=2_000))
    await asyncio.sleep(0.05)
    puller = bus._pullers["S", "d", ""]
    raw = await nats.connect(server.url)
    await raw.publish(puller._native._deliver, b"forged", reply="mesh.v1.law.forged")
    await raw.close()
    assert await waiting == []
    assert bus.counters["errors"] == 1
