"""A TCP proxy for one link to the bus, which delays, holds back, swallows or cuts what passes, in either direction."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

__all__ = ["Fault", "Link"]

Fault = Literal["pass", "delay", "hold", "swallow", "cut"]
_DELAY_S: Final = 0.4
_CHUNK: Final = 65_536


class Link:
    """Listens on a free port and connects each client to the bus.

    ``delay`` lets everything pass 400 ms later, ``hold`` keeps it back and lets all of it pass at once afterwards, ``swallow``
    reads and forgets it (a half-open connection, which is closed afterwards), ``cut`` closes connections and refuses new ones.
    """

    def __init__(self, name: str, bus_port: int) -> None:
        self.name = name
        self._bus = ("127.0.0.1", bus_port)
        self._up: Fault = "pass"
        self._down: Fault = "pass"
        self._changed = asyncio.Condition()
        self._listener = socket.socket()
        self._tasks = set[asyncio.Task[None]]()
        self._pairs = set[_Pair]()

    @property
    def url(self) -> str:
        """Where clients of the bus connect to."""
        return f"nats://127.0.0.1:{self._listener.getsockname()[1]}"

    async def open(self) -> None:
        """Begin to listen."""
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    async def close(self) -> None:
        """Every socket is closed when this returns."""
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pair in self._pairs:  # of a task that was ended before it began
            pair.close()

    async def become(self, up: Fault, down: Fault) -> None:
        """From now on; ``up`` is towards the bus."""
        self._up, self._down = up, down
        for pair in self._pairs:
            # What was swallowed is missing in the middle of a protocol.
            if "cut" in {up, down} or (up == down == "pass" and pair.spoilt):
                pair.end()
        async with self._changed:
            self._changed.notify_all()

    def _accept(self) -> None:
        with suppress(OSError):  # the client has gone
            near, _ = self._listener.accept()
            pair = _Pair(near)
            self._pairs.add(pair)
            task = asyncio.get_running_loop().create_task(self._join(pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _join(self, pair: "_Pair") -> None:
        try:
            if "cut" not in {self._up, self._down}:
                await asyncio.get_running_loop().sock_connect(pair.far, self._bus)
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._pump(pair.near, pair.far, pair, lambda: self._up))
                    both.create_task(self._pump(pair.far, pair.near, pair, lambda: self._down))
        except OSError:
            pass  # the bus is not there
        finally:
            self._pairs.discard(pair)
            pair.close()

    async def _pump(self, source: socket.socket, target: socket.socket, pair: "_Pair", fault: Callable[[], Fault]) -> None:
        """Carry one direction until an end closes, which ends the other direction too."""
        loop = asyncio.get_running_loop()
        late = asyncio.Queue[tuple[float, bytes]]()
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(self._send(late, target, fault))
            with suppress(OSError):
                while data := await loop.sock_recv(source, _CHUNK):
                    if fault() == "swallow":
                        pair.spoilt = True
                    else:
                        late.put_nowait((loop.time() + (_DELAY_S if fault() == "delay" else 0.0), data))
            sender.cancel()
            pair.end()

    async def _send(self, late: "asyncio.Queue[tuple[float, bytes]]", target: socket.socket, fault: Callable[[], Fault]) -> None:
        loop = asyncio.get_running_loop()
        with suppress(OSError):
            while True:
                at_s, data = await late.get()
                await asyncio.sleep(max(0.0, at_s - loop.time()))
                async with self._changed:
                    await self._changed.wait_for(lambda: fault() != "hold")
                await loop.sock_sendall(target, data)


class _Pair:
    """A client's connection and ours to the bus.

    Plain sockets: a stream's transport closes some rounds after it was told to, and one that is just being accepted not at all.
    """

    def __init__(self, near: socket.socket) -> None:
        self.near = near
        self.far = socket.socket()
        self.spoilt = False
        for end in (self.near, self.far):
            end.setblocking(False)

    def end(self) -> None:
        """Whoever reads or writes either of them finds it closed."""
        for end in (self.near, self.far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.near.close()
        self.far.close()
