"""A small HTTP/1.1 door: whole requests in, whole answers out, and whatever a stranger sends costs a bounded amount.

Rules
-----
1. h11 reads and writes the protocol; nothing here parses it. What it refuses is answered 400 (or what it says) and the connection ends.
2. Sizes: a head of :data:`mesh.limits.HTTP_HEAD_BYTES_MAX`, a body of what the door says, in so many pieces at most. A body that
   says beforehand that it is larger is refused before it is read.
3. Times: a request must be whole, and an answer read, within :data:`mesh.limits.HTTP_WAIT_MS_MAX`. Trickling bytes do not
   prolong it.
4. Places: at :data:`mesh.limits.HTTP_CONNECTIONS_MAX` a connection that was answered and only lingers makes room, else the one that has
   waited longest without a request. Large answers that slow clients have not read are bounded together: who has been written to longest,
   and for :data:`SLOW_S` at least, makes room. Small ones are bounded by the places.
5. An error that nobody foresaw is answered 500 and counted, and the door goes on: nobody may stop a node by asking. An alarm is told
   to the door's owner.

There is no TLS here: whoever serves outside of a private network puts a TLS proxy in front.

Not here: what is asked and answered.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

import h11
import msgspec

from mesh.errors import Alarm, MeshError, Refused
from mesh.limits import (
    HTTP_ANSWERS_BYTES_MAX,
    HTTP_CONNECTIONS_MAX,
    HTTP_HEAD_BYTES_MAX,
    HTTP_PIECES_MAX,
    HTTP_REQUESTS_MAX,
    HTTP_WAIT_MS_MAX,
)

__all__ = ["SLOW_S", "SMALL_BYTES", "TEXT", "Answer", "HttpServer", "Request", "listen_address"]

TEXT: Final = "text/plain; charset=utf-8"
SMALL_BYTES: Final = 16_384
"""Answers up to here are given however many large ones wait to be read: a checkpoint, a tile of hashes."""
SLOW_S: Final = 1.0
_READ_BYTES: Final = 65_536
_WRITE_BYTES: Final = 262_144
_WAIT_S: Final = HTTP_WAIT_MS_MAX / 1000
_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 16 << 20
_LATER: Final = {"Retry-After": "1"}

_log = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True):
    """One request, whole."""

    method: str
    path: str
    """As it was sent, without a query, and without the host in front that a proxy may send (RFC 9112, 3.2.2)."""
    body: bytes


class Answer(msgspec.Struct, frozen=True):
    """What is answered."""

    status: int
    body: bytes = b""
    kind: str = TEXT
    """Content type."""
    headers: Mapping[str, str] = {}


Handler = Callable[[Request], Awaitable[Answer]]


class _Unfit(Exception):
    """A request that is answered without being handled; the connection ends."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.answer = Answer(status)  # no body: that is right after any request, HEAD too


class HttpServer:
    """A listening door; close it with :meth:`close`."""

    def __init__(self, handle: Handler, *, body_bytes_max: int, fatal: Callable[[Alarm], None], counters: Counter[str]) -> None:
        """Answer with ``handle``; ``fatal`` hears of alarms (rule 5)."""
        self._handle = handle
        self._body_bytes_max = body_bytes_max
        self._fatal = fatal
        self._server: asyncio.Server | None = None
        self._tasks = set[asyncio.Task[None]]()
        self._waiting = dict[asyncio.Task[None], asyncio.StreamWriter]()
        """Connections without a whole request, the one that has waited longest first."""
        self._lingering = dict[asyncio.Task[None], asyncio.StreamWriter]()
        """Connections that were answered, and are closed once their clients have read that."""
        self._written = dict[asyncio.Task[None], tuple[int, float]]()
        """Bytes of large answers that are being written, and since when; the one that has been for longest first."""
        self._counters = counters
        self.port = 0

    async def listen(self, address: str) -> None:
        """Begin to answer at ``host:port``; port 0 takes a free one, see :attr:`port`.

        Raises:
            Refused: ``config_invalid`` when that is no address, or it cannot be had.
        """
        host, port = listen_address(address)
        try:
            self._server = await asyncio.start_server(self._connected, host, port, limit=_READ_BYTES, backlog=HTTP_CONNECTIONS_MAX)
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "no host name"
            raise Refused("config_invalid", f"listen {address}: {why}") from None
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= HTTP_CONNECTIONS_MAX:
            self._make_room()
        if len(self._tasks) - len(self._ending()) >= HTTP_CONNECTIONS_MAX:
            self._counters["http_turned_away"] += 1
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(partial(self._ended, writer))

    def _ended(self, writer: asyncio.StreamWriter, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        writer.transport.abort()  # also of one that was cancelled before its first step

    def _make_room(self) -> None:
        """Rule 4."""
        for task in (*self._lingering, *self._waiting):
            if not task.cancelling():
                self._counters["http_made_room"] += 1
                task.cancel()
                return

    @property
    def _held(self) -> int:
        return sum(size for size, _ in self._written.values())

    def _has_room(self, size: int) -> bool:
        """Whether an answer of that size may be written: rule 4."""
        now = asyncio.get_running_loop().time()
        while size > SMALL_BYTES and self._held + size > HTTP_ANSWERS_BYTES_MAX:
            task = next(iter(self._written), None)
            if task is None or now - self._written[task][1] < SLOW_S:
                return False
            self._counters["http_made_room"] += 1
            del self._written[task]
            task.cancel()
        return True

    def _ending(self) -> list[asyncio.Task[None]]:
        return [task for task in self._tasks if task.cancelling()]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HTTP_HEAD_BYTES_MAX)
        writer.transport.set_write_buffer_limits(high=0)  # so that what was drained was taken by the host, and closing waits for nobody
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for number in range(HTTP_REQUESTS_MAX):
                if not await self._exchange(connection, reader, writer, last=number == HTTP_REQUESTS_MAX - 1):
                    self._lingering[_me()] = writer
                    await _linger(reader, writer)
                    break
                connection.start_next_cycle()
            writer.close()
        except (TimeoutError, OSError, asyncio.CancelledError):  # slow, gone, or in somebody's way: nobody is there to be told
            self._counters["http_ended"] += 1
        except Exception:  # noqa: BLE001 -- nobody may stop a node by asking (rule 5)
            _log.exception("a connection")
            self._counters["http_failed"] += 1
        finally:
            self._waiting.pop(_me(), None)
            self._lingering.pop(_me(), None)

    async def _exchange(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, last: bool
    ) -> bool:
        """One request and its answer; whether another may follow."""
        self._waiting[_me()] = writer
        request: Request | None = None
        try:
            async with asyncio.timeout(_WAIT_S):
                request = await self._request(connection, reader, writer)
            self._waiting.pop(_me(), None)
            if request is None:
                return False
            answer = await self._answer(request)
        except h11.RemoteProtocolError as error:
            answer, last = Answer(error.error_status_hint), True
        except _Unfit as unfit:
            answer, last = unfit.answer, True
        if connection.our_state is h11.ERROR:
            return False
        if not self._has_room(len(answer.body)):
            answer, last = Answer(503, headers=_LATER), True
        self._counters[f"http_{answer.status}"] += 1
        if len(answer.body) > SMALL_BYTES:
            self._written[_me()] = len(answer.body), asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_WAIT_S):
                await _write(connection, writer, answer, head=request is not None and request.method == "HEAD", last=last)
        finally:
            self._written.pop(_me(), None)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _request(self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
        """The next request, whole; None if the client has ended."""
        head: h11.Request | None = None
        body, pieces = bytearray(), 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                if connection.they_are_waiting_for_100_continue:
                    writer.write(connection.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                connection.receive_data(await reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                head = event
                self._fits(event)
            elif isinstance(event, h11.Data):
                pieces += 1
                body += event.data
                if len(body) > self._body_bytes_max or pieces > HTTP_PIECES_MAX:
                    raise _Unfit(413)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return Request(head.method.decode(), _path(head.target), bytes(body))
            else:
                return None

    def _fits(self, head: h11.Request) -> None:
        """Rule 2; and nothing that another reader on the way could understand otherwise."""
        names = {name for name, _ in head.headers}
        if head.http_version not in {b"1.0", b"1.1"}:
            raise _Unfit(505)
        if {b"content-length", b"transfer-encoding"} <= names:
            raise _Unfit(400)
        for name, value in head.headers:
            if name == b"content-length" and int(value) > self._body_bytes_max:  # h11 has seen that it is digits, at most twenty
                raise _Unfit(413)

    async def _answer(self, request: Request) -> Answer:
        try:
            return await self._handle(request)
        except Alarm as alarm:
            self._fatal(alarm)
            return Answer(503)
        except MeshError as error:
            _log.warning("%s %s: %s", request.method, request.path[:80], error)
            return Answer(503, headers=_LATER)
        except Exception:  # noqa: BLE001 -- nobody may stop a node by asking (rule 5)
            _log.exception("a request")
            self._counters["http_failed"] += 1
            return Answer(500)


async def _write(connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, *, head: bool, last: bool) -> None:
    headers = {"Content-Type": answer.kind, "Content-Length": str(len(answer.body)), "X-Content-Type-Options": "nosniff", **answer.headers}
    if last:
        headers["Connection"] = "close"
    begun = connection.send(h11.Response(status_code=answer.status, headers=list(headers.items()))) or b""
    body = b"" if head else answer.body
    parts = [h11.Data(data=body[at : at + _WRITE_BYTES]) for at in range(0, len(body), _WRITE_BYTES)]
    for part in parts[:-1]:  # piece by piece: others have their turn between
        writer.write(begun + (connection.send(part) or b""))
        begun = b""
        await writer.drain()
    writer.write(b"".join([begun, *(connection.send(event) or b"" for event in (*parts[-1:], h11.EndOfMessage()))]))
    await writer.drain()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read on for a moment: closing a connection with unread bytes takes back the answer that the client has not read yet."""
    with suppress(TimeoutError, OSError):
        writer.write_eof()
        async with asyncio.timeout(_LINGER_S):
            left = _LINGER_BYTES
            while left > 0 and (data := await reader.read(_READ_BYTES)):
                left -= len(data)


def _path(target: bytes) -> str:
    path = target.partition(b"?")[0]
    scheme, colon, rest = path.partition(b"://")
    if colon and scheme.lower() in {b"http", b"https"}:
        path = b"/" + rest.partition(b"/")[2]
    return path.decode("ascii", "replace")


def _me() -> "asyncio.Task[None]":
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 -- everything here runs in a task
    return task


def listen_address(text: str) -> tuple[str, int]:
    """``host:port`` as two; an IPv6 host stands in brackets.

    Raises:
        Refused: ``config_invalid``.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 1 << 16):
        raise Refused("config_invalid", f"listen {text[:80]!r}: not host:port")
    return host, int(port)
