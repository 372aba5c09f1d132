"""What rotted on this node's disk is fetched from the members that hold it, and put back exactly as it was signed, or not at all.

Rules
-----
1. It happens before anything of the file is believed, and nothing is signed meanwhile. Afterwards the node starts as always: what
   it starts from is verified again, and the other members are asked what it signed.
2. Nobody is believed: a record counts if it has the hash that leads to a root under this node's own heads, a statement if it has the
   id and the checksum of the bytes that were here.
3. All that is broken is put back, or nothing is touched and the alarm stands.
4. What was found broken while the node ran is noted beside the file, so that the next start looks for it: it verifies by itself only
   what it rests on.
5. What was put back is recorded as an incident: a disk that rots once will do so again.
6. What members have pruned meanwhile, and nobody else gives, goes here too, if it is below a floor that the root signed, which this file
   holds or members show. What had gone here before goes again.

Not here: what can be put back (:mod:`mesh.adapters.storemend`).
"""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from mesh.adapters.storemend import BrokenFile, LostRecord, LostStatement
from mesh.core.law.retain import NOWHERE, Floors
from mesh.core.log.merkle import leaf_hash
from mesh.core.messages import LineageBatch
from mesh.errors import Alarm, MeshError
from mesh.protocol.gossip import ToldIncident

__all__ = ["LOST_MAX", "mended", "note_broken"]

_CORRUPT: Final = "storage_corrupt"
LOST_MAX: Final = 1_000
"""Rows asked for one by one; a disk that lost more is no disk to go on with."""

Fetch = Callable[[str, int, Callable[[LineageBatch], bool]], Awaitable[LineageBatch | None]]
"""Log, index and what must fit to a member's answer."""
Hear = Callable[[], Awaitable[Floors]]

_log = logging.getLogger(__name__)


def note_broken(path: Path, error: MeshError) -> None:
    """Note that the node ended because of its file, if that is why (rule 4)."""
    if error.code == _CORRUPT:
        with suppress(OSError):
            _mark(path).write_text(error.detail, encoding="utf-8")


async def _silence() -> Floors:
    return {}


async def mended(path: Path, alarm: Alarm | None, fetch: Fetch, hear: Hear = _silence) -> list[ToldIncident]:
    """Put back what is broken in the file; what to record of it.

    Args:
        path: the file, which nobody has open.
        alarm: what was just found in it; None for what was noted when the node ran last, which may be nothing.
        fetch: asks members.
        hear: asks members from where on the root lets logs be kept; for a file that was away when that was said.

    Raises:
        Alarm: what was found, if it is not about stored bytes, or if not all that is broken could be put back.
    """
    noted = alarm is None
    if alarm is None:
        try:
            alarm = Alarm(_CORRUPT, _mark(path).read_text(encoding="utf-8"))
        except OSError:
            return []
    if alarm.code != _CORRUPT:
        raise alarm
    count = await _put_back(path, alarm, fetch, hear)
    if not count and not noted:
        raise alarm
    _mark(path).unlink(missing_ok=True)
    if not count:
        return []  # somebody else has mended it; or it is nothing that can be, and is found again
    _log.error("%d rows of %s were not as they were written, and are again", count, path)
    return [ToldIncident(_CORRUPT, f"{alarm.detail}; {count} rows were put back as they were signed"[:200])]


async def _put_back(path: Path, alarm: Alarm, fetch: Fetch, hear: Hear) -> int:
    """How many rows were put back."""
    try:
        with BrokenFile(path) as file:
            records, statements = file.lost_records(), file.lost_statements()
            if len(records) + len(statements) > LOST_MAX:
                raise alarm
            for lost in records:
                if not await _record(file, lost, fetch):
                    await _let_go(file, lost, fetch, hear, alarm)
            for missing in statements:
                if not file.let_go_statement(missing):
                    file.give_statement(missing, await _statement(file, missing, fetch, alarm))
            return file.put_back()
    except MeshError as error:
        _log.error("cannot be mended from here: %s", error)
        raise alarm from None


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.broken")


async def _record(file: BrokenFile, lost: LostRecord, fetch: Fetch) -> bool:
    found = await fetch(lost.origin, lost.at, lambda batch: [leaf_hash(bytes(raw)) for raw in batch.records] == [lost.leaf])
    if found is not None:
        file.give_record(lost, bytes(found.records[0]))
    return found is not None


async def _let_go(file: BrokenFile, lost: LostRecord, fetch: Fetch, hear: Hear, alarm: Alarm) -> None:
    """Rule 6."""
    if await fetch(lost.origin, lost.at, lambda batch: batch.pruned == [lost.leaf.hex()]) is None:
        raise alarm
    if not file.let_go_record(lost, (await hear()).get(lost.origin, NOWHERE).below):
        raise alarm


async def _statement(file: BrokenFile, lost: LostStatement, fetch: Fetch, alarm: Alarm) -> bytes:
    for origin, index in file.naming(lost):
        found = await fetch(origin, index, lambda batch: any(lost.fits(bytes(raw)) for raw in batch.bodies))
        if found is not None:
            return next(bytes(raw) for raw in found.bodies if lost.fits(bytes(raw)))
    raise alarm
