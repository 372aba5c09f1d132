"""Advances of all logs, as they happen or as the streams hold them, told one after the other.

Rules
-----
1. Without a file it listens from now on, and leaves nothing at the servers. What it misses the next note of that log makes up for.
2. With a file it reads the streams from where it was: a message is acknowledged once what it showed was told and the file says so. So
   every advance is told at least once, also after a kill, and what was saved is not told again.
3. What cannot be believed is counted and passed over; nobody is asked about it.
4. Whoever is told may say that it is enough: what they did not take was not told, and is not saved.

Not here: what a message shows (:mod:`mesh.protocol.advancing`), printing (:mod:`mesh.cli.tailing`).
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec

from mesh.adapters.bus import Bus, Delivery, Message
from mesh.adapters.streams import ensure_consumer, lineage_stream
from mesh.adapters.tailstore import TailStore
from mesh.core import subjects
from mesh.core.law.governance import Governance
from mesh.core.subjects import ANY
from mesh.errors import MeshError, Refused
from mesh.protocol.advancing import Advance, Enough, Reached, advanced, note_in

__all__ = ["Tail"]

_FETCH: Final = 64
"""Messages in one fetch from a stream: so many at most are told twice after a kill."""
_FETCH_MS: Final = 500
_RETRY_S: Final = 2.0
"""A stream that is away comes back with its servers, which takes seconds; asking more often brings it no sooner."""
_QUEUED_MAX: Final = 1_024
_KIND_TOKEN: Final = 3
"""``mesh.v1.<region>.<kind>.<node>``"""
_SHOWN: Final = (subjects.lineage, subjects.checkpoint, subjects.cosig)

_log = logging.getLogger(__name__)


class Tail:
    """One reader. :meth:`listen` and :meth:`read` live until they are cancelled, or who is told raises ``Enough`` (rule 4)."""

    def __init__(self, governance: Governance, bus: Bus, tell: Callable[[Advance], None], reached: Mapping[str, Reached]) -> None:
        """Tell what goes beyond ``reached``. :attr:`governance` may be replaced by one that knows more."""
        self.governance = governance
        self.reached = dict(reached)
        self.counters: Counter[str] = Counter()
        self._bus = bus
        self._tell = tell

    async def listen(self) -> None:
        """Rule 1."""
        queue: asyncio.Queue[Message] = asyncio.Queue(_QUEUED_MAX)

        def take(message: Message) -> None:
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                self.counters["dropped"] += 1

        subscriptions = [await self._bus.subscribe(spell(ANY, ANY), take) for spell in _SHOWN]
        try:
            while True:
                message = await queue.get()
                self._take(message.subject, message.data)
        finally:
            for subscription in subscriptions:
                await subscription.unsubscribe()

    async def read(self, store: TailStore) -> None:
        """Rule 2. Raises what the file does: :class:`~mesh.errors.Unavailable` ``storage_failed``."""
        regions = sorted({member.region for member in self.governance.roster.members})
        await asyncio.gather(*(self._read(lineage_stream(region), store) for region in regions))

    async def _read(self, stream: str, store: TailStore) -> None:
        while True:
            try:
                await ensure_consumer(self._bus, stream, store.reader)
                while True:
                    deliveries = await self._bus.pull(stream, store.reader, batch=_FETCH, timeout_ms=_FETCH_MS)
                    await self._take_all(deliveries, store)
            except MeshError as error:
                if error.code == "storage_failed":
                    raise
                _log.info("%s: %s", stream, error)
                await asyncio.sleep(_RETRY_S)

    async def _take_all(self, deliveries: list[Delivery], store: TailStore) -> None:
        for number, delivery in enumerate(deliveries):
            try:
                self._take(delivery.subject, delivery.data)
            except Enough:
                back = asyncio.ensure_future(self._hand_back(deliveries, number, store))
                with suppress(asyncio.CancelledError):  # whoever had enough ends this now, and the next one should not have to wait
                    await asyncio.shield(back)
                await back
                raise
        await self._done(deliveries, store)

    async def _hand_back(self, deliveries: list[Delivery], told: int, store: TailStore) -> None:
        """Rule 4: so many of them were told."""
        await self._done(deliveries[:told], store)
        await asyncio.gather(*(delivery.nak() for delivery in deliveries[told:]), return_exceptions=True)

    async def _done(self, deliveries: list[Delivery], store: TailStore) -> None:
        if store.reached != self.reached:
            store.save(self.reached.values())
        for delivery in deliveries:
            with suppress(MeshError):  # it comes again, and changes nothing
                await delivery.ack()

    def _take(self, subject: str, data: bytes) -> None:
        """Rule 3."""
        try:
            note = note_in(subject.split(".")[_KIND_TOKEN], data)
            if not note:
                return
            _, advances = advanced(self.reached, note, self.governance)
        except Refused:
            self.counters["garbage"] += 1
            return
        for advance in advances:
            self._tell(advance)
            before = self.reached.get(advance.origin, Reached(origin=advance.origin))
            self.reached[advance.origin] = msgspec.structs.replace(before, **{advance.state: advance.end})
