"""The bus on a real nats-server: what it promises while all is well, and what it refuses."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

import anyio
import nats
import pytest
from nats.aio.msg import Msg

from mesh.adapters.bus import Bus, BusOptions, Message
from mesh.adapters.bus_message import safe_reply
from mesh.adapters.natsserver import NatsServer
from mesh.errors import Refused, Unavailable
from mesh.limits import MESSAGE_BYTES_MAX

PASSWORD = "node-secret"
CONFIG = """
max_payload: 2MB
accounts {
  MESH {
    users: [
      { user: node, password: node-secret }
      { user: workload, password: w, permissions: { publish: ["mesh.v1.eu.intent.>", "$JS.API.>"], subscribe: ["_INBOX_workload.>"] } }
    ]
  }
}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer.start(tmp_path_factory.mktemp("nats"), config=CONFIG) as running:
        yield running


def options(server: NatsServer, name: str = "node", user: str = "node", password: str = PASSWORD, watch_ms: int = 100) -> BusOptions:
    return BusOptions(servers=(server.url,), name=name, user=user, password=password, watch_ms=watch_ms)


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with await Bus.connect(options(server)) as connected:
        yield connected


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for happens in another process
            await asyncio.sleep(0.01)


async def refused(bus: Bus, subject: str, data: bytes = b"", **headers: str) -> str:
    with pytest.raises(Refused) as no:
        await bus.publish(subject, data, headers=headers or None)
    return no.value.code


async def test_a_message_arrives_with_subject_data_headers_and_reply(bus: Bus) -> None:
    got: list[Message] = []
    await bus.subscribe("t.*", got.append)
    await bus.publish("t.a", b"one", headers={"Status": "409"})
    await bus.publish("t.b", b"two")
    await until(lambda: len(got) == 2)
    assert [(m.subject, m.data, dict(m.headers), m.reply) for m in got] == [
        ("t.a", b"one", {"Status": "409"}, ""),
        ("t.b", b"two", {}, ""),
    ]
    assert bus.counters["published"] == bus.counters["received"] == 2


async def test_a_request_is_answered_with_headers(bus: Bus) -> None:
    asked: asyncio.Queue[Message] = asyncio.Queue()
    await bus.subscribe("t.ask", asked.put_nowait)
    call = asyncio.create_task(bus.request("t.ask", b"q", timeout_ms=2_000))
    message = await asked.get()
    assert message.answerable
    assert message.reply.startswith("_INBOX_node.")
    await message.respond(message.data + b"a", headers={"Status": "200"})
    answer = await call
    assert (answer.data, answer.headers["Status"]) == (b"qa", "200")


async def test_a_queue_group_shares_messages_and_an_ended_subscription_gets_none(bus: Bus) -> None:
    first: list[Message] = []
    second: list[Message] = []
    one = await bus.subscribe("t.q", first.append, queue="g")
    await bus.subscribe("t.q", second.append, queue="g")
    for _ in range(50):
        await bus.publish("t.q", b"")
    await until(lambda: len(first) + len(second) == 50)
    assert first
    assert second
    await one.unsubscribe()
    await one.unsubscribe()
    first.clear()
    for _ in range(10):
        await bus.publish("t.q", b"")
    await until(lambda: len(second) >= 10)
    assert not first


async def test_whoever_hears_that_we_listen_is_heard(bus: Bus, server: NatsServer) -> None:
    """nats-py's subscribe returns before it has sent anything, and its flush overtakes what it should flush."""
    async with await Bus.connect(options(server, "other")) as other:
        for number in range(100):
            subject = f"t.now.{number}"
            await bus.subscribe(subject, lambda _message: None)
            with pytest.raises(Unavailable, match="in time"):
                await other.request(subject, b"", timeout_ms=5)


async def test_nobody_listening_is_known_at_once_and_nobody_answering_in_time(bus: Bus) -> None:
    with anyio.fail_after(1), pytest.raises(Unavailable) as no:
        await bus.request("t.nobody", b"", timeout_ms=60_000)
    assert no.value.code == "unreachable"
    assert "nobody listens" in no.value.detail
    await bus.subscribe("t.silent", lambda _message: None)
    with anyio.fail_after(1), pytest.raises(Unavailable) as no:
        await bus.request("t.silent", b"", timeout_ms=50)
    assert no.value.code == "unreachable"
    assert "in time" in no.value.detail


async def test_nothing_larger_than_the_limit_is_sent(bus: Bus) -> None:
    got: list[Message] = []
    await bus.subscribe("t.big", got.append)
    await bus.publish("t.big", bytes(MESSAGE_BYTES_MAX))
    await until(lambda: len(got) == 1)
    assert await refused(bus, "t.big", bytes(MESSAGE_BYTES_MAX + 1)) == "too_large"
    with pytest.raises(Refused) as no:
        await bus.request("t.big", bytes(MESSAGE_BYTES_MAX + 1), timeout_ms=100)
    assert no.value.code == "too_large"


async def test_what_arrives_larger_than_the_limit_is_dropped_and_counted(bus: Bus, server: NatsServer) -> None:
    got: list[Message] = []
    await bus.subscribe("t.big", got.append)
    raw = await nats.connect(server.url, user="node", password="node-secret")
    await raw.publish("t.big", bytes(MESSAGE_BYTES_MAX + 1))
    await raw.publish("t.big", bytes(MESSAGE_BYTES_MAX))
    await until(lambda: bool(got))
    assert [len(message.data) for message in got] == [MESSAGE_BYTES_MAX]
    assert bus.counters["dropped_oversize"] == 1

    async def answer(message: Msg) -> None:
        await message.respond(bytes(MESSAGE_BYTES_MAX + 1))

    await raw.subscribe("t.verbose", cb=answer)
    await until(lambda: raw.pending_data_size == 0)  # nats-py's flush overtakes what it should flush
    await raw.flush()
    with pytest.raises(Unavailable) as no:
        await bus.request("t.verbose", b"", timeout_ms=2_000)
    assert no.value.code == "unreachable"
    assert bus.counters["dropped_oversize"] == 2
    await raw.close()


async def test_ten_megabytes_reach_nobody_and_end_only_the_connection_that_sent_them(bus: Bus, server: NatsServer) -> None:
    got: list[Message] = []
    await bus.subscribe("t.huge", got.append)
    host, _, port = server.url.removeprefix("nats://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"user":"node","pass":"node-secret","verbose":false,"pedantic":false,"lang":"x","version":"1"}\r\nPING\r\n')
    size = 10 * 1024 * 1024
    told = await reader.readuntil(b"PONG\r\n")
    assert b"-ERR" not in told, "it is connected"
    writer.write(b"PUB t.huge %d\r\n" % size)  # the server reads no further than this
    assert b"Maximum Payload" in await asyncio.wait_for(reader.readline(), 10)
    with suppress(ConnectionError):
        writer.write(bytes(size) + b"\r\n")
        await writer.drain()
        assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await bus.publish("t.huge", b"next")
    await until(lambda: bool(got))
    assert [message.data for message in got] == [b"next"]


async def test_a_server_that_takes_less_is_no_crash(tmp_path: Path) -> None:
    with NatsServer.start(tmp_path, config="max_payload: 1KB") as small:
        async with await Bus.connect(BusOptions(servers=(small.url,), name="node")) as bus:
            assert await refused(bus, "t", bytes(1_025)) == "too_large"
            await bus.publish("t", bytes(1_024))


@pytest.mark.parametrize("subject", ["", "a b", "a\r\nPUB x 0\r\n", "\udcff"])
async def test_a_subject_cannot_smuggle_protocol(bus: Bus, subject: str) -> None:
    assert await refused(bus, subject) == "malformed"
    for call in (lambda: bus.request(subject, b"", timeout_ms=100), lambda: bus.subscribe(subject, print)):
        with pytest.raises(Refused) as no:
            await call()
        assert no.value.code == "malformed"
    assert bus.healthy


async def test_a_header_cannot_smuggle_protocol(bus: Bus) -> None:
    assert await refused(bus, "t", b"", **{"a:\r\nb": "c"}) == "malformed"


@pytest.mark.parametrize("reply", ["_INBOX_w1.abc.def", "_INBOX.abc", "_R_.xyz"])
def test_answers_go_to_inboxes(reply: str) -> None:
    assert safe_reply(reply)


@pytest.mark.parametrize(
    "reply",
    ["", "mesh.v1.law.forged", "_INBOX", "_inbox.a", "_R_", "_RX.a", "$JS.API.STREAM.DELETE.X", "_INBOX.>", "_INBOX_a.*", "x_INBOX.a"],
)
def test_answers_go_nowhere_else(reply: str) -> None:
    assert not safe_reply(reply)


async def test_a_forged_reply_is_refused_and_counted(bus: Bus, server: NatsServer) -> None:
    """The confused deputy: a workload may publish its intent only, but names a subject of ours as its reply."""
    asked: asyncio.Queue[Message] = asyncio.Queue()
    landed: list[Message] = []
    await bus.subscribe("mesh.v1.eu.intent.>", asked.put_nowait)
    await bus.subscribe("mesh.v1.law.>", landed.append)
    raw = await nats.connect(server.url, user="workload", password="w")
    await raw.publish("mesh.v1.eu.intent.acme.w", b"intent", reply="mesh.v1.law.forged")
    message = await asyncio.wait_for(asked.get(), 5)
    assert not message.answerable
    with pytest.raises(Refused) as no:
        await message.respond(b"signed")
    assert no.value.code == "reply_forbidden"
    assert bus.counters["forged_replies"] == 1
    await bus.publish("mesh.v1.law.end", b"")
    await until(lambda: bool(landed))
    assert [m.subject for m in landed] == ["mesh.v1.law.end"]
    await raw.close()


async def test_a_handler_that_raises_loses_its_own_message_only(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    got: list[bytes] = []

    def picky(message: Message) -> None:
        if message.data == b"bad":
            raise ValueError("no")
        got.append(message.data)

    await bus.subscribe("t", picky)
    for data in (b"a", b"bad", b"b"):
        await bus.publish("t", data)
    await until(lambda: len(got) == 2)
    assert got == [b"a", b"b"]
    assert bus.counters["handler_errors"] == 1
    assert "handler of t" in caplog.text


async def test_a_thousand_publishes_do_not_stop_the_event_loop(bus: Bus) -> None:
    """nats-py's publish never yields."""
    turns = 0

    async def ticking() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    ticker = asyncio.create_task(ticking())
    await asyncio.sleep(0)
    turns = 0
    for _ in range(1_024):
        await bus.publish("t.none", b"")
    assert turns >= 8
    ticker.cancel()


async def test_a_password_is_in_no_text(server: NatsServer) -> None:
    given = options(server, password="wrong-secret")
    with pytest.raises(Unavailable) as no:
        await Bus.connect(given, wait_ms=200)
    assert no.value.code == "unreachable"
    assert "uthorization" in no.value.detail
    for text in (repr(given), str(given), str(no.value)):
        assert "wrong-secret" not in text


async def test_a_server_that_is_not_there_is_reported_within_the_time_given() -> None:
    with anyio.fail_after(2), pytest.raises(Unavailable) as no:
        await Bus.connect(BusOptions(servers=("nats://127.0.0.1:1",), name="node"), wait_ms=100)
    assert no.value.code == "unreachable"


async def test_messages_that_arrived_are_handed_over_and_those_that_wait_are_sent_before_close(server: NatsServer) -> None:
    got: list[bytes] = []
    async with await Bus.connect(options(server, "other")) as other:
        await other.subscribe("t.out", lambda message: got.append(message.data))
        own = await Bus.connect(options(server))
        echoes: list[bytes] = []
        await own.subscribe("t.in", lambda message: echoes.append(message.data))
        for number in range(100):
            await own.publish("t.in", b"%d" % number)
            await own.publish("t.out", b"%d" % number)
        await own.close()
        await own.close()
        assert len(echoes) == 100
        await until(lambda: len(got) == 100)
        assert not own.healthy
        with pytest.raises(Unavailable):
            await own.publish("t.out", b"")


async def test_a_node_that_is_being_cancelled_still_leaves_the_bus_properly(server: NatsServer) -> None:
    """anyio's and asyncio's own cancellation alike."""
    for cancel_by_scope in (True, False):
        left: list[Bus] = []

        async def role() -> None:
            async with await Bus.connect(options(server)) as bus:
                left.append(bus)  # noqa: B023 -- called before the next turn
                await asyncio.sleep(60)

        async with anyio.create_task_group() as group:
            if cancel_by_scope:
                group.start_soon(role)
                await until(lambda: bool(left))  # noqa: B023 -- as above
                group.cancel_scope.cancel()
            else:
                task = asyncio.create_task(role())
                await until(lambda: bool(left))  # noqa: B023 -- as above
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert not left[0].healthy
        assert left[0]._client is None
