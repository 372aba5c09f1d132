"""What a log's floor lets go is in no byte of the file: records keep index and hash, what only they named is overwritten where it stands.

Rules
-----
1. A row is overwritten with zeros of the same length, for the same reason as openings are (:mod:`mesh.adapters.storeerase`): what is
   deleted, or made shorter, makes SQLite move its neighbours, and copies of these would stay behind for which no row stands.
2. Bodies and openings go with the last record that can be found under their id. Documents stay: many records name each.
3. What is looked up is looked up before the transaction, so that nobody waits for it; in the transaction only what was located since
   is looked at again.
4. Leaf and branch hashes, places, first uses, heads, notes and certificates stay.

Not here: what may be pruned, and when (:mod:`mesh.roles.pruning`); giving the space back.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mesh.adapters.store_schema import SET_FLOORS, floor_sum
from mesh.adapters.storeindex import Fetch
from mesh.core.log.merkle import leaf_hash
from mesh.core.log.record import read_record
from mesh.errors import Alarm
from mesh.protocol.attester import located_ids
from mesh.protocol.serving import body_ids, leaf_ids
from mesh.protocol.step import AppendHashes, Persist

__all__ = ["KEPT", "NAMED_MAX", "OPENINGS_SUM", "Room", "StoredFloor", "floor_rows", "named_in", "named_still", "overwrite"]

NAMED_MAX: Final = 1_000
"""Records about one id that are looked at; of one with more, nothing is pruned."""
OPENINGS_SUM: Final = 1
"""In place of the checksum of openings that were pruned: it says nothing of them, and that nobody erased them (there it is 0)."""
KEPT: Final = "SELECT leaf, data FROM record WHERE data <> zeroblob(length(data))"
"""The records of which more is held than their hashes."""
_LOCATED: Final = "SELECT id FROM located WHERE n > ?"
_RECORDS: Final = "UPDATE record SET data = zeroblob(length(data)) WHERE log = ? AND idx >= ? AND idx < ?"
_BODIES: Final = "UPDATE body SET envelope = zeroblob(length(envelope)) WHERE n = ? AND id = ?"
_OPENINGS: Final = f"""UPDATE opening SET openings = zeroblob(length(openings)), sum = {OPENINGS_SUM}
    WHERE intent = ? AND NOT EXISTS (SELECT 1 FROM erased WHERE erased.intent = opening.intent)"""  # noqa: S608 -- our own text

Many = Callable[[str, Sequence[Sequence[object]]], Awaitable[None]]


class StoredFloor(NamedTuple):
    """What a file knows of the floor of a log."""

    below: int
    """Up to where rows may have their hash only."""
    done: int
    """Up to where all of them do."""


class Room(NamedTuple):
    """What goes in one batch."""

    origin: str
    first: int
    end: int
    """The records ``[first, end)``."""
    named: Sequence[tuple[int, bytes]]
    """Rows of ``body`` with their ids."""
    ids: Sequence[bytes]
    """What no other record is found under."""
    places: int
    """Rows of ``located`` when that was looked up."""


def named_in(leaves: Sequence[bytes]) -> list[str]:
    """Ids under which these records are found, or whose statements they name."""
    found = dict[str, None]()
    for leaf in leaves:
        record = read_record(leaf)
        found |= dict.fromkeys((*located_ids(record), *body_ids(record)))
    return list(found)


def named_still(kept: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[set[bytes], set[bytes]]]:
    """For each of the records that :data:`KEPT` finds: whose bodies, and whose openings, must be held beside it."""
    for leaf, data in kept:
        named, opened = leaf_ids(data) if leaf_hash(data) == leaf else ((), ())  # what is damaged names nothing
        yield set(map(bytes.fromhex, named)), set(map(bytes.fromhex, opened))


async def _floor(fetch: Fetch, log: int) -> StoredFloor:
    """What the file has of the floor of a log, whose number there is ``log``."""
    rows = await fetch("SELECT below, done FROM floor WHERE log = ?", (log,))
    return StoredFloor(*rows[0]) if rows else StoredFloor(0, 0)


def _raised(held: StoredFloor, *, below: int, span: tuple[int, int]) -> StoredFloor:
    """That floor at ``below`` at least, with ``span`` pruned."""
    first, end = span
    return StoredFloor(max(below, held.below), end if first <= held.done < end else held.done)


def _row(origin: str, log: int, floor: StoredFloor) -> tuple[int, int, int, int]:
    return log, floor.below, floor.done, floor_sum(origin, floor.below, floor.done)


async def floor_rows(fetch: Fetch, effects: Sequence[Persist], ids: Mapping[str, int]) -> list[tuple[int, int, int, int]]:
    """The floors that are raised by what comes without its data; ``ids`` are the numbers of logs in the file.

    Raises:
        Alarm: ``storage_rolled_back`` for what stands above the floor that it comes with.
    """
    found = dict[str, StoredFloor]()
    for effect in effects:
        if isinstance(effect, AppendHashes):
            origin, span = effect.origin, (effect.first, effect.first + len(effect.hashes))
            if span[1] > effect.below:
                raise Alarm("storage_rolled_back", f"{origin}: only the hash of record {span[1] - 1}, kept from {effect.below} on")
            held = found[origin] if origin in found else await _floor(fetch, ids[origin])  # several answers may be one commit
            found[origin] = _raised(held, below=effect.below, span=span)
    return [_row(origin, ids[origin], floor) for origin, floor in found.items()]


async def overwrite(fetch: Fetch, many: Many, log: int, room: Room, *, below: int) -> Collection[bytes]:
    """Overwrite what goes; the ids of which nothing is left."""
    floor = _raised(await _floor(fetch, log), below=below, span=(room.first, room.end))
    await many(SET_FLOORS, [_row(room.origin, log, floor)])
    since: Sequence[tuple[Any, ...]] = await fetch(_LOCATED, (room.places,))
    named_since = {key for (key,) in since}
    await many(_RECORDS, [(log, room.first, room.end)])
    await many(_BODIES, [row for row in room.named if row[1] not in named_since])
    gone = [key for key in room.ids if key not in named_since]
    await many(_OPENINGS, [(key,) for key in gone])
    return gone
