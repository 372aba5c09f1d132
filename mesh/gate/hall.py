"""A thread with an event loop of its own, which ends when the program does.

Rules
-----
1. Who waits here and is cancelled or interrupted cancels what was waited for.
2. After a fork there is no thread in the child: every call is refused instead of waiting for ever.
3. The thread looks whether the main thread is still there. Python waits for it at exit, so what must be written is written.

Not here: what runs on it.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, TypeVar

from mesh.errors import Unavailable

__all__ = ["Hall"]

T = TypeVar("T")

_LOOK_S: Final = 0.1


class Hall:
    """The thread; :meth:`close` it, or let the main thread end."""

    def __init__(self, name: str) -> None:
        """Start it."""
        self._pid = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._over = threading.Event()
        self._awake = asyncio.Event()
        self._closing = threading.Lock()
        self._farewell: Callable[[], Awaitable[None]] | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=False)
        self._thread.start()

    def at_exit(self, farewell: Callable[[], Awaitable[None]]) -> None:
        """What to do when the program ends without having closed (rule 3)."""
        self._farewell = farewell

    def submit(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run ``work`` there.

        Raises:
            Unavailable: ``unavailable`` in a forked child, ``draining`` after the end.
        """
        if self._pid != os.getpid():
            work.close()
            raise Unavailable("unavailable", "connect anew after a fork")
        if self._over.is_set():
            work.close()
            raise Unavailable("draining", "the gate is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[[], None]) -> None:
        """Call ``function`` there, soon."""
        if not self._over.is_set():
            self._loop.call_soon_threadsafe(function)

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` there and block until it is done."""
        future = self.submit(work)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # rule 1: KeyboardInterrupt, too
            raise

    async def wait_async(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` there and wait on the caller's own event loop."""
        return await asyncio.wrap_future(self.submit(work))

    def close(self, farewell: Coroutine[Any, Any, None]) -> None:
        """Run ``farewell`` there and end the thread. Idempotent; the farewell of a second call is not run."""
        with self._closing:
            if self._over.is_set() or self._pid != os.getpid():
                farewell.close()
                return
            try:
                self.wait(farewell)
            finally:
                self._over.set()
                self._loop.call_soon_threadsafe(self._awake.set)
                self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._live())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _live(self) -> None:
        main = threading.main_thread()
        while not self._over.is_set() and main.is_alive():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._awake.wait(), _LOOK_S)
        if not self._over.is_set():
            self._over.set()
            if self._farewell is not None:
                await self._farewell()
