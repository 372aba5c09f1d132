"""One HTTP/1.1 question to a host that is not trusted: one connection, one answer of bounded size, within a bounded time.

Redirects are not followed, nothing is kept between questions, and a proxy of the environment is not asked. h11 reads the protocol.
Names are looked up in threads of its own, :data:`LOOKUPS_MAX` at a time: one that hangs cannot be ended, and must keep neither others
from their threads nor the process from ending.
An ``https`` host must show a certificate that this machine trusts.

Not here: what is asked, and what the answer is worth.
"""

import asyncio
import socket
import ssl
import threading
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import h11

from mesh.errors import Refused, Unavailable
from mesh.limits import HTTP_HEAD_BYTES_MAX, HTTP_PIECES_MAX

__all__ = ["LOOKUPS_MAX", "Reply", "admit_url", "ask"]

LOOKUPS_MAX: Final = 8
_READ_BYTES: Final = 65_536
_PORTS: Final = {"http": 80, "https": 443}
_lookups = threading.BoundedSemaphore(LOOKUPS_MAX)


class Reply(NamedTuple):
    """What the host answered."""

    status: int
    kind: str
    """Content type, without parameters, in lower case."""
    body: bytes


def admit_url(url: str) -> SplitResult:
    """An address that can be asked.

    Raises:
        Refused: ``config_invalid`` for what is no ``http`` or ``https`` address, or has a login, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in _PORTS and parts.hostname and parts.username is None and not parts.query and not parts.fragment
        good = good and url.isascii() and url.isprintable() and " " not in url and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
        parts = SplitResult("", "", "", "", "")
    if not good:
        raise Refused("config_invalid", f"url {url[:80]!r}")
    return parts


async def ask(url: str, *, method: str = "GET", body: bytes = b"", wait_ms: int, bytes_max: int) -> Reply:
    """The answer of ``url``, whole within ``wait_ms`` and of at most ``bytes_max`` bytes.

    Raises:
        Refused: ``config_invalid``, as :func:`admit_url`.
        Unavailable: ``unreachable``, with what was wrong.
    """
    parts = admit_url(url)
    try:
        async with asyncio.timeout(wait_ms / 1000):
            return await _exchange(parts, method, body, bytes_max)
    except TimeoutError:
        raise Unavailable("unreachable", f"{parts.hostname}: no answer within {wait_ms} ms") from None
    except (OSError, ValueError, h11.RemoteProtocolError) as error:  # ssl.SSLError is an OSError; a bad host name a UnicodeError
        raise Unavailable("unreachable", f"{parts.hostname}: {type(error).__name__}: {error}"[:200]) from None


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads every certificate of the machine: some milliseconds, once


async def _exchange(parts: SplitResult, method: str, body: bytes, bytes_max: int) -> Reply:
    tls = _tls() if parts.scheme == "https" else None
    port = parts.port or _PORTS[parts.scheme]
    reader, writer = await _connected(parts.hostname or "", port, tls)
    try:
        connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=HTTP_HEAD_BYTES_MAX)
        headers = [("Host", parts.netloc), ("Content-Length", str(len(body))), ("Connection", "close"), ("User-Agent", "govmesh")]
        events: list[h11.Event] = [h11.Request(method=method, target=parts.path or "/", headers=headers)]
        events += [h11.Data(data=body), h11.EndOfMessage()] if body else [h11.EndOfMessage()]
        writer.write(b"".join(connection.send(event) or b"" for event in events))
        with suppress(ConnectionError):  # it may have answered before it had read all
            await writer.drain()
        return await _reply(connection, reader, bytes_max)
    finally:
        writer.transport.abort()


async def _connected(host: str, port: int, tls: ssl.SSLContext | None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: OSError = socket.gaierror(f"{host} has no address")
    for address in await _addresses(host, port):
        try:
            return await asyncio.open_connection(address, port, ssl=tls, server_hostname=host if tls else None, limit=_READ_BYTES)
        except OSError as error:
            failure = error
    raise failure


async def _addresses(host: str, port: int) -> list[str]:
    """What the name stands for.

    Raises:
        OSError: nothing, or too many names are being looked up.
    """
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def tell(addresses: list[str], error: OSError | UnicodeError | None) -> None:
        if not found.done() and error is None:
            found.set_result(addresses)
        elif not found.done() and error is not None:
            found.set_exception(error)

    def look_up() -> None:
        addresses, failed = list[str](), None
        try:
            addresses = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            failed = error
        finally:
            _lookups.release()
        with suppress(RuntimeError):  # nobody waits any more: the loop has ended
            loop.call_soon_threadsafe(tell, list(dict.fromkeys(addresses)), failed)

    if not _lookups.acquire(blocking=False):
        raise OSError(f"{LOOKUPS_MAX} names are being looked up already")
    threading.Thread(target=look_up, name=f"looks up {host[:40]}", daemon=True).start()
    return await found


async def _reply(connection: h11.Connection, reader: asyncio.StreamReader, bytes_max: int) -> Reply:
    status, kind, body, pieces = 0, "", bytearray(), 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_READ_BYTES))
        elif isinstance(event, h11.Response):
            status = event.status_code
            kind = next((value for name, value in event.headers if name == b"content-type"), b"").decode("latin-1")
        elif isinstance(event, h11.Data):
            pieces += 1
            body += event.data
            if len(body) > bytes_max or pieces > HTTP_PIECES_MAX:
                raise ValueError(f"an answer of more than {bytes_max} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return Reply(status, kind.partition(";")[0].strip().lower(), bytes(body))
        elif not isinstance(event, h11.InformationalResponse):
            raise ValueError("it ended without an answer")
