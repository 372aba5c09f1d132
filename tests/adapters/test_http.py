"""Whatever a stranger sends to the door costs a bounded amount, and the door goes on."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.adapters import httpserver
from mesh.adapters.httpclient import Reply, ask
from mesh.adapters.httpserver import SMALL_BYTES, Answer, HttpServer, Request, listen_address
from mesh.errors import Alarm, Unavailable
from mesh.limits import (
    HTTP_ANSWERS_BYTES_MAX,
    HTTP_CONNECTIONS_MAX,
    HTTP_HEAD_BYTES_MAX,
    HTTP_PIECES_MAX,
    HTTP_REQUESTS_MAX,
    HTTP_WAIT_MS_MAX,
)
from tests.core.kit import refuses

LIMIT = 1_000


class Door:
    """An open door, what reached its handler, and a way to knock."""

    def __init__(self, handle: Callable[[Request], Awaitable[Answer]] | None = None) -> None:
        self.seen: list[Request] = []
        self.alarms: list[Alarm] = []
        self.counters: Counter[str] = Counter()
        self._handle = handle
        self.server = HttpServer(self._answer, body_bytes_max=LIMIT, fatal=self.alarms.append, counters=self.counters)

    async def _answer(self, request: Request) -> Answer:
        self.seen.append(request)
        return await self._handle(request) if self._handle else Answer(200, b"yes")

    async def knock(self, data: bytes, *, wait_s: float = 5.0) -> bytes:
        """What comes back until the door ends the connection, or there is nothing more for a while."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            writer.write(data)
            await writer.drain()
            return await asyncio.wait_for(reader.read(), wait_s)
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()

    async def get(self, **more: int) -> Reply:
        return await ask(f"http://127.0.0.1:{self.server.port}/x", wait_ms=3_000, bytes_max=more.get("bytes_max", 99_999))


@asynccontextmanager
async def door(handle: Callable[[Request], Awaitable[Answer]] | None = None) -> AsyncIterator[Door]:
    opened = Door(handle)
    await opened.server.listen("127.0.0.1:0")
    try:
        yield opened
    finally:
        await opened.server.close()


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never became so")


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    more = "".join(f"{header}\r\n" for header in headers)
    size = len(body) if length is None else length
    return f"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n{more}\r\n".encode() + body


def status(answer: bytes) -> int:
    return int(answer.split(b" ")[1]) if answer else 0


# -------------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(("size", "code"), [(LIMIT, 200), (LIMIT + 1, 413)])
async def test_a_body_may_be_as_large_as_the_door_says(size: int, code: int) -> None:
    async with door() as opened:
        assert status(await opened.knock(post(bytes(size), "Connection: close"))) == code
        assert [len(request.body) for request in opened.seen] == [size] * (code == 200)


async def test_ten_megabytes_are_refused_before_they_are_read_and_whoever_sent_them_hears_it() -> None:
    async with door() as opened:
        assert status(await opened.knock(post(bytes(10_000_000)))) == 413
        assert status(await opened.knock(post(b"", length=10**19))) == 413
        assert status(await opened.knock(post(b"", "Expect: 100-continue", length=10_000_000))) == 413
        assert (await opened.get()).body == b"yes"
        assert len(opened.seen) == 1


async def test_chunks_are_counted_and_may_be_only_so_many() -> None:
    def chunked(pieces: list[bytes]) -> bytes:
        body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"

    async with door() as opened:
        assert status(await opened.knock(chunked([bytes(LIMIT // 2)] * 2))) == 200
        assert status(await opened.knock(chunked([bytes(LIMIT // 2)] * 3))) == 413
    large = HttpServer(lambda _: _yes(), body_bytes_max=10**6, fatal=lambda _: None, counters=Counter())
    await large.listen("127.0.0.1:0")
    opened.server = large
    assert status(await opened.knock(chunked([b"x"] * HTTP_PIECES_MAX))) == 200
    assert status(await opened.knock(chunked([b"x"] * (HTTP_PIECES_MAX + 1)))) == 413
    await large.close()


async def _yes() -> Answer:
    return Answer(200)


async def test_a_head_is_bounded() -> None:
    async with door() as opened:
        fits = f"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nA: {'x' * (HTTP_HEAD_BYTES_MAX - 100)}\r\n\r\n"
        assert status(await opened.knock(fits.encode())) == 200
        assert status(await opened.knock(b"GET /" + b"x" * (HTTP_HEAD_BYTES_MAX + 70_000))) in {400, 431}
        assert status(await opened.knock(b"GET /x HTTP/1.1\r\n" + b"A: b\r\n" * 20_000)) in {400, 431}
        assert len(opened.seen) == 1


# -------------------------------------------------------------------------------------------------------------------- times


def test_the_time_for_a_request_is_the_limit() -> None:
    assert httpserver._WAIT_S * 1000 == HTTP_WAIT_MS_MAX


async def test_a_client_that_trickles_is_ended_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "_WAIT_S", 0.4)
    async with door() as opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.server.port)
        began = asyncio.get_running_loop().time()
        for byte in post(bytes(LIMIT)):
            if reader.at_eof() or reader.exception():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)
        writer.transport.abort()
        assert asyncio.get_running_loop().time() - began < 3
        assert opened.seen == []
        assert (await opened.get()).status == 200


async def test_a_client_that_reads_nothing_is_ended_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "_WAIT_S", 0.4)

    async def much(_: Request) -> Answer:
        return Answer(200, bytes(30_000_000))

    async with door(much) as opened:
        slow = socket.create_connection(("127.0.0.1", opened.server.port))
        slow.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.1)
        assert opened.server._held == 30_000_000
        await asyncio.sleep(0.8)
        assert (opened.server._held, len(opened.server._tasks)) == (0, 0)
        slow.close()


# ------------------------------------------------------------------------------------------------------------------- places


async def test_when_all_places_are_taken_whoever_waited_longest_without_a_request_makes_room() -> None:
    async with door() as opened:
        idle = [await asyncio.open_connection("127.0.0.1", opened.server.port) for _ in range(HTTP_CONNECTIONS_MAX)]
        await asyncio.sleep(0.1)
        assert (await opened.get()).status == 200
        assert opened.counters["http_made_room"] == 1
        assert await asyncio.wait_for(idle[0][0].read(), 2) == b""
        assert len(opened.server._tasks) <= HTTP_CONNECTIONS_MAX
        for _, writer in idle:
            writer.transport.abort()


async def test_closing_ends_every_connection_also_one_that_has_just_come() -> None:
    async with door() as opened:
        idle = [await asyncio.open_connection("127.0.0.1", opened.server.port) for _ in range(3)]
        await opened.get()
        late = await asyncio.open_connection("127.0.0.1", opened.server.port)
    for reader, writer in (*idle, late):
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 2) == b""
        writer.transport.abort()


async def test_when_all_places_are_at_work_the_next_is_turned_away() -> None:
    release = asyncio.Event()

    async def wait(_: Request) -> Answer:
        await release.wait()
        return Answer(200, b"late")

    async with door(wait) as opened:
        busy = [asyncio.create_task(opened.get()) for _ in range(HTTP_CONNECTIONS_MAX)]
        await until(lambda: len(opened.seen) == HTTP_CONNECTIONS_MAX)
        with pytest.raises(Unavailable):
            await opened.get()
        assert opened.counters["http_turned_away"] == 1
        release.set()
        assert {reply.body for reply in await asyncio.gather(*busy)} == {b"late"}


async def test_answers_that_nobody_reads_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "_WAIT_S", 5.0)
    half = HTTP_ANSWERS_BYTES_MAX // 2

    async def much(_: Request) -> Answer:
        return Answer(200, bytes(half))

    async with door(much) as opened:
        slow = [socket.create_connection(("127.0.0.1", opened.server.port)) for _ in range(2)]
        for one in slow:
            one.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: opened.server._held == 2 * half)
        assert (await opened.get()).status == 503
        for one in slow:
            one.close()


async def test_small_answers_are_given_however_many_large_ones_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "SLOW_S", 60.0)

    async def some(request: Request) -> Answer:
        return Answer(200, bytes({"/x": SMALL_BYTES, "/y": SMALL_BYTES + 1}.get(request.path, HTTP_ANSWERS_BYTES_MAX)))

    async with door(some) as opened:
        with socket.create_connection(("127.0.0.1", opened.server.port)) as slow:
            slow.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: opened.server._held == HTTP_ANSWERS_BYTES_MAX)
            assert (await opened.get()).status == 200
            assert status(await opened.knock(b"GET /y HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")) == 503


async def test_who_has_been_written_to_longest_makes_room_for_a_large_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(httpserver, "SLOW_S", 0.3)
    half = HTTP_ANSWERS_BYTES_MAX // 2

    async def much(_: Request) -> Answer:
        return Answer(200, bytes(half))

    async with door(much) as opened:
        slow = list[socket.socket]()
        for count in (1, 2):
            slow.append(socket.create_connection(("127.0.0.1", opened.server.port)))
            slow[-1].sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda count=count: len(opened.server._written) == count)  # type: ignore[misc]
        first, second = opened.server._written
        await asyncio.sleep(0.4)
        assert (await opened.get(bytes_max=half)).status == 200
        await until(first.done)
        assert (second.done(), opened.counters["http_made_room"]) == (False, 1)
        for one in slow:
            one.close()


@pytest.mark.parametrize(
    "sent", [b"garbage\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"], ids=["refused", "answered"]
)
async def test_who_was_answered_and_only_lingers_makes_room(sent: bytes) -> None:
    async with door() as opened:
        held = [await asyncio.open_connection("127.0.0.1", opened.server.port) for _ in range(HTTP_CONNECTIONS_MAX)]
        for _, writer in held:
            writer.write(sent)
        await until(lambda: len(opened.server._lingering) == HTTP_CONNECTIONS_MAX)
        assert (await opened.get()).status == 200
        assert opened.counters["http_turned_away"] == 0
        for _, writer in held:
            writer.transport.abort()


async def test_a_connection_has_so_many_requests() -> None:
    async with door() as opened:
        answers = await opened.knock(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n" * (HTTP_REQUESTS_MAX + 5), wait_s=30)
        assert answers.count(b"HTTP/1.1 200") == HTTP_REQUESTS_MAX
        assert answers.rstrip().endswith(b"yes")


# ------------------------------------------------------------------------------------------------------------------ garbage

GARBAGE = {
    "bytes": b"\x00\xff\xfe" * 100 + b"\r\n\r\n",
    "TLS": bytes.fromhex("160301020001000001fc0303") + bytes(200),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two lengths": b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "length and chunks": b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET",
    "another coding": b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "a signed length": b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\nx",
    "a bad chunk": b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "no host": b"GET /x HTTP/1.1\r\n\r\n",
    "a folded name": b"GET /x HTTP/1.1\r\nHost : x\r\n\r\n",
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_what_is_no_request_is_refused_and_ends_its_connection_only(what: str) -> None:
    async with door() as opened:
        assert status(await opened.knock(GARBAGE[what] + b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")) in {400, 413, 501, 505}
        assert opened.seen == []
        assert (await opened.get()).body == b"yes"
        assert opened.counters["http_failed"] == 0


async def test_garbage_behind_a_request_is_refused_after_the_answer() -> None:
    async with door() as opened:
        answer = await opened.knock(post(b"one") + b"\x00garbage\r\n\r\n" + post(b"two"))
        assert [answer.count(b"HTTP/1.1 %d" % code) for code in (200, 400)] == [1, 1]
        assert [request.body for request in opened.seen] == [b"one"]


async def test_requests_in_a_row_are_answered_in_order() -> None:
    async def echo(request: Request) -> Answer:
        return Answer(200, request.body)

    async with door(echo) as opened:
        answer = await opened.knock(post(b"<one>") + post(b"<two>") + post(b"<three>", "Connection: close"))
        places = [answer.index(word) for word in (b"<one>", b"<two>", b"<three>")]
        assert places == sorted(places)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([*GARBAGE.values(), post(b"x"), b"GET ", b"\r\n", b": ", b"HTTP/1.1"]) | st.binary(max_size=40), max_size=6)
)
def test_no_bytes_make_the_door_fail(parts: list[bytes]) -> None:
    async def check() -> None:
        async with door() as opened:
            reader, writer = await asyncio.open_connection("127.0.0.1", opened.server.port)
            writer.write(b"".join(parts))
            writer.write_eof()
            await asyncio.wait_for(reader.read(), 5)
            writer.close()
            assert (await opened.get()).body == b"yes"
            assert (opened.counters["http_failed"], opened.alarms) == (0, [])

    asyncio.run(check())


async def test_a_head_request_gets_the_length_and_no_body() -> None:
    async with door() as opened:
        answer = await opened.knock(b"HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.endswith(b"\r\n\r\n")
        assert b"content-length: 3" in answer.lower()
        assert status(await opened.knock(b"HEAD /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n")) == 413


async def test_what_nobody_foresaw_is_answered_and_an_alarm_is_told() -> None:
    async def fail(request: Request) -> Answer:
        if request.path == "/alarm":
            raise Alarm("storage_corrupt")
        if request.path == "/closed":
            raise Unavailable("storage_failed")
        raise ZeroDivisionError

    async with door(fail) as opened:
        codes = [
            status(await opened.knock(b"GET /%b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % path))
            for path in (b"a", b"closed", b"alarm")
        ]
        assert codes == [500, 503, 503]
        assert opened.counters["http_failed"] == 1
        assert [alarm.code for alarm in opened.alarms] == ["storage_corrupt"]


@pytest.mark.parametrize(
    ("target", "path"),
    [("http://x/a/b?c", "/a/b"), ("HTTPS://x", "/"), ("http://x:1/", "/"), ("/http://x/a", "/http://x/a"), ("*", "*")],
)
async def test_a_host_in_front_is_no_part_of_the_path(target: str, path: str) -> None:
    async with door() as opened:
        await opened.knock(f"OPTIONS {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert opened.seen[0].path == path


async def test_a_query_is_no_part_of_the_path() -> None:
    async with door() as opened:
        await opened.knock(b"GET /x?y=z HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert opened.seen[0].path == "/x"


@pytest.mark.parametrize("text", ["", ":", "x:", ":80", "80", "x:y", "x:65536", "x:-1", "x:٨", "x: 80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with refuses("config_invalid"):
        listen_address(text)


def test_an_address_is_host_and_port() -> None:
    assert [listen_address(text) for text in ("localhost:0", "[::1]:8080", "0.0.0.0:65535")] == [
        ("localhost", 0),
        ("::1", 8080),
        ("0.0.0.0", 65535),  # noqa: S104 -- only read
    ]


async def test_an_address_that_cannot_be_had_is_refused() -> None:
    async with door() as opened:
        for address in (f"127.0.0.1:{opened.server.port}", "192.0.2.1:1", "no.such.host.invalid:1"):
            with refuses("config_invalid"):
                await Door().server.listen(address)
