"""Which rows a statement id leads to: an index that is written in order, although ids are random.

A tree over random ids dirties a page or two for every decision, and more pages the longer the log is. Here nothing is ever
inserted in the middle: what is new is held in memory, and written as a *run* when it is enough. A run is a table of *parts*; an
id's leading bits say its part, so a lookup reads one part of each run. Eight runs of a level become one of the next level, which
has eight times as many parts: part by part, in order again.

Rules
-----
1. All of this follows from the rows of ``body`` and ``located``. What memory held is read again from the last rows of these at
   every start; a run that was not finished is begun again; runs that do not add up to the rows are all made anew.
2. Writing rides on commits, a few parts each, in their transaction; so no commit waits long, and after a crash each part is in
   exactly one run. A run holds the parts ``low`` to ``high``: eight that become one lose a part in the transaction in which that
   one gains it.
3. What is in memory stays there until the run that holds it is durable. Whoever looks into memory first and asks the file then
   misses nothing that was committed before.
4. Eight runs of one level at most wait for eight others to become one, so a lookup reads some eight to sixteen parts for each
   factor of eight beyond :data:`CAPACITY` ids.
5. A part holds the first eight bytes of an id. Two ids may share them, by intent too: the row decides.
6. A part carries a checksum, and one that should be there and is not is an alarm: an answer is never missing because of rot.

Not here: transactions (:mod:`mesh.adapters.store`), the questions that are asked of it (:mod:`mesh.adapters.storefind`).
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from mesh.adapters.store_schema import checksum
from mesh.errors import Alarm

__all__ = ["KEY", "Fetch", "Index", "Part", "Run", "Turn", "bodies_in", "parts_of", "places_in"]

Fetch = Callable[[str, Sequence[object]], Awaitable[list[tuple[Any, ...]]]]
"""SQL and its values to all its rows."""

CAPACITY: Final = 32_768
"""Entries in memory from which on they are written. An id has one for each row it leads to."""
BITS: Final = 9
"""Of an id, that say its part of a run of level 0: 64 entries a part, four parts a page."""
KEY: Final = 8
"""Bytes of an id in an entry."""
_CODE: Final = 6
"""Bytes of a row's number, doubled; one more for a row of ``located``."""
_ENTRY: Final = KEY + _CODE
_FAN_BITS: Final = 3
_FAN: Final = 1 << _FAN_BITS
_LEVELS: Final = 1 + (32 - BITS) // _FAN_BITS
"""Parts are counted by the first four bytes of an id."""
_RUN_SHIFT: Final = 32
_FLUSH_EACH: Final = 32
"""Entries added for each part that is written: twice as fast as they come."""
_MERGE_EACH: Final = 128
"""Entries added for each part that is merged: four entries for one that comes, which is enough for four levels."""
_FLUSH_TOGETHER: Final = 8
"""Parts written at once: two pages, some 0.1 ms."""
_MERGE_TOGETHER: Final = 4
"""Parts merged at once: one page of each run, some 1 ms."""

_RUNS: Final = "SELECT run, level, low, high, target, size, body, place FROM run ORDER BY run"
_SET_RUNS: Final = """INSERT INTO run (run, level, low, high, target, size, body, place) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (run) DO UPDATE SET low = excluded.low, high = excluded.high, target = excluded.target, size = excluded.size,
        body = excluded.body, place = excluded.place"""
_DROP_RUNS: Final = "DELETE FROM run WHERE run = ?"
_ADD_PARTS: Final = "INSERT OR REPLACE INTO part (n, entries, sum) VALUES (?, ?, ?)"  # one that no run claims may be left from before
_DROP_PARTS: Final = "DELETE FROM part WHERE n = ?"
_SPANS: Final = """WITH span (first, last) AS (VALUES {spans})
    SELECT n, entries, sum FROM span CROSS JOIN part ON part.n BETWEEN first AND last"""
_PARTS: Final = """WITH want (first, last) AS (VALUES {spans}), found (first, run, low, high) AS (
        SELECT want.first, run, max(want.first >> (? - ? * level), low), min(want.last >> (? - ? * level), high - 1)
        FROM want CROSS JOIN run)
    SELECT found.first, run, high - low + 1, entries, sum FROM found LEFT JOIN part
        ON part.n BETWEEN (run << 32) + low AND (run << 32) + high WHERE low <= high"""


class Run(NamedTuple):
    """A row of the table ``run``."""

    run: int
    level: int
    low: int
    """The first part it still has."""
    high: int
    """The first part it does not have yet."""
    target: int
    """The run that its parts move to; 0 if they stay."""
    size: int
    """Entries; 0 as long as others become this run."""
    body: int
    """Rows of ``body`` that were written when it was begun: this run and the older ones lead to all of them."""
    place: int
    """The same of ``located``."""


class Part(NamedTuple):
    """Entries of ids that begin alike."""

    first: int
    """The first four bytes of the first id that was asked for."""
    entries: bytes


class Turn(NamedTuple):
    """What the index writes in one transaction, and what it becomes with it."""

    bodies: Sequence[bytes]
    """Ids of the next rows of ``body``."""
    places: Sequence[bytes]
    """Ids of the next rows of ``located``."""
    runs: dict[int, Run | None]
    """Those that change; None for those that end."""
    parts: list[tuple[int, bytes, int]]
    gone: list[tuple[int]]

    @property
    def writes(self) -> list[tuple[str, Sequence[Sequence[object]]]]:
        """SQL and its rows, in order."""
        changed = [run for run in self.runs.values() if run is not None]
        ended = [(number,) for number, run in self.runs.items() if run is None]
        return [(_DROP_PARTS, self.gone), (_ADD_PARTS, self.parts), (_DROP_RUNS, ended), (_SET_RUNS, changed)]


class _Memory:
    """Entries that no run holds, or not durably."""

    def __init__(self) -> None:
        self.parts = [bytearray() for _ in range(1 << BITS)]
        self.held = set[bytes]()
        """Ids that have a body among them, whole."""
        self.size = 0

    def add(self, keys: Sequence[bytes], code: int) -> None:
        """Entries of consecutive rows; ``code`` is that of the first."""
        parts, shift = self.parts, 16 - BITS  # two bytes by hand: every decision comes through here
        for key in keys:
            parts[(key[0] << 8 | key[1]) >> shift] += key[:KEY] + code.to_bytes(_CODE)
            code += 2
        self.size += len(keys)


class Index:
    """The index of one file: what is in memory, and which runs there are. Only the file's writer changes it."""

    def __init__(self) -> None:
        self._young = _Memory()
        self._old: _Memory | None = None
        """What is being written."""
        self._flush: Run | None = None
        """What it is written to, once it is begun."""
        self._runs: dict[int, Run] = {}
        self._next = 1
        self._to_write = 0
        """Entries added since parts were written last, while there are any to write."""
        self._to_merge = 0
        """The same for merging."""
        self.bodies = 0
        """Rows of ``body`` that it leads to."""
        self.places = 0
        """Rows of ``located`` that it leads to."""

    def holds(self, key: bytes) -> bool:
        """Whether the body of this id is known to be there; only memory is asked."""
        return key in self._young.held or (self._old is not None and key in self._old.held)

    def forget(self, keys: Iterable[bytes]) -> None:
        """These bodies are not there any more, though their rows are."""
        for key in keys:
            for memory in (self._young, self._old):
                if memory is not None:
                    memory.held.discard(key)

    def remembered(self, first: int, last: int) -> list[Part]:
        """Entries in memory of the ids whose first four bytes are ``first`` to ``last``, and of others."""
        shift = _shift(0)
        memories = [memory for memory in (self._old, self._young) if memory is not None]
        return [Part(first, bytes(memory.parts[part])) for memory in memories for part in range(first >> shift, (last >> shift) + 1)]

    async def load(self, fetch: Fetch) -> None:
        """Take up the runs of the file, in a transaction of its own. :meth:`behind` has still to be called."""
        found = [Run(*row) for row in await fetch(_RUNS, ())]
        runs = {run.run: run for run in found if run.level or run.high == _count(0)}
        bodies, places = max((run.body for run in runs.values()), default=0), max((run.place for run in runs.values()), default=0)
        held = (await fetch("SELECT (SELECT coalesce(max(n), 0) FROM body), (SELECT coalesce(max(n), 0) FROM located)", ()))[0]
        if sum(run.size for run in runs.values()) != bodies + places or bodies > held[0] or places > held[1]:
            runs, bodies, places = {}, 0, 0
            await fetch("DELETE FROM part", ())
        for run in found:
            if run.run not in runs:
                await fetch("DELETE FROM part WHERE n BETWEEN ? AND ?", (_number(run, 0), _number(run, _count(run.level))))
                await fetch(_DROP_RUNS, (run.run,))
        self._runs, self._next = runs, max(runs, default=0) + 1
        self.bodies, self.places = bodies, places

    async def remember(self, fetch: Fetch) -> None:
        """:meth:`load`, and all rows since, where nothing can be written: what would be is kept in memory.

        Raises:
            Alarm: as :meth:`behind`.
        """

        async def only_read(sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
            return [] if sql.startswith("DELETE") else await fetch(sql, values)

        await self.load(only_read)
        while (rows := await self._rows_behind(fetch)) != ([], []):
            self.adopt(Turn(*rows, runs={}, parts=[], gone=[]))

    async def behind(self, fetch: Fetch) -> Turn | None:
        """The next rows that it does not lead to yet, as a turn to be written; None when there are no more.

        Raises:
            Alarm: ``storage_corrupt`` when a row is missing.
        """
        bodies, places = await self._rows_behind(fetch)
        if not bodies and not places:
            return None
        return await self.turn(fetch, bodies, places)

    async def _rows_behind(self, fetch: Fetch) -> tuple[list[bytes], list[bytes]]:
        """Ids of the next rows of ``body`` and ``located``."""
        bodies = await fetch("SELECT n, id FROM body WHERE n > ? ORDER BY n LIMIT ?", (self.bodies, CAPACITY // 4))
        places = await fetch("SELECT n, id FROM located WHERE n > ? ORDER BY n LIMIT ?", (self.places, CAPACITY // 4))
        for name, known, rows in (("body", self.bodies, bodies), ("located", self.places, places)):
            _believe([n for n, _ in rows] == list(range(known + 1, known + 1 + len(rows))), f"a row of {name} is missing beyond {known}")
        return [key for _, key in bodies], [key for _, key in places]

    async def turn(self, fetch: Fetch, bodies: Sequence[bytes], places: Sequence[bytes]) -> Turn:
        """What to write in the transaction in which these ids take the next rows of ``body`` and ``located``.

        Raises:
            Alarm: ``storage_corrupt``.
        """
        self._rotate()  # all before is durable: a commit that failed ends the store
        added = len(bodies) + len(places)
        turn = Turn(bodies, places, runs={}, parts=[], gone=[])
        self._write(turn, added)
        await self._merge(turn, added, fetch)
        return turn

    def adopt(self, turn: Turn) -> None:
        """Become what the turn says. It was written; should its COMMIT fail, the store ends, and this is forgotten with it."""
        self._young.add(turn.bodies, (self.bodies + 1) << 1)
        self._young.add(turn.places, (self.places + 1) << 1 | 1)
        self._young.held.update(turn.bodies)
        self.bodies += len(turn.bodies)
        self.places += len(turn.places)
        for number, run in turn.runs.items():
            if run is None:
                del self._runs[number]
            else:
                self._runs[number] = run

    def _rotate(self) -> None:
        if self._flush is not None and self._runs.get(self._flush.run, self._flush).high == _count(0):
            self._old = self._flush = None
        if self._old is None and self._young.size >= CAPACITY:
            self._old, self._young = self._young, _Memory()
            self._flush = Run(self._new(), 0, 0, 0, 0, self._old.size, self.bodies, self.places)

    def _new(self) -> int:
        self._next += 1
        return self._next - 1

    def _write(self, turn: Turn, added: int) -> None:
        """Write the next parts of what is full, if it is time."""
        if self._old is None or self._flush is None:
            self._to_write = 0
            return
        times, self._to_write = divmod(self._to_write + added, _FLUSH_EACH * _FLUSH_TOGETHER)
        count = times * _FLUSH_TOGETHER
        if not count:
            return
        run = self._runs.get(self._flush.run, self._flush)
        high = min(run.high + count, _count(0))
        for part in range(run.high, high):
            turn.parts.append(_part(run, part, bytes(self._old.parts[part])))
        turn.runs[run.run] = run._replace(high=high)

    async def _merge(self, turn: Turn, added: int, fetch: Fetch) -> None:
        """Move the next parts of runs that become one, if it is time."""
        times, self._to_merge = divmod(self._to_merge + added, _MERGE_EACH * _MERGE_TOGETHER)
        count, sources = times * _MERGE_TOGETHER, self._merging() if times else []
        if not sources:
            return
        level, low = sources[0].level, sources[0].low
        high = min(low + count, _count(level))
        target = self._runs[sources[0].target] if sources[0].target else Run(self._new(), level + 1, 0, 0, 0, 0, 0, 0)
        spans = [edge for run in sources for edge in (_number(run, low), _number(run, high - 1))]
        rows = await fetch(_SPANS.format(spans=",".join(["(?, ?)"] * len(sources))), spans)
        _believe(len(rows) == (high - low) * len(sources), f"parts of the index of level {level} between {low} and {high}")
        for n, entries, total in rows:
            _believe(total == checksum(entries), f"part {n} of the index")
        found = {n: entries for n, entries, _ in rows}
        for part in range(low, high):
            whole = b"".join(found[_number(run, part)] for run in sources)
            for child, entries in enumerate(_divide(whole, level + 1)):
                turn.parts.append(_part(target, (part << _FAN_BITS) + child, entries))
        turn.gone.extend((n,) for n in found)
        if high < _count(level):
            turn.runs.update({run.run: run._replace(low=high, target=target.run) for run in sources})
        else:
            turn.runs.update(dict.fromkeys([run.run for run in sources]))
            size, body, place = sum(run.size for run in sources), max(run.body for run in sources), max(run.place for run in sources)
            target = target._replace(size=size, body=body, place=place)
        turn.runs[target.run] = target._replace(high=high << _FAN_BITS)

    def _merging(self) -> list[Run]:
        """The runs that become one next: of the lowest level, which fills fastest."""
        if len(self._runs) < _FAN:
            return []
        for level in range(_LEVELS - 1):
            whole = [run for run in self._runs.values() if run.level == level and run.high == _count(level)]
            if moving := [run for run in whole if run.target]:
                return moving
            if len(whole) >= _FAN:
                return sorted(whole)[:_FAN]
        return []


async def parts_of(fetch: Fetch, spans: Sequence[tuple[int, int]]) -> list[Part]:
    """The parts in the file that hold ids whose first four bytes are in these spans, first and last.

    Raises:
        Alarm: ``storage_corrupt``.
    """
    values = [edge for span in spans for edge in span]
    shifts = (_shift(0), _FAN_BITS) * 2
    rows = await fetch(_PARTS.format(spans=",".join(["(?, ?)"] * len(spans))), (*values, *shifts))
    missing = dict[tuple[int, int], int]()
    parts = list[Part]()
    for first, run, count, entries, total in rows:
        data = b"" if entries is None else bytes(entries)
        _believe(entries is not None and total == checksum(data), f"run {run} of the index")
        if count > 1:
            key = (first, run)
            missing[key] = missing.get(key, int(count)) - 1
        parts.append(Part(first, data))
    _believe(not any(missing.values()), "parts of the index are missing")
    return parts


def bodies_in(entries: bytes, key: bytes) -> Iterator[int]:
    """Rows of ``body`` that the entries name for an id, by its first bytes (rule 5)."""
    head = key[:KEY]
    place = entries.find(head)
    while place >= 0:
        if place % _ENTRY == 0:
            code = int.from_bytes(entries[place + KEY : place + _ENTRY])
            if not code & 1:
                yield code >> 1
        place = entries.find(head, place + 1)


def places_in(entries: bytes, low: bytes, high: bytes) -> Iterator[int]:
    """Rows of ``located`` that the entries name for ids from ``low`` to ``high``, by their first bytes (rule 5)."""
    low, high = low[:KEY], high[:KEY]
    for place in range(0, len(entries), _ENTRY):
        if low <= entries[place : place + KEY] <= high and entries[place + _ENTRY - 1] & 1:
            yield int.from_bytes(entries[place + KEY : place + _ENTRY]) >> 1


def _divide(entries: bytes, level: int) -> list[bytes]:
    """The entries of a part of the level below, by their parts of this one."""
    shift, mask = _shift(level), _FAN - 1
    children = [bytearray() for _ in range(_FAN)]
    for place in range(0, len(entries), _ENTRY):
        entry = entries[place : place + _ENTRY]
        children[int.from_bytes(entry[:4]) >> shift & mask] += entry
    return [bytes(child) for child in children]


def _part(run: Run, part: int, entries: bytes) -> tuple[int, bytes, int]:
    return _number(run, part), entries, checksum(entries)


def _number(run: Run, part: int) -> int:
    return (run.run << _RUN_SHIFT) + part


def _count(level: int) -> int:
    return 1 << (BITS + level * _FAN_BITS)


def _shift(level: int) -> int:
    return 32 - BITS - level * _FAN_BITS


def _believe(true: bool, what: str) -> None:
    if not true:
        raise Alarm("storage_corrupt", what)
