"""What the disk holds is what was written, or the node hears of it: the newest at start, everything again and again after.

Not here: what a mismatch is (:mod:`mesh.adapters.storequeries`), what follows from it (:mod:`mesh.roles.governor`).
"""

import asyncio
from contextlib import aclosing
from typing import Final

from mesh.adapters.store import Store
from mesh.limits import BATCH_RECORDS_MAX

__all__ = ["START_RECORDS", "scrub_for_ever", "scrub_newest"]

START_RECORDS: Final = 10_000
"""Records verified before a node starts: a tenth of a second or so."""
_PAUSE_S: Final = 0.1
"""Between 128 records each: some 1,300 a second for less than a hundredth of a core."""


async def scrub_newest(store: Store, origin: str, size: int) -> None:
    """Verify the newest records of a log, all of it with its branches and roots if it is not longer than :data:`START_RECORDS`.

    Raises:
        Alarm: as :meth:`mesh.adapters.storequeries.Queries.scrubbing`.
    """
    if size <= START_RECORDS:
        await store.scrub(origin)
        return
    for first in range(size - START_RECORDS, size, BATCH_RECORDS_MAX):
        await store.verify(origin, first, BATCH_RECORDS_MAX)


async def scrub_for_ever(store: Store) -> None:
    """Verify all logs in turn, a little at a time, until cancelled.

    Raises:
        Alarm: as above.
        Unavailable: the storage has ended.
    """
    while True:
        for origin in await store.sizes():
            async with aclosing(store.scrubbing(origin)) as chunks:
                async for _ in chunks:
                    await asyncio.sleep(_PAUSE_S)
        await asyncio.sleep(_PAUSE_S)
