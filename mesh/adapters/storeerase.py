"""Openings that were erased are in no byte of the file: overwritten where they stand, and the WAL that had them cut off.

Not DELETE: balancing a B-tree leaves copies of the rows that it moves behind in pages, also where what is deleted is overwritten
(measured: some rows in a thousand). Rows of the same length are written where they stand, and those of this table are never moved.

Not here: what a file system or a drive keeps of bytes that were overwritten.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final

from mesh.adapters.store_schema import statement_key
from mesh.adapters.storeindex import Fetch

__all__ = ["blank", "emptied"]

_ERASE: Final = "INSERT INTO erased (intent) VALUES (?) ON CONFLICT DO NOTHING"
_BLANK: Final = "UPDATE opening SET openings = zeroblob(length(openings)), sum = 0 WHERE intent = ?"


async def blank(many: Callable[[str, Sequence[tuple[bytes]]], Awaitable[None]], intents: Collection[str]) -> None:
    """Overwrite the openings of these intents, and take none of them in again.

    Raises:
        Refused: ``malformed``: an id is none.
    """
    keys = [(statement_key(intent),) for intent in sorted(intents)]
    await many(_ERASE, keys)
    await many(_BLANK, keys)


async def emptied(fetch: Fetch) -> bool:
    """Whether all that is in the WAL was written into the file, and the WAL cut off; not while somebody reads an older state.

    That is not waited for: whoever hashes all of a large file may read for minutes, and meanwhile nothing else could be written.
    """
    ((wait_ms,),) = await fetch("PRAGMA busy_timeout", ())
    await fetch("PRAGMA busy_timeout = 0", ())
    try:
        ((busy, _, _),) = await fetch("PRAGMA wal_checkpoint(TRUNCATE)", ())
    finally:
        await fetch(f"PRAGMA busy_timeout = {int(wait_ms)}", ())
    return int(busy) == 0
