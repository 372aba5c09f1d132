"""What a node's file is asked by statement id: bodies, openings, first uses, and the records about a statement.

Rules
-----
1. What was committed is found: memory is looked into first and the file is asked then, so what moves from one to the other in
   the meantime is found twice, never not at all.
2. The index says where to look; the row itself says whether it is the statement that was asked for.
3. A body that was stored twice is answered as it was stored first; one that was overwritten is not held (:mod:`mesh.adapters.storeprune`).

Not here: the index (:mod:`mesh.adapters.storeindex`), records and trees (:mod:`mesh.adapters.storequeries`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeVar

from mesh.adapters.store_schema import checksum, is_gone, statement_key
from mesh.adapters.storeindex import Fetch, Index, bodies_in, parts_of, places_in
from mesh.adapters.storeprune import NAMED_MAX, Room, named_in
from mesh.adapters.storequeries import KEYS_MAX, Queries
from mesh.errors import Alarm, Refused

__all__ = ["Finding"]

T = TypeVar("T")

_LOOKUPS_MAX: Final = 64
"""Ids looked up by one query, which reads a part of each run for each."""
_SCAN_DIGITS: Final = 2
"""Prefixes up to this long are found by walking back from the newest: a 256th of everything or more has them."""


class Finding(Queries):
    """The reads by statement id; :class:`mesh.adapters.store.Store` is one of these. They raise as all :class:`Queries`."""

    def __init__(self, fetch: Fetch, index: Index) -> None:
        super().__init__(fetch)
        self._index = index

    async def bodies(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Envelopes of those of the statements that are held, by id."""
        keys = _keys(ids)
        found = _summed(await self._by_keys("SELECT id, envelope, sum FROM document WHERE id IN", keys))
        wanted = [key for key in keys if key not in found]
        numbers = await self._numbers(wanted)
        asked = set(wanted)
        rows = await self._by_keys("SELECT id, envelope, sum, n FROM body WHERE n IN", numbers)
        rows.sort(key=lambda row: -row[3])  # rule 3
        found.update(_summed(await self._left([row[:3] for row in rows if row[0] in asked])))  # rule 2
        return {key.hex(): found[key] for key in keys if key in found}

    async def openings(self, intents: Iterable[str]) -> dict[str, bytes]:
        """Openings of those of the intents that have any here, by intent."""
        rows = await self._by_keys(_OPENINGS, _keys(intents))
        return {key.hex(): data for key, data in _summed(await self._left(rows)).items()}

    async def unerased(self, intents: Iterable[str]) -> list[str]:
        """Those of the intents whose openings may be stored here, or are."""
        keys = _keys(intents)
        erased = {row[0] for row in await self._by_keys("SELECT intent FROM erased WHERE intent IN", keys)}
        return [key.hex() for key in keys if key not in erased]

    async def once(self, space: Literal["intent", "outcome"], keys: Mapping[str, int]) -> dict[str, int]:
        """Index of the record that used each of the keys, which are given with their times in ms; unused ones are left out."""
        rows = list[tuple[Any, ...]]()
        for part in _slices([(at_ms, statement_key(key)) for key, at_ms in keys.items()], KEYS_MAX):
            values = [value for pair in part for value in pair]
            rows += await self._fetch(_USES.format(pairs=",".join(["(?, ?)"] * len(part))), (*values, space))
        return {key.hex(): index for key, index in rows}

    async def find(self, prefix: str, count: int) -> list[tuple[str, str, int]]:
        """(id, origin, index) of records about statements whose id begins with these hex digits, newest first; of all, for none.

        Of any log: whoever writes one can push what stands in others behind ``count``. What matters is asked with :meth:`newest_in`.

        Raises:
            Refused: ``malformed``.
        """
        digits = 64 - len(prefix)
        if digits < 0:
            raise Refused("malformed", "a prefix longer than an id")
        low, high = statement_key(prefix + "0" * digits), statement_key(prefix + "f" * digits)
        if len(prefix) <= _SCAN_DIGITS:
            rows = await self._fetch(_SCAN, (low, high, count))
            return list(dict.fromkeys((key.hex(), origin, index) for key, origin, index in rows))
        span = _prefix(low), _prefix(high)
        parts = self._index.remembered(*span)
        parts += await parts_of(self._fetch, [span])
        numbers = sorted({number for part in parts for number in places_in(part.entries, low, high)}, reverse=True)
        found = dict[tuple[str, str, int], None]()  # a place that was stored twice is one
        for some in _slices(numbers, KEYS_MAX):
            rows = await self._fetch(_PLACES.format(keys=",".join("?" * len(some))), (*some, low, high))
            found.update(dict.fromkeys((key.hex(), origin, index) for key, origin, index in rows))
            if len(found) >= count:
                break
        return list(found)[:count]

    async def newest_in(self, origin: str, identity: str) -> int:
        """Index of the newest record of that log about that statement, whatever other logs say of it; -1 if there is none.

        Raises:
            Refused: ``malformed``.
        """
        key = statement_key(identity)
        parts = self._index.remembered(_prefix(key), _prefix(key))
        parts += await parts_of(self._fetch, [(_prefix(key), _prefix(key))])
        numbers = sorted({number for part in parts for number in places_in(part.entries, key, key)}, reverse=True)
        newest = -1
        for some in _slices(numbers, KEYS_MAX):
            rows = await self._fetch(_PLACES.format(keys=",".join("?" * len(some))), (*some, key, key))
            newest = max((newest, *(index for _, at, index in rows if at == origin)))
        return newest

    async def room(self, origin: str, first: int, end: int) -> Room:
        """What goes with the records ``[first, end)`` of a log, as far as they were not pruned before."""
        places = self._index.places
        named = named_in([data for data, _ in await self._records(origin, first, end - first) if data])
        keys = [statement_key(identity) for identity in named if not await self._found_beside(identity, origin, range(first, end))]
        rows = await self._by_keys("SELECT n, id FROM body WHERE n IN", await self._numbers(keys))
        asked = set(keys)
        return Room(origin, first, end, [(number, key) for number, key in rows if key in asked], keys, places)

    async def _found_beside(self, identity: str, origin: str, span: range) -> bool:
        """Whether another record is found under this id, of which more is held than its hash."""
        places = await self.find(identity, NAMED_MAX)
        others = [(name, index) for _, name, index in places if not (name == origin and index in span)]
        if len(places) == NAMED_MAX:
            return True
        for name, index in others:
            if not await self.pruned(name, index, 1):
                return True
        return False

    async def _left(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """These rows without those that were overwritten, if this file has a floor that lets any be."""
        there = [row for row in rows if not is_gone(row[1])]
        return there if len(there) == len(rows) or await self.floors() else rows

    async def _numbers(self, keys: Sequence[bytes]) -> list[int]:
        """Rows of ``body`` that these ids may have."""
        numbers = set[int]()
        for some in _slices(keys, _LOOKUPS_MAX):
            asked = dict[int, list[bytes]]()
            for key in some:
                asked.setdefault(_prefix(key), []).append(key)
            parts = [part for first in asked for part in self._index.remembered(first, first)]
            parts += await parts_of(self._fetch, [(first, first) for first in asked])
            for part in parts:
                for key in asked[part.first]:
                    numbers.update(bodies_in(part.entries, key))
        return sorted(numbers)

    async def _by_keys(self, sql: str, keys: Sequence[object]) -> list[tuple[Any, ...]]:
        rows = list[tuple[Any, ...]]()
        for some in _slices(keys, KEYS_MAX):
            rows += await self._fetch(f"{sql} ({','.join('?' * len(some))})", some)
        return rows


# CROSS JOIN keeps SQLite's planner from walking all uses, or all bodies.
_USES: Final = """WITH want (at_ms, id) AS (VALUES {pairs})
    SELECT used.id, idx FROM want CROSS JOIN used ON used.at_ms = want.at_ms AND used.id = want.id AND used.space = ?"""
_OPENINGS: Final = "SELECT intent, openings, sum FROM opening WHERE intent NOT IN (SELECT intent FROM erased) AND intent IN"
_PLACES: Final = """SELECT located.id, origin, idx FROM located JOIN log ON log.id = located.log
    WHERE n IN ({keys}) AND located.id BETWEEN ? AND ? ORDER BY n DESC"""
_SCAN: Final = """SELECT located.id, origin, idx FROM located JOIN log ON log.id = located.log
    WHERE located.id BETWEEN ? AND ? ORDER BY n DESC LIMIT ?"""


def _keys(ids: Iterable[str]) -> list[bytes]:
    return [statement_key(key) for key in dict.fromkeys(ids)]


def _prefix(key: bytes) -> int:
    return int.from_bytes(key[:4])


def _slices(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _summed(rows: Iterable[tuple[Any, ...]]) -> dict[bytes, bytes]:
    found = dict[bytes, bytes]()
    for key, data, total in rows:
        if total != checksum(data):
            raise Alarm("storage_corrupt", f"statement {key.hex()}")
        found[key] = data
    return found
