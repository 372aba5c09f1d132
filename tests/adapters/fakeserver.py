"""A server that speaks just enough NATS to lie: what a client sends before it is sure can be seen here."""

import asyncio
import json
from types import TracebackType
from typing import Any, Self

__all__ = ["FakeServer"]


class FakeServer:
    """Greets with ``info``, answers PING, and keeps what it was sent."""

    def __init__(self, **info: Any) -> None:
        self.info = {"server_id": "X", "version": "2.15.1", "headers": True, "max_payload": 1_048_576, **info}
        self.heard = bytearray()
        self.writers: list[asyncio.StreamWriter] = []
        self.nonsense = b""
        """Said instead of a greeting."""
        self.accepted = 0
        self.url = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()

    def hang_up(self) -> None:
        """Break every connection."""
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    def say(self, line: bytes) -> None:
        """Send raw protocol to every client."""
        for writer in self.writers:
            writer.write(line)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.accepted += 1
        writer.write(self.nonsense or b"INFO " + json.dumps(self.info).encode() + b"\r\n")
        try:
            while line := await reader.readline():
                self.heard += line
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
            if writer in self.writers:
                self.writers.remove(writer)
