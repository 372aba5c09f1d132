"""What must reach a stream is sent until the stream says it has it; what waits is bounded, for auditors can also pull.

Order of first sending is kept; a message that was not acknowledged is sent again with the same id, which the stream drops if
it had it after all.
"""

import asyncio
import hashlib
import logging
from contextlib import suppress
from typing import Final

from mesh.adapters.bus import Bus
from mesh.errors import MeshError

__all__ = ["Outbox"]

_ACK_MS: Final = 2_000
_RETRY_S_MAX: Final = 5.0
_WAITING_BYTES_MAX: Final = 64 << 20
"""Of messages without acknowledgement; beyond, the oldest are left to anti-entropy."""

_log = logging.getLogger(__name__)


class Outbox:
    """The durable publications of one node."""

    def __init__(self, bus: Bus) -> None:
        """Publish over ``bus``."""
        self._bus = bus
        self._waiting: dict[asyncio.Task[None], int] = {}
        self.counters = {"stored": 0, "abandoned": 0}

    def put(self, subject: str, data: bytes) -> None:
        """Send ``data`` now, and again until a stream has it."""
        task = asyncio.get_running_loop().create_task(self._send(subject, data))
        self._waiting[task] = len(data)
        task.add_done_callback(lambda done: self._waiting.pop(done, None))
        while sum(self._waiting.values()) > _WAITING_BYTES_MAX:
            oldest = next(iter(self._waiting))
            self._waiting.pop(oldest)
            oldest.cancel()
            self.counters["abandoned"] += 1

    async def close(self, *, wait_s: float) -> None:
        """Give what waits a last chance, then let it go."""
        if self._waiting:
            await asyncio.wait(set(self._waiting), timeout=wait_s)
        for task in list(self._waiting):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _send(self, subject: str, data: bytes) -> None:
        message_id = hashlib.sha256(subject.encode() + b"\n" + data).hexdigest()
        pause = 0.25
        while True:
            try:
                await self._bus.store(subject, data, message_id=message_id, timeout_ms=_ACK_MS)
            except MeshError as error:
                _log.debug("not stored on %s: %s", subject, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RETRY_S_MAX)
                continue
            self.counters["stored"] += 1
            return
