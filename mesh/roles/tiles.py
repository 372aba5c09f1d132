"""A governor's log for people without any login: C2SP tlog-tiles over HTTP, read from the file.

Rules
-----
1. What is served is what a checkpoint covers that k members attested: a record that nobody vouched for yet is not published.
2. Everything of a log stands below its origin (``/mesh/node/e1/tile/0/000``): whose keys change begins another log, with other bytes.
   Tiles and entries never change, and say so; a checkpoint is asked for again; what is not there yet must not be remembered.
   ``/checkpoint`` alone says which log there is now.
3. Only :data:`LOOKUPS_MAX` request of each kind reads the file at a time, and what it reads is paid for in time
   (:data:`BYTES_PER_S`): people outside never crowd out the mesh, which decides on the same thread.
4. Leaf data is served as it stands. It holds what is public: parameters that policy marks as committed are in no record.

Not here: HTTP (:mod:`mesh.adapters.httpserver`), external witnesses (:mod:`mesh.roles.cosigners`).
"""

import asyncio
from collections.abc import Callable
from typing import Final

from mesh.adapters.httpserver import TEXT, Answer, Request
from mesh.adapters.store import Store
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.tiles import Tile, entry_bundle, tile_of
from mesh.errors import Refused

__all__ = ["BYTES_PER_S", "LOOKUPS_MAX", "Tiles"]

LOOKUPS_MAX: Final = 1
"""Of hashes, and of entries, which are larger and would keep them waiting."""
BYTES_PER_S: Final = 8 << 20
"""Of each lookup. What lies before a proxy's cache is asked for once."""
_PAUSE_S: Final = 0.005
"""After the smallest."""
_BYTES: Final = "application/octet-stream"
_FOR_EVER: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
_AGAIN: Final = {"Cache-Control": "no-cache"}
_NOT_THERE: Final = {"Cache-Control": "no-store"}


class Tiles:
    """Answers of the door."""

    def __init__(self, store: Callable[[], Store], checkpoint: Callable[[], bytes]) -> None:
        """Read from ``store``, which may raise while it is closed; ``checkpoint`` is what is published now, empty for nothing yet."""
        self._store = store
        self._checkpoint = checkpoint
        self._looking = {entries: asyncio.Semaphore(LOOKUPS_MAX) for entries in (False, True)}

    async def answer(self, request: Request) -> Answer:
        """One answer. Raises as the store does."""
        if request.method not in {"GET", "HEAD"}:
            return Answer(405, headers={"Allow": "GET, HEAD"})
        note = self._checkpoint()
        if not note:
            return Answer(404, headers=_NOT_THERE)
        if request.path == "/checkpoint":
            return Answer(200, note, TEXT, _AGAIN)
        checkpoint = read_checkpoint(note)
        place = request.path.removeprefix(f"/{checkpoint.origin}/")
        if place == "checkpoint":
            return Answer(200, note, TEXT, _AGAIN)
        try:
            tile = tile_of(place)  # of another log, or of none, it still begins with a slash
        except Refused:
            return Answer(404, headers=_NOT_THERE)
        if tile.end > checkpoint.size:
            return Answer(404, headers=_NOT_THERE)
        async with self._looking[tile.entries]:
            try:
                body = await self._read(checkpoint.origin, tile)
            except Refused as refusal:
                if refusal.code != "record_pruned":
                    raise
                return Answer(404, headers=_NOT_THERE)
            await asyncio.sleep(max(_PAUSE_S, len(body) / BYTES_PER_S))
        return Answer(200, body, _BYTES, _FOR_EVER)

    async def _read(self, origin: str, tile: Tile) -> bytes:
        if tile.entries:
            leaves = await self._store().records(origin, tile.first, tile.width)
            if len(leaves) < tile.width:  # one of them was pruned
                raise Refused("record_pruned", f"{origin} {tile.first + len(leaves)}")
            return entry_bundle(leaves)
        return b"".join(await self._store().tile(origin, tile.level, tile.first, tile.width))
