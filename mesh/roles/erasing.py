"""What an erasure names goes from this node's disk, and its log says so.

Rules
-----
1. What is not final in the node's own log stays until it is: nobody else is sure to have the openings by which the others repeat it. All
   else goes at once.
2. Only once no byte is left in the file or its WAL is it recorded, once: the record is the node's signed word.
3. What came back with an old copy of the disk goes again, also if the log says already that it went.
4. Nothing is done before a start is through: until then the own log may not be back, which says what is final in it and what was said.
5. A file that ends ends this; whoever writes to it has noticed. What could not be deleted now, because the file was busy, or because
   somebody reads an older state of it, is deleted later.
6. Only the own log says what is not final there, and what it has said: others may write what they like of any id, as often as they like.

Not here: copies of the disk, of which the node knows nothing; who may erase (:mod:`mesh.core.law.erase`).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from mesh.adapters.store import Store
from mesh.errors import Unavailable
from mesh.protocol.gossip import OpeningsErased
from mesh.roles.performer import Performer

__all__ = ["erase_for_ever"]

_LOOK_S: Final = 0.1
"""Between two looks. What waits does so for attestations, or for a reader to end; what is done costs a look nothing."""

_log = logging.getLogger(__name__)


async def erase_for_ever(performer: Performer, tell: Callable[[OpeningsErased], None]) -> None:
    """Erase what any erasure names that ``performer`` comes to hold, as long as its file is open; ``tell`` takes what is done."""
    work = _Erasing(performer, tell)
    while not performer.store.ended:  # rule 5
        due = performer.state.governance.erasures if performer.state.barrier is None else dict[str, tuple[str, ...]]()  # rule 4
        for identity, intents in due.items():
            try:
                await work.look(identity, intents)
            except Unavailable as error:
                work.wait(identity, error)
        await asyncio.sleep(_LOOK_S)


class _Erasing:
    def __init__(self, performer: Performer, tell: Callable[[OpeningsErased], None]) -> None:
        self._performer = performer
        self._tell = tell
        self._begun = set[str]()
        """Erasures of which all that could go was deleted since the file was opened: before, its WAL may hold what it had deleted."""
        self._in_wal = set[str]()
        """Those of which something was deleted, and may stand in the WAL still."""
        self._left = True
        """Whether the WAL may be that of a process that was killed, with what it had overwritten."""
        self._done = set[str]()
        self._warned = set[str]()

    def wait(self, identity: str, error: Unavailable) -> None:
        """It is tried again and again; said once."""
        if identity not in self._warned:
            _log.warning("erasure %s waits: %s", identity[:12], error)
            self._warned.add(identity)

    async def look(self, identity: str, intents: Sequence[str]) -> None:
        """Do what can be done now for one erasure."""
        if identity in self._done:
            return
        store, log = self._performer.store, self._performer.state.log
        recorded = await store.newest_in(log.origin, identity) >= 0
        here = await store.unerased(intents)
        asked = here if recorded or identity in self._begun else intents
        ready = [intent for intent in asked if not await _pending(store, intent, log.origin, log.certified)]
        if ready or identity in self._in_wal or self._left:
            self._begun.add(identity)
            self._in_wal.add(identity)
            await store.erase(ready)
            self._in_wal.remove(identity)
            self._left = False
        if await store.unerased(intents):
            return
        if not recorded:
            self._tell(OpeningsErased(identity))
        self._done.add(identity)


async def _pending(store: Store, intent: str, origin: str, certified: int) -> bool:
    """Rule 1."""
    return await store.newest_in(origin, intent) >= certified
