"""Each trap of nats-py that a node would die of, sprung on a real server; the bus comes out of each."""

import asyncio
import gc
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlparse, urlsplit

import anyio
import msgspec
import nats
import nats.errors
import pytest
from nats.aio.client import Server
from nats.aio.msg import Msg

from mesh.adapters import bus as module
from mesh.adapters.bus import Bus, BusOptions, Message
from mesh.adapters.natsserver import NatsServer
from mesh.errors import Unavailable
from tests.adapters.certificates import certificates
from tests.adapters.fakeserver import FakeServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer.start(tmp_path / "nats") as running:
        yield running
        if running.running:
            os.kill(running.pid, signal.SIGCONT)


@pytest.fixture
async def bus(server: NatsServer) -> AsyncIterator[Bus]:
    async with await Bus.connect(BusOptions(servers=(server.url,), name="node", watch_ms=50)) as connected:
        yield connected


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 -- what is waited for happens in another process
            await asyncio.sleep(0.01)


async def freeze(server: NatsServer) -> None:
    """Stop it like a host that hangs: connections stay open, nothing answers."""
    os.kill(server.pid, signal.SIGSTOP)
    state = Path(f"/proc/{server.pid}/stat")
    await until(lambda: state.read_text().rsplit(")", 1)[1].split()[0] == "T")


async def works(bus: Bus) -> None:
    """A message sent now is received once."""
    got: list[bytes] = []
    wish = await bus.subscribe("works", lambda message: got.append(message.data))
    await until(lambda: bus.healthy)
    await bus.publish("works", b"1")
    await until(lambda: bool(got))
    await bus.publish("works", b"2")
    await until(lambda: got[-1:] == [b"2"])
    assert got == [b"1", b"2"]
    await wish.unsubscribe()


# ------------------------------------------------------------------------------------------------------------- callbacks


async def test_nats_py_still_has_the_trap_that_a_raising_error_callback_kills_reading(server: NatsServer) -> None:
    """If this fails, nats-py was mended and rule 5 of the bus may be relaxed."""

    async def raising(_error: Exception) -> None:
        raise ValueError("raised by a callback")

    got: list[bytes] = []

    async def slow(message: Msg) -> None:
        got.append(message.data)
        await asyncio.sleep(0.2)

    raw = await nats.connect(server.url, error_cb=raising)
    await raw.subscribe("t", cb=slow, pending_msgs_limit=1)
    for number in range(10):
        await raw.publish("t", b"%d" % number)
    reading = raw._reading_task
    assert reading is not None
    await until(reading.done)
    assert raw.is_connected
    await raw.close()


async def test_a_dropped_message_is_counted_and_reading_goes_on(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same situation, in which nats-py calls back from its read loop."""
    got: list[Message] = []
    wish = await bus.subscribe("t", got.append)
    wish.native._pending_bytes_limit = 10
    await bus.publish("t", bytes(100))
    await until(lambda: bus.counters["dropped_slow"] == 1)
    await bus.publish("t", b"small")
    await until(lambda: [message.data for message in got] == [b"small"])
    assert bus.healthy
    assert bus.counters["rebuilds"] == 0


async def test_a_listener_that_raises_kills_nothing(server: NatsServer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    told: list[bool] = []

    def listener(healthy: bool) -> None:
        told.append(healthy)
        raise ValueError("raised by a callback")

    async with await Bus.connect(BusOptions(servers=(server.url,), name="node", watch_ms=50), on_change=listener) as bus:
        assert told == [True]
        os.kill(server.pid, signal.SIGKILL)
        await until(lambda: told == [True, False])
        with NatsServer.start(tmp_path / "nats", port=urlsplit(server.url).port or 0):
            await until(lambda: told == [True, False, True])
            await works(bus)
        assert bus.counters["handler_errors"] == 3
    assert "told that the bus is" in caplog.text


# ---------------------------------------------------------------------------------------------- connections that are dead


async def test_a_server_that_is_killed_and_comes_back_is_found_again_with_every_subscription(
    bus: Bus, server: NatsServer, tmp_path: Path
) -> None:
    got: list[bytes] = []
    await bus.subscribe("kept", lambda message: got.append(message.data))
    os.kill(server.pid, signal.SIGKILL)
    await until(lambda: not bus.healthy)
    with anyio.fail_after(0.5):  # at once: not buffered, not waited for
        for call in (bus.publish("kept", b"late"), bus.request("kept", b"late", timeout_ms=60_000)):
            with pytest.raises(Unavailable) as no:
                await call
            assert no.value.code == "unreachable"
    assert bus.counters["refused_offline"] == 2
    offline: list[bytes] = []
    await bus.subscribe("wished-offline", lambda message: offline.append(message.data))
    with NatsServer.start(tmp_path / "nats", port=urlsplit(server.url).port or 0):
        await until(lambda: bus.healthy)
        await bus.publish("kept", b"now")
        await bus.publish("wished-offline", b"now")
        await until(lambda: bool(got and offline))
        assert got == offline == [b"now"]
        assert bus.counters["disconnects"] >= 1
        assert bus.counters["reconnects"] + bus.counters["rebuilds"] >= 1


async def test_nothing_that_waited_when_a_connection_broke_is_sent_to_the_next(
    bus: Bus, server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_RTT_S", 60.0)  # the watchdog stays out of this
    got: list[bytes] = []
    await bus.subscribe("t", lambda message: got.append(message.data))
    await freeze(server)
    block = bytes(60_000)

    async def flood() -> None:
        while True:
            await bus.publish("t", block)

    with pytest.raises(Unavailable) as no:
        await flood()
    assert no.value.code == "unreachable"
    assert bus.counters["stuck"] == 1
    await bus.publish("t", b"late")
    client = bus._client
    assert client is not None
    assert client._pending, "nats-py keeps it"
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    await until(lambda: not bus.healthy)
    with NatsServer.start(tmp_path / "nats", port=urlsplit(server.url).port or 0):
        await until(lambda: bus.healthy)
        await bus.publish("t", b"marker")
        await until(lambda: b"marker" in got)
        assert got == [b"marker"]


async def test_a_mute_server_is_noticed_and_its_late_answer_breaks_nothing(
    bus: Bus, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py notices after two ping intervals, and dies of a PONG that comes after its rtt() timed out."""
    monkeypatch.setattr(module, "_RTT_S", 0.2)
    await freeze(server)
    started = time.monotonic()
    await until(lambda: not bus.healthy)
    assert time.monotonic() - started < 1.5
    with pytest.raises(Unavailable):
        await bus.publish("t", b"")
    os.kill(server.pid, signal.SIGCONT)
    await until(lambda: bus.healthy)
    await works(bus)
    assert bus.counters["rebuilds"] >= 1


@pytest.mark.parametrize("task", ["_reading_task", "_flusher_task"])
async def test_a_client_whose_task_died_is_replaced(bus: Bus, task: str) -> None:
    got: list[bytes] = []
    await bus.subscribe("kept", lambda message: got.append(message.data))
    getattr(bus._client, task).cancel()
    await until(lambda: not bus.healthy)
    assert bus._client is None or bus._client.is_connected, "nats-py itself has noticed nothing"
    await until(lambda: bus.healthy)
    await bus.publish("kept", b"once")
    await until(lambda: bool(got))
    await works(bus)
    assert got == [b"once"]
    assert bus.counters["rebuilds"] == 1


async def test_a_read_loop_that_dies_of_an_error_is_noticed(bus: Bus) -> None:
    client = bus._client
    assert client is not None
    client._ps.parse = lambda _data: (_ for _ in ()).throw(ValueError("a parser error"))
    await bus.publish("t", b"")
    await until(lambda: bus.counters["rebuilds"] == 1)
    await works(bus)


async def test_a_client_that_the_server_closed_for_good_is_replaced(bus: Bus) -> None:
    """Most -ERR lines make nats-py close and never come back."""
    client = bus._client
    assert client is not None
    client._transport.write(b"GARBAGE\r\n")
    await until(lambda: bool(client.is_closed))
    await until(lambda: bus.healthy, seconds=2)
    await works(bus)
    assert bus.counters["rebuilds"] == 1


async def test_an_ended_subscription_is_not_made_again(bus: Bus) -> None:
    got: list[bytes] = []
    wish = await bus.subscribe("ended", lambda message: got.append(message.data))
    bus._client._reading_task.cancel()
    await wish.unsubscribe()
    await until(lambda: bus.counters["rebuilds"] == 1)
    await bus.publish("ended", b"")
    await works(bus)
    assert not got


async def test_a_reconnect_that_hangs_is_replaced(bus: Bus, server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-py can wait for minutes to close a socket whose packets are dropped."""
    monkeypatch.setattr(module, "_RECONNECT_S", 0.1)
    client = bus._client
    assert client is not None
    hang = asyncio.Event()
    client._transport.wait_closed = hang.wait
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    await until(lambda: not bus.healthy)
    with NatsServer.start(tmp_path / "nats", port=urlsplit(server.url).port or 0):
        await until(lambda: bus.healthy)
        await works(bus)
    assert bus.counters["rebuilds"] >= 1
    hang.set()


async def test_the_watchdog_survives_what_it_watches(bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    real = bus._alive

    async def failing_once(_client: object) -> bool:
        monkeypatch.setattr(bus, "_alive", real)
        raise RuntimeError("inside the watchdog")

    monkeypatch.setattr(bus, "_alive", failing_once)
    await until(lambda: bus.counters["errors"] == 1)
    bus._client._reading_task.cancel()
    await until(lambda: bus.counters["rebuilds"] == 1)
    await works(bus)
    assert "watching the bus" in caplog.text


def test_attempts_never_end_and_are_spread_over_a_growing_bounded_time() -> None:
    for attempt in range(2_000):
        assert 0 <= module._jitter(attempt) <= min(10.0, 0.1 * 2 ** min(attempt, 20))
    assert len({module._jitter(20) for _ in range(50)}) > 40
    assert max(module._jitter(20) for _ in range(200)) > 5


# ----------------------------------------------------------------------------------------------------------- cancellation


@pytest.mark.parametrize("answered", [True, False], ids=["answered", "nobody listens"])
async def test_a_request_can_be_cancelled_in_the_very_moment_of_its_answer(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """nats-py waits with asyncio's wait_for, which until Python 3.12 forgets a cancellation that comes together with the end."""

    async def request(subject: str, *_: object, **__: object) -> Msg:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        if not answered:
            raise nats.errors.NoRespondersError
        return Msg(_client=bus._client, subject=subject)

    monkeypatch.setattr(bus._client, "request", request)
    task = asyncio.create_task(bus.request("nobody", b"", timeout_ms=1_000))
    await asyncio.wait({task})
    assert task.cancelled()


@pytest.mark.parametrize("native", [True, False])
async def test_a_publish_that_waits_for_the_socket_can_be_cancelled(
    bus: Bus, server: NatsServer, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    """nats-py swallows the cancellation there."""
    monkeypatch.setattr(module, "_RTT_S", 60.0)
    await freeze(server)
    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await bus.publish("t", bytes(60_000))
            sent += 1

    async def flood_in_scope() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await flood()

    scopes: list[anyio.CancelScope] = []
    task = asyncio.create_task(flood() if native else flood_in_scope())
    seen = -1
    while seen != sent:
        seen = sent
        await asyncio.sleep(0.1)
    if native:
        task.cancel()
    else:
        scopes[0].cancel()
    done, _ = await asyncio.wait({task}, timeout=1.0)
    assert done
    assert task.cancelled() == native
    assert sent == seen
    os.kill(server.pid, signal.SIGCONT)


async def test_close_is_bounded_and_leaves_no_socket_when_the_server_takes_nothing(server: NatsServer) -> None:
    """nats-py's drain swallows a cancellation and then waits for ten seconds."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    bus = await Bus.connect(BusOptions(servers=(server.url,), name="node"))
    await bus.subscribe("t", print)
    await freeze(server)
    with anyio.move_on_after(0.3):
        while True:
            await bus.publish("t", bytes(60_000))
    started = time.monotonic()
    await bus.close(drain_ms=200)
    assert time.monotonic() - started < 3
    assert not bus.healthy
    await asyncio.sleep(0.05)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# --------------------------------------------------------------------------------------------------------- hostile servers


async def test_no_password_goes_to_a_server_without_the_tls_we_asked_for(tmp_path: Path) -> None:
    """nats-py leaves it to the server whether there is TLS."""
    ca = str(certificates(tmp_path).ca)
    async with FakeServer(auth_required=True) as fake:
        options = BusOptions(servers=(fake.url,), name="node", user="node", password="secret-word")
        async with await Bus.connect(options):
            assert b"secret-word" in fake.heard
        fake.heard.clear()
        with pytest.raises(Unavailable) as no:
            await Bus.connect(msgspec.structs.replace(options, tls_ca=ca), wait_ms=300)
        assert no.value.code == "unreachable"
        assert not fake.heard


async def test_a_server_that_another_one_advertises_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FakeServer() as evil:
        async with FakeServer(connect_urls=[evil.url.removeprefix("nats://")], auth_required=True) as good:
            options = BusOptions(servers=(good.url,), name="node", user="node", password="secret-word", watch_ms=50)
            async with await Bus.connect(options) as bus:
                for times in range(1, 4):
                    good.hang_up()
                    await until(lambda: bus.counters["reconnects"] == times and bus.healthy)  # noqa: B023 -- waited for here
        assert not evil.heard
        assert not evil.accepted


async def test_a_choice_among_our_own_servers_takes_one_that_failed_least(bus: Bus, server: NatsServer) -> None:
    own, strange = urlparse(server.url), urlparse("nats://203.0.113.1:4222")
    pool = [Server(uri=strange, reconnects=0), Server(uri=own, reconnects=7)]
    chosen, delay = bus._next_server(pool, {})
    assert chosen.uri is own
    assert 0 <= delay <= 10
    bus._own_servers = frozenset({own.netloc, strange.netloc})
    assert bus._next_server(pool, {})[0].uri is strange
    assert bus._next_server(pool[:1], {})[0].uri is strange


async def test_the_server_has_heard_of_a_subscription_before_it_answers_for_it() -> None:
    """nats-py sends a PING before what it still holds, so its flush proves nothing."""
    async with FakeServer() as fake, await Bus.connect(BusOptions(servers=(fake.url,), name="node", watch_ms=60_000)) as bus:
        client = bus._client
        assert client is not None

        async def slow() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        client._transport.drain = slow
        await bus.publish("busy", b"")
        await asyncio.sleep(0)  # now nats-py waits for the socket, and keeps what comes meanwhile
        fake.heard.clear()
        await bus.subscribe("t", print)
        words = [line.split()[0] for line in bytes(fake.heard).splitlines() if line]
        assert [word for word in words if word in {b"SUB", b"PING"}] == [b"SUB", b"PING"]


async def test_an_attempt_that_failed_leaves_no_connection_open() -> None:
    async with FakeServer() as fake, await Bus.connect(BusOptions(servers=(fake.url,), name="node", watch_ms=60_000)) as bus:
        fake.nonsense = b"what?\r\n"
        fake.hang_up()
        most = 0
        with anyio.fail_after(15):
            while fake.accepted < 5:
                await asyncio.sleep(0.001)
                most = max(most, len(fake.writers))
        fake.nonsense = b""
        await until(lambda: bus.healthy)
        gc.collect()  # a connection that was forgotten would warn
        assert most <= 2, "the one that is dialled, and at most one whose end is not heard yet"
        assert len(fake.writers) == 1


async def test_a_server_that_talks_nonsense_is_left_and_dialled_again() -> None:
    async with FakeServer() as fake, await Bus.connect(BusOptions(servers=(fake.url,), name="node", watch_ms=50)) as bus:
        for nonsense in (b"INFO {broken\r\n", b"MSG a 1 99999999999999999999\r\n", b"-ERR 'Maximum Connections Exceeded'\r\n"):
            before = bus.counters["rebuilds"] + bus.counters["reconnects"]
            fake.say(nonsense)
            await until(lambda: not bus.healthy or bus.counters["rebuilds"] + bus.counters["reconnects"] > before)  # noqa: B023
            await until(lambda: bus.healthy)
