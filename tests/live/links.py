"""A TCP proxy for one link to the bus, which delays, holds back, swallows or cuts what passes, in either direction."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Final, Literal

__all__ = ["FAULTS", "Fault", "Link"]

Fault = Literal["pass", "delay", "hold", "swallow", "cut"]
FAULTS: Final[tuple[Fault, ...]] = ("delay", "hold", "swallow", "cut")
_DELAY_S: Final = 0.4
_CHUNK: Final = 65_536


class Link:
    """Listens on a free port and connects each client to the bus.

    ``delay`` lets everything pass 400 ms later, ``hold`` keeps it back and lets all of it pass at once afterwards, ``swallow``
    reads and forgets it (a half-open connection, which is closed afterwards), ``cut`` closes connections and refuses new ones.
    """

    def __init__(self, name: str, bus_port: int) -> None:
        self.name = name
        self._bus_port = bus_port
        self._up: Fault = "pass"
        self._down: Fault = "pass"
        self._changed = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self._tasks = set[asyncio.Task[None]]()
        self._writers = set[asyncio.StreamWriter]()
        self._spoilt = set[asyncio.StreamWriter]()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def become(self, up: Fault, down: Fault) -> None:
        """From now on; ``up`` is towards the bus."""
        self._up, self._down = up, down
        if "cut" in {up, down}:
            self._drop(self._writers)
        elif up == down == "pass":
            self._drop(self._spoilt)  # what was swallowed is missing in the middle of a protocol
        async with self._changed:
            self._changed.notify_all()

    def _drop(self, writers: set[asyncio.StreamWriter]) -> None:
        for writer in list(writers):
            writer.close()
        writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if "cut" in {self._up, self._down}:
            writer.close()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._bus_port)
        except OSError:
            writer.close()
            return
        pair = (writer, far_writer)
        self._writers |= set(pair)
        self._spawn(self._pump(reader, far_writer, pair, lambda: self._up))
        self._spawn(self._pump(far_reader, writer, pair, lambda: self._down))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: tuple[asyncio.StreamWriter, ...], fault: Callable[[], Fault]
    ) -> None:
        late = asyncio.Queue[tuple[float, bytes]]()
        sender = asyncio.get_running_loop().create_task(self._send(late, writer, fault))
        try:
            with suppress(OSError):
                while data := await reader.read(_CHUNK):
                    if fault() == "swallow":
                        self._spoilt |= set(pair)
                    else:
                        at_s = asyncio.get_running_loop().time() + (_DELAY_S if fault() == "delay" else 0.0)
                        late.put_nowait((at_s, data))
        finally:
            sender.cancel()
            self._drop(set(pair))
            self._writers -= set(pair)
            self._spoilt -= set(pair)

    async def _send(self, late: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter, fault: Callable[[], Fault]) -> None:
        with suppress(OSError):
            while True:
                at_s, data = await late.get()
                await asyncio.sleep(max(0.0, at_s - asyncio.get_running_loop().time()))
                async with self._changed:
                    await self._changed.wait_for(lambda: fault() != "hold")
                writer.write(data)
                await writer.drain()
