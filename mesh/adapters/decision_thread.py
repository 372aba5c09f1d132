"""One thread with a stack of known size, on which everything that parses or evaluates policy runs.

Rules
-----
1. Cedar's evaluator gives up by *remaining stack*, and a policy that gives up is skipped: on another stack size the same
   forbid may stay silent. So the stack is 16 MiB on every host, whatever ``ulimit -s`` says, and is measured before use.
2. Whole batches are submitted: a hop between threads costs more than a decision.
3. There is one such thread per engine, because evaluation holds the interpreter lock anyway; more speed takes more processes.
"""

import asyncio
import ctypes
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, ParamSpec, TypeVar

from mesh.errors import Unavailable

__all__ = ["STACK_BYTES", "DecisionThread"]

STACK_BYTES: Final = 16 << 20
_ATTR_WORDS: Final = 32
"""pthread_attr_t is 56 or 64 bytes where we run; this is 256."""
_creating = threading.Lock()

P = ParamSpec("P")
T = TypeVar("T")


class DecisionThread:
    """A thread of our own. Close it, or leave it to the end of the process.

    Raises:
        Unavailable: ``engine_unavailable`` if the thread did not get its stack.
    """

    def __init__(self) -> None:
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._gate = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="decide", daemon=True)
        with _creating:
            before = threading.stack_size(STACK_BYTES)
            try:
                self._thread.start()
            finally:
                threading.stack_size(before)
        if self.call(_stack_bytes) < STACK_BYTES:
            self.close()
            raise Unavailable("engine_unavailable", "the decision thread did not get its stack")

    @property
    def inside(self) -> bool:
        """Whether the caller runs on this thread."""
        return threading.current_thread() is self._thread

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``function`` returns or raises, having run on this thread; for asyncio code.

        Raises:
            Unavailable: ``engine_unavailable`` once the thread is closed.
        """
        return await asyncio.wrap_future(self._submit(lambda: function(*args, **kwargs)))

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for plain code: waits. On this very thread it simply calls.

        Raises:
            Unavailable: ``engine_unavailable`` once the thread is closed.
        """
        if self.inside:
            return function(*args, **kwargs)
        return self._submit(lambda: function(*args, **kwargs)).result()

    def close(self) -> None:
        """Finish what was submitted, then end the thread. Closing twice is once."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        if not self.inside:
            self._thread.join()

    def _submit(self, function: Callable[[], T]) -> "Future[T]":
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function())
            except BaseException as error:  # noqa: BLE001 -- it belongs to whoever waits, and the thread must live on
                future.set_exception(error)

        with self._gate:  # so that nothing is queued behind the end, to wait for ever
            if self._closed:
                raise Unavailable("engine_unavailable", "the decision thread is closed")
            self._jobs.put(job)
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


def _stack_bytes() -> int:
    """The stack size of the calling thread, as the C library sees it; where it cannot say, what was asked for."""
    if sys.platform != "linux":
        return STACK_BYTES
    library: Any = ctypes.CDLL(None)
    attributes = (ctypes.c_ulong * _ATTR_WORDS)()
    size = ctypes.c_size_t()
    library.pthread_self.restype = ctypes.c_ulong
    if library.pthread_getattr_np(ctypes.c_ulong(library.pthread_self()), attributes) != 0:
        return 0
    failed = library.pthread_attr_getstacksize(attributes, ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    return 0 if failed else size.value
