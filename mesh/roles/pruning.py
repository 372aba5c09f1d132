"""What need not be kept any more goes from this node's disk but for its hashes, a little at a time, and its log says up to where.

Rules
-----
1. A record goes if it is below a floor that the root signed, final by a certificate to whose root the records held here lead, and older
   by its own time than all that it may still be asked for (:func:`mesh.core.law.retain.outlived`).
2. One batch at a time, with pauses in between: whoever decides waits no longer than for any other commit. What was done is durable with
   each batch, so whoever is killed goes on from there.
3. Of each log the newest record stays: its time is what the next one may not be before, whoever writes it.
4. Once all below a floor has gone, and no byte of it is left in the WAL, it is recorded, once: the node's signed word.
5. Nothing is done before a start is through, or while the clock cannot be trusted. What came back with an old copy of the disk goes again.

Not here: what is overwritten (:mod:`mesh.adapters.storeprune`), who may raise a floor (:mod:`mesh.core.law.retain`).
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from mesh.adapters.store import Store
from mesh.core.law.retain import Kept, outlived
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.record import read_record
from mesh.errors import Unavailable
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.adoption import is_sure
from mesh.protocol.gossip import RecordsPruned, pruned_key
from mesh.roles.performer import Performer

__all__ = ["prune_for_ever"]

_LOOK_S: Final = 0.5
"""Between two looks: what waits does so for a certificate, or for days. A look where nothing is to be done reads a few rows."""
_PAUSE_S: Final = 0.02
"""Between two batches: some times what the transaction of one takes, so that whoever decides finds the file free."""
_CERTIFICATES_MAX: Final = 8
"""Newest ones of a log that are tried: the newest may be over more than is held."""

_log = logging.getLogger(__name__)


async def prune_for_ever(performer: Performer, tell: Callable[[RecordsPruned], None]) -> None:
    """Prune what any floor lets go that ``performer`` comes to hold, as long as its file is open; ``tell`` takes what is done."""
    work = _Pruning(performer, tell)
    while not performer.store.ended:
        for origin, kept in performer.state.governance.floors.items() if _ready(performer) else ():
            try:
                await work.look(origin, kept)
            except Unavailable as error:
                work.wait(origin, error)
        await asyncio.sleep(_LOOK_S)


def _ready(performer: Performer) -> bool:
    """Rule 5."""
    state, clock = performer.state, performer.clock
    return state.barrier is None and is_sure(state.governance, state.fresh, wall_ms=clock.wall_ms(), now_ms=clock.now_ms())


class _Pruning:
    def __init__(self, performer: Performer, tell: Callable[[RecordsPruned], None]) -> None:
        self._performer = performer
        self._tell = tell
        self._told = dict[str, int]()
        self._led = dict[str, tuple[bytes, bool]]()
        """Origin to the certificate that was tried last, and whether what is held leads to its root."""
        self._warned = set[str]()

    def wait(self, origin: str, error: Unavailable) -> None:
        """It is tried again and again; said once."""
        if origin not in self._warned:
            _log.warning("pruning %s waits: %s", origin, error)
            self._warned.add(origin)

    async def look(self, origin: str, kept: Kept) -> None:
        """Do what can be done now for one log."""
        store = self._performer.store
        if self._told.get(origin, 0) >= kept.below:
            return
        done, end = await _done(store, origin), await self._end(origin, kept)
        while done < end:
            stop = await self._outlived(origin, done, min(end, done + BATCH_RECORDS_MAX))
            if stop == done:
                return
            await store.prune(origin, below=kept.below, first=done, end=stop)
            done = stop
            await asyncio.sleep(_PAUSE_S)
        if done < kept.below:
            return
        await store.cut()
        if (await store.meta(pruned_key(origin)) or 0) < kept.below:
            self._tell(RecordsPruned(kept.id, origin, kept.below))
        self._told[origin] = kept.below

    async def _end(self, origin: str, kept: Kept) -> int:
        """Up to where records are final and may go (rules 1 and 3)."""
        held = (await self._performer.store.sizes()).get(origin, 0)
        return min(kept.below, await self._final(origin, held), held - 1)

    async def _final(self, origin: str, held: int) -> int:
        """How many of the records that are held are final."""
        store = self._performer.store
        for note in await store.certificates(origin, _CERTIFICATES_MAX):
            checkpoint = read_checkpoint(note)
            if checkpoint.size > held:
                continue
            tried, leads = self._led.get(origin, (b"", False))
            if tried != note:
                leads = (await store.frontier_at(origin, checkpoint.size)).root() == checkpoint.root
                self._led[origin] = note, leads
            return checkpoint.size if leads else 0
        return 0

    async def _outlived(self, origin: str, first: int, end: int) -> int:
        """Up to where all of these records have gone already, or are old enough to go."""
        store, now_ms = self._performer.store, self._performer.clock.now_ms()
        gone = await store.pruned(origin, first, end - first)
        if gone:
            return first + len(gone)
        for index, leaf in enumerate(await store.records(origin, first, end - first), first):
            if not outlived(read_record(leaf).at_ms, now_ms):
                return index
            first = index + 1
        return first


async def _done(store: Store, origin: str) -> int:
    floors = await store.floors()
    return floors[origin].done if origin in floors else 0
