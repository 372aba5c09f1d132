"""Whatever a host answers, asking it ends, and costs a bounded amount."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mesh.adapters import httpclient
from mesh.adapters.httpclient import Reply, admit_url, ask
from mesh.errors import Unavailable
from tests.core.kit import refuses


@asynccontextmanager
async def host(answer: bytes, *, hold: bool = False) -> AsyncIterator[str]:
    writers = list[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.read(10)
        writer.write(answer)
        if not hold:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


ANSWERS = {
    "nothing": b"",
    "garbage": b"\x00\x01\x02\r\n\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
    "too much": b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n" + bytes(101),
    "no end": b"HTTP/1.1 200 OK\r\n\r\n" + bytes(10_000),
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 10_000,
    "another protocol": b"SSH-2.0-OpenSSH_9.9\r\n",
    "only promises": b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
}


@pytest.mark.parametrize("what", ANSWERS)
async def test_a_host_that_answers_badly_is_unreachable(what: str) -> None:
    async with host(ANSWERS[what]) as url:
        with pytest.raises(Unavailable) as caught:
            await ask(url, wait_ms=2_000, bytes_max=100)
        assert caught.value.code == "unreachable"


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"])
async def test_a_host_that_does_not_end_is_left_in_time(sent: bytes) -> None:
    async with host(sent, hold=True) as url:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Unavailable):
            await ask(url, wait_ms=300, bytes_max=100)
        assert asyncio.get_running_loop().time() - began < 2


async def test_an_answer_as_large_as_allowed_is_taken_and_a_redirect_is_only_an_answer() -> None:
    async with host(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Type: Text/X; a=b\r\nContent-Length: 100\r\n\r\n" + bytes(100)
    ) as url:
        assert await ask(url, wait_ms=2_000, bytes_max=100) == Reply(302, "text/x", bytes(100))


async def test_nobody_there_and_a_wrong_certificate_are_unreachable() -> None:
    async with host(b"\x15\x03\x01\x00\x02\x02\x28") as url:
        for address in ("http://127.0.0.1:1", url.replace("http:", "https:"), "http://no.such.host.invalid"):
            with pytest.raises(Unavailable):
                await ask(address, wait_ms=2_000, bytes_max=100)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "ftp://x", "file:///etc/passwd", "http://", "http://x:y", "http://x:0", "http://u:p@x", "http://x?q", "http://x#f"),
        *("http://x y", "http://x\r\nHost: y", "http://[x", "http://ü"),
    ],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with refuses("config_invalid"):
        admit_url(url)


async def test_names_that_are_looked_up_without_end_keep_nothing_else_from_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    real = socket.getaddrinfo

    def slow(name: str, *given: Any, **more: Any) -> Any:
        if name.endswith(".slow"):
            release.wait(20)
            raise socket.gaierror("at last")
        return real(name, *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    try:
        async with host(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as url:
            asked = [ask(f"http://{number}.slow", wait_ms=300, bytes_max=9) for number in range(httpclient.LOOKUPS_MAX - 1)]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            assert [getattr(answer, "code", "") for answer in answers] == ["unreachable"] * len(asked)
            assert await asyncio.wait_for(asyncio.to_thread(len, "free"), 1) == 4
            assert (await ask(url, wait_ms=2_000, bytes_max=9)).status == 200
            with pytest.raises(Unavailable, match="no answer within"):
                await ask("http://last.slow", wait_ms=100, bytes_max=9)
            with pytest.raises(Unavailable, match="looked up already"):
                await ask("http://more.slow", wait_ms=9_000, bytes_max=9)
    finally:
        release.set()
