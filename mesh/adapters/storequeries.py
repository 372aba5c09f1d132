"""What a node's file is asked. Nothing is believed because it was on the disk: records are hashed, the rest is summed.

Rules
-----
1. Every record is hashed again whenever it is read; every body, opening, note, head and fact is summed again.
2. A frontier is what signed roots are made from, so it is rebuilt from hashes that lead to a root this node signed (or
   witnessed, or attested), and from the data of the records beyond it. What leads nowhere is an alarm, never a frontier.
3. A record below its log's floor may have its hash only; above, that is an alarm like any other that does not have its hash.
4. A missing row is an answer (``None``, or left out); a wrong one is an :class:`~mesh.errors.Alarm`.
5. Proofs read O(log n) branch hashes and at most 255 hashes per eighth level; whoever checks the proof checks them.

Not here: how a query reaches SQLite (``fetch`` is handed in), and what is asked by statement id (:mod:`mesh.adapters.storefind`).
"""

from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

from mesh.adapters.store_schema import LEVELS, checksum, fact_sum, floor_sum, head_sum, is_gone, note_sum, statement_key
from mesh.adapters.storeindex import Fetch
from mesh.adapters.storeprune import StoredFloor
from mesh.core.log import merkle
from mesh.core.log.merkle import Frontier, Get, branch_hash, leaf_hash
from mesh.errors import Alarm, Refused
from mesh.limits import BATCH_RECORDS_MAX
from mesh.protocol.step import Head, HeadUse

__all__ = ["KEYS_MAX", "Queries", "StoredNote"]

KEYS_MAX: Final = 512
"""Keys in one query: SQLite bounds its variables, and a statement is kept for each count."""
_ORIGIN: Final = "(SELECT id FROM log WHERE origin = ?)"
_EMPTY: Final = bytes(32)
_NONE: Final[Mapping[int, Collection[bytes]]] = MappingProxyType({})


class StoredNote(NamedTuple):
    """A signed note and the size it is about."""

    size: int
    note: bytes


class Queries:
    """The reads of records and of what is signed about them.

    All of them raise :class:`~mesh.errors.Unavailable` ``storage_failed`` when the file cannot be read, and
    :class:`~mesh.errors.Alarm` ``storage_corrupt`` when what it says cannot be.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch

    async def sizes(self) -> dict[str, int]:
        """Records held, by origin; an origin without records is left out."""
        found = await self._fetch("SELECT origin, (SELECT max(idx) + 1 FROM record WHERE log = log.id) FROM log", ())
        return {origin: size for origin, size in found if size is not None}

    async def heads(self) -> dict[tuple[HeadUse, str], Head]:
        """What was signed last, by use and origin."""
        heads: dict[tuple[HeadUse, str], Head] = {}
        for use, origin, size, root, time_s, total in await self._fetch(
            "SELECT use, origin, size, root, time_s, sum FROM head JOIN log ON log.id = head.log", ()
        ):
            head = Head(size, root, time_s)
            _believe(total == head_sum(use, origin, head), f"{use} head of {origin}")
            heads[use, origin] = head
        return heads

    async def frontier(self, origin: str) -> Frontier:
        """The frontier of all records held of a log (rule 2)."""
        return await self.frontier_at(origin, await self._size(origin))

    async def frontier_at(self, origin: str, size: int) -> Frontier:
        """The frontier of the first ``size`` records of a log (rule 2).

        Raises:
            Refused: ``not_found`` when fewer are held.
        """
        held = await self._require(origin, size)
        heads = [head for (_, name), head in (await self.heads()).items() if name == origin and 0 < head.size <= held]
        heads.sort(key=lambda head: head.size)
        anchor = next((head for head in heads if head.size >= size), heads[-1] if heads else None)
        frontier = Frontier.empty()
        if anchor is not None and size:
            frontier = await self._anchored(origin, min(size, anchor.size), anchor)
        while frontier.size < size:
            count = min(BATCH_RECORDS_MAX, size - frontier.size)
            frontier = frontier.extend([leaf for _, leaf in await self._records(origin, frontier.size, count)])
        return frontier

    async def records(self, origin: str, first: int, count: int) -> list[bytes]:
        """Leaf data of the records from ``first`` on: at most ``count``, fewer where the log ends or one was pruned.

        Raises:
            Refused: ``record_pruned`` if the first one was.
        """
        found = [data for data, _ in await self._records(origin, first, count)]
        if found and not found[0]:
            raise Refused("record_pruned", f"{origin} {first}")
        return found[: found.index(b"")] if b"" in found else found

    async def pruned(self, origin: str, first: int, count: int) -> list[bytes]:
        """Leaf hashes of the records from ``first`` on of which nothing else is held, up to one that is: at most ``count``."""
        found = await self._records(origin, first, count)
        kept = next((at for at, (data, _) in enumerate(found) if data), len(found))
        return [leaf for _, leaf in found[:kept]]

    async def verify(self, origin: str, first: int, count: int) -> None:
        """Hash these records again, as far as more than the hash is held."""
        await self._records(origin, first, count)

    async def floors(self) -> dict[str, StoredFloor]:
        """From where on all is held of each log of which something may have been pruned."""
        floors = dict[str, StoredFloor]()
        for origin, below, done, total in await self._fetch(_FLOORS, ()):
            _believe(total == floor_sum(origin, below, done), f"floor of {origin}")
            floors[origin] = StoredFloor(below, done)
        return floors

    async def law(self, stream: str, sequence: int, after: str, count: int) -> list[bytes]:
        """Envelopes of a governance stream's statements behind (sequence, after) in the order (number, id): at most ``count``.

        Raises:
            Refused: ``malformed`` for an id that is none.
        """
        key = statement_key(after) if after else b""
        rows = await self._fetch(_LAW, (stream, sequence, key, count))
        return [envelope for _, envelope in _believed(rows)]

    async def all_law(self) -> list[tuple[str, bytes]]:
        """(id, envelope) of every governance statement, by stream and number."""
        return _believed(await self._fetch("SELECT id, envelope, sum FROM law ORDER BY stream, sequence, id", ()))

    async def bundle(self, digest: str) -> bytes | None:
        """The policy bundle of that digest, if it is held."""
        for data, total in await self._fetch("SELECT data, sum FROM bundle WHERE digest = ?", (digest,)):
            _believe(total == checksum(data), f"policy bundle {digest}")
            return bytes(data)
        return None

    async def note(
        self,
        space: Literal["checkpoint", "attested", "certificate", "cosigned", "outside", "heartbeat", "refused"],
        origin: str,
        *,
        member: str = "",
        at_least: int = 0,
        latest: bool = False,
    ) -> StoredNote | None:
        """The note over the smallest size of at least ``at_least`` records, or over the largest if ``latest``; ``member`` who cosigned."""
        place = f"{space} {member}".rstrip()
        sql = f"SELECT size, note, sum FROM note WHERE space = ? AND log = {_ORIGIN} AND size >= ? ORDER BY size"  # noqa: S608 -- our own text
        rows = await self._fetch(f"{sql} DESC LIMIT 1" if latest else f"{sql} LIMIT 1", (place, origin, at_least))
        for size, note, total in rows:
            _believe(total == note_sum(place, origin, size, note), f"{place} of {origin} at size {size}")
            return StoredNote(size, note)
        return None

    async def certificates(self, origin: str, count: int) -> list[bytes]:
        """The newest certificates of a log, at most ``count``, newest first."""
        sql = f"SELECT size, note, sum FROM note WHERE space = 'certificate' AND log = {_ORIGIN} ORDER BY size DESC LIMIT ?"  # noqa: S608 -- our own text
        found = list[bytes]()
        for size, note, total in await self._fetch(sql, (origin, count)):
            _believe(total == note_sum("certificate", origin, size, note), f"certificate of {origin} at size {size}")
            found.append(note)
        return found

    async def meta(self, key: str) -> int | None:
        """A small durable fact."""
        for value, total in await self._fetch("SELECT value, sum FROM meta WHERE key = ?", (key,)):
            _believe(total == fact_sum(key, value), f"meta {key}")
            return int(value)
        return None

    async def metas(self, prefix: str) -> dict[str, int]:
        """All small durable facts whose keys begin so."""
        rows = await self._fetch("SELECT key, value, sum FROM meta WHERE substr(key, 1, ?) = ?", (len(prefix), prefix))
        for key, value, total in rows:
            _believe(total == fact_sum(key, value), f"meta {key}")
        return {key: int(value) for key, value, _ in rows}

    async def inclusion_path(self, origin: str, index: int, size: int) -> tuple[bytes, ...]:
        """The hashes from record ``index`` to the root of the first ``size``, as :func:`mesh.core.log.merkle.inclusion_path`.

        Raises:
            Refused: ``not_found`` when that many are not held, or ``index`` is not among them.
        """
        await self._require(origin, size)
        get = await self._lookups(origin, lambda get: merkle.inclusion_path(get, index, size))
        return merkle.inclusion_path(get, index, size)

    async def consistency_path(self, origin: str, old: int, new: int) -> tuple[bytes, ...]:
        """The hashes which show that the first ``old`` records begin the first ``new``.

        Raises:
            Refused: ``not_found`` when that many are not held, or not ``0 < old <= new``.
        """
        await self._require(origin, new)
        get = await self._lookups(origin, lambda get: merkle.consistency_path(get, old, new))
        return merkle.consistency_path(get, old, new)

    async def tile(self, origin: str, level: int, first: int, count: int) -> tuple[bytes, ...]:
        """The hashes of ``count`` perfect subtrees of 256^level records each, from the one with number ``first`` on (C2SP tlog-tiles).

        Raises:
            Refused: ``not_found`` when not all of them are held whole.
        """
        await self._require(origin, (first + count) << (LEVELS * level))
        known = await self._hashes(origin, [(LEVELS * level, first, first + count)])
        return tuple(known[LEVELS * level, number] for number in range(first, first + count))

    async def scrub(self, origin: str, stated: Mapping[int, Collection[bytes]] = _NONE) -> int:
        """The whole of :meth:`scrubbing` at once; the number of records. Raises as it does."""
        size = 0
        async for done in self.scrubbing(origin, stated):
            size = done
        return size

    async def scrubbing(self, origin: str, stated: Mapping[int, Collection[bytes]] = _NONE) -> AsyncGenerator[int, None]:
        """Hash every record held now of a log again, and compare all stored hashes and every head with that.

        Yields how many records are done after each few, so that the caller may pause; the log may grow meanwhile.
        ``stated`` are more roots that must be met, by size; of sizes that are not held nothing is known.

        Raises:
            Alarm: ``storage_corrupt``, or ``storage_rolled_back`` when fewer records are held than were signed or attested.
        """
        heads = await self.heads()  # before the size: what is signed later may be beyond it
        size = await self._size(origin)
        roots = {at: set(more) for at, more in stated.items() if 0 < at <= size}
        for (use, name), head in heads.items():
            if name == origin and head.size <= size:
                roots.setdefault(head.size, set()).add(head.root)
            elif name == origin and use != "witness":  # who witnesses need not hold the records
                raise Alarm("storage_rolled_back", f"{origin}: {head.size} records were signed, {size} are held")
        frontier = Frontier.empty()
        stops = sorted({*range(0, size, BATCH_RECORDS_MAX), *roots, size})
        for first, stop in pairwise(stops):
            frontier = await self._scrub_on(origin, frontier, stop - first)
            if stop in roots:
                _believe({frontier.root()} == roots[stop], f"{origin}: the root that was signed at size {stop}")
            yield stop

    async def _scrub_on(self, origin: str, frontier: Frontier, count: int) -> Frontier:
        leaves = [leaf for _, leaf in await self._records(origin, frontier.size, count)]
        frontier, grown = frontier.grow(leaves)
        kept = {(row.level, row.number): row.hash for row in grown if row.level and row.level % LEVELS == 0}
        if kept:
            stored = await self._hashes(origin, [(level, number, number + 1) for level, number in kept])
            _believe(stored == kept, f"{origin}: branch hashes below size {frontier.size}")
        return frontier

    async def _size(self, origin: str) -> int:
        rows = await self._fetch(f"SELECT max(idx) + 1 FROM record WHERE log = {_ORIGIN}", (origin,))  # noqa: S608 -- our own text
        return rows[0][0] or 0

    async def _require(self, origin: str, size: int) -> int:
        held = await self._size(origin)
        if not 0 <= size <= held:
            raise Refused("not_found", f"{origin}: {held} records are held, not {size}")
        return held

    async def _anchored(self, origin: str, size: int, anchor: Head) -> Frontier:
        """The frontier of ``size`` records by the stored hashes, if these lead on to the root that was signed."""
        frontier = Frontier.load(await self._lookups(origin, lambda get: Frontier.load(get, size)), size)
        path = await self.consistency_path(origin, size, anchor.size)
        try:
            merkle.verify_consistency(size, anchor.size, frontier.root(), anchor.root, path)
        except Refused:
            raise Alarm("storage_corrupt", f"{origin}: its hashes do not lead to the root signed at size {anchor.size}") from None
        return frontier

    async def _records(self, origin: str, first: int, count: int) -> list[tuple[bytes, bytes]]:
        sql = f"SELECT idx, leaf, data FROM record WHERE log = {_ORIGIN} AND idx >= ? AND idx < ? ORDER BY idx"  # noqa: S608 -- our own text
        records = list[tuple[bytes, bytes]]()
        below: int | None = None
        for index, leaf, data in await self._fetch(sql, (origin, first, first + count)):
            whole = leaf_hash(data) == leaf
            if not whole and below is None:
                below = floors[origin].below if origin in (floors := await self.floors()) else 0
            gone = not whole and below is not None and index < below and is_gone(data)
            _believe(index == first + len(records) and (whole or gone), f"record {first + len(records)} of {origin}")
            records.append((b"" if gone else data, leaf))
        return records

    async def _lookups(self, origin: str, walk: Callable[[Get], object]) -> Get:
        """The hashes that ``walk`` will ask for: it is first walked with none, only to see which."""
        wanted = dict[tuple[int, int], None]()

        def note(level: int, number: int) -> bytes:
            wanted[level, number] = None
            return _EMPTY

        walk(note)
        known = await self._hashes(origin, [_span(level, number) for level, number in wanted])
        return lambda level, number: _subtree(known, level, number)

    async def _hashes(self, origin: str, spans: Sequence[tuple[int, int, int]]) -> dict[tuple[int, int], bytes]:
        """Stored hashes of (level, first, end) spans of numbers; level 0 is the leaves."""
        known = dict[tuple[int, int], bytes]()
        for start in range(0, len(spans), KEYS_MAX):
            part = spans[start : start + KEYS_MAX]
            values = [value for span in part for value in span]
            rows = await self._fetch(_SPANS.format(spans=",".join(["(?, ?, ?)"] * len(part))), (*values, origin))
            known.update({(level, number): value for level, number, value in rows})
        held = sum(end - first for _, first, end in spans)
        _believe(len(known) == held, f"{origin}: {held - len(known)} hashes are missing")
        return known


_FLOORS: Final = "SELECT origin, below, done, sum FROM floor JOIN log ON log.id = floor.log"
_LAW: Final = """SELECT id, envelope, sum FROM law WHERE stream = ? AND (sequence, id) > (?, ?)
    ORDER BY sequence, id LIMIT ?"""
# CROSS JOIN keeps SQLite's planner from walking the log and comparing spans.
_SPANS: Final = """WITH span (level, first, beyond) AS (VALUES {spans}), own (log) AS (SELECT id FROM log WHERE origin = ?)
    SELECT 0, idx, leaf FROM own CROSS JOIN span CROSS JOIN record
        ON record.log = own.log AND idx >= first AND idx < beyond WHERE span.level = 0
    UNION ALL SELECT branch.level, number, hash FROM own CROSS JOIN span CROSS JOIN branch
        ON branch.log = own.log AND branch.level = span.level AND number >= first AND number < beyond WHERE span.level > 0"""


def _believe(true: bool, what: str) -> None:
    if not true:
        raise Alarm("storage_corrupt", what)


def _believed(rows: Iterable[tuple[Any, ...]]) -> list[tuple[str, bytes]]:
    found = list[tuple[str, bytes]]()
    for key, data, total in rows:
        _believe(total == checksum(data), f"statement {key.hex()}")
        found.append((key.hex(), data))
    return found


def _span(level: int, number: int) -> tuple[int, int, int]:
    """The stored numbers below a subtree."""
    up = level % LEVELS
    return level - up, number << up, (number + 1) << up


def _subtree(known: dict[tuple[int, int], bytes], level: int, number: int) -> bytes:
    base, first, end = _span(level, number)
    hashes = [known[base, item] for item in range(first, end)]
    while len(hashes) > 1:
        hashes = [branch_hash(left, right) for left, right in zip(hashes[::2], hashes[1::2], strict=True)]
    return hashes[0]
