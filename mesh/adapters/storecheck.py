"""A node's file from outside its process: copied as it was at one commit, and everything in it hashed again.

Rules
-----
1. The file is only read, by a connection that cannot write: it never checkpoints, so the node stays its only writer.
2. A copy is one read transaction. Whoever writes goes on; meanwhile the write-ahead log grows instead of beginning anew.
3. What is said about a file is said after all of it was looked at: the shape and pages by SQLite, every record by its tree up to
   every root that a head or a note states, every statement and bundle by its id, what leads to a record by that record, everything
   else by its checksum. Of openings that were erased nothing may be left, and of a statement only if no record is found under its id of
   which more is held than its hash.

Not here: whose file it is, and what lies beside it (:mod:`mesh.roles.backup`). Nothing checks the time under which a first use
stands, nor the kind, stream and number beside a statement: the statement itself says them. Nor under which ids a pruned record is found:
that it was pruned says its row.
"""

import os
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

from mesh.adapters.store import LAYOUT, failure
from mesh.adapters.store_schema import checksum, fact_sum, is_gone, note_sum
from mesh.adapters.storelayout import owned_schema
from mesh.adapters.storeprune import KEPT, OPENINGS_SUM, named_still
from mesh.adapters.storequeries import Queries
from mesh.core.bytes import envelope
from mesh.core.law.policy import bundle_digest
from mesh.core.log.checkpoint import read_checkpoint
from mesh.core.log.record import read_record
from mesh.errors import Alarm, Refused
from mesh.protocol.attester import located_ids
from mesh.protocol.step import HeadUse

__all__ = ["Held", "HeldHead", "HeldLog", "check_file", "copy_file"]

_SHAPE: Final = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY sql"
_NOTES: Final = "SELECT space, origin, size, note, sum FROM note JOIN log ON log.id = note.log"
_OPENINGS: Final = "SELECT intent, openings, sum, intent IN (SELECT intent FROM erased) FROM opening"
_LOCATED: Final = "SELECT located.id, data FROM located CROSS JOIN record ON record.log = located.log AND record.idx = located.idx"
_USED: Final = """SELECT space, used.id, data FROM used CROSS JOIN log CROSS JOIN record ON record.log = log.id AND record.idx = used.idx
    WHERE log.origin IN ({origins})"""
_SPACES: Final = frozenset({"intent", "outcome"})
"""What is used once."""
_ABOUT_TREES: Final = frozenset({"checkpoint", "certificate", "cosigned", "outside"})
"""Notes whose text states a root of the log that they stand under."""


class HeldLog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records of one log."""

    origin: str
    size: int
    root: str
    """Of all of them, hex."""


class HeldHead(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far something was signed."""

    use: HeadUse
    origin: str
    size: int
    root: str
    time_s: int


class Held(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a file holds, all of which was found as it was written."""

    owner: str
    incarnation: int
    logs: list[HeldLog]
    heads: list[HeldHead]
    statements: int
    """Bodies, documents and governance statements."""


def copy_file(source: Path, target: Path) -> None:
    """Write what ``source`` holds now to the new file ``target``, which only its owner can read, and sync it (rules 1 and 2).

    Raises:
        Unavailable: ``storage_failed``.
        Alarm: ``storage_corrupt`` where SQLite finds the file broken.
    """
    try:
        os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with closing(_reading(source, "mode=ro")) as old, closing(sqlite3.connect(target)) as new:
            old.backup(new)  # all pages in one step: in several each commit of the node would begin it anew
        descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise failure(error) from None


async def check_file(path: Path, *, still: bool) -> Held:
    """Look at everything in the file (rule 3).

    Args:
        path: the file.
        still: nobody has it open, and nothing lies beside it: a copy. Otherwise what is durable now is looked at.

    Raises:
        Refused: ``config_invalid``: it is no file of a node, or one of another version.
        Unavailable: ``storage_failed``: it cannot be read.
        Alarm: ``storage_corrupt``, or ``storage_rolled_back`` where fewer records are held than were signed.
    """
    try:
        with closing(_reading(path, "mode=ro&immutable=1" if still else "mode=ro")) as file:
            file.execute("BEGIN")  # one moment for all that follows

            async def fetch(sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
                return file.execute(sql, values).fetchall()

            _check_shape(file)
            return await _Check(file, Queries(fetch)).everything()
    except (OSError, sqlite3.Error, UnicodeDecodeError) as error:
        raise failure(error) from None


def _reading(path: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?{options}", uri=True, isolation_level=None)


def _check_shape(file: sqlite3.Connection) -> None:
    """That these are our tables, with what forbids to change them, and that SQLite believes every page."""
    file.execute("PRAGMA trusted_schema = OFF")
    file.execute("PRAGMA cell_size_check = ON")
    kind = (file.execute("PRAGMA application_id").fetchone()[0], file.execute("PRAGMA user_version").fetchone()[0])
    if kind != (LAYOUT.application, LAYOUT.version):
        raise Refused("config_invalid", f"a file of another kind or version: {kind}")
    with closing(sqlite3.connect(":memory:")) as model:
        for sql in owned_schema(LAYOUT):
            model.execute(sql)
        _believe(file.execute(_SHAPE).fetchall() == model.execute(_SHAPE).fetchall(), "tables and triggers are not as they were made")
    for pragma in ("integrity_check", "foreign_key_check"):
        found = file.execute(f"PRAGMA {pragma}").fetchall()
        _believe(found in ([], [("ok",)]), f"{pragma}: {str(found[:1])[:200]}")


class _Check:
    """One look at an open file."""

    def __init__(self, file: sqlite3.Connection, queries: Queries) -> None:
        self._file = file
        self._queries = queries

    async def everything(self) -> Held:
        ((owner,),) = self._file.execute("SELECT name FROM owner").fetchall()
        self._notes()
        sizes, heads = await self._queries.sizes(), await self._queries.heads()
        logs = [HeldLog(origin, *await self._log(origin)) for (origin,) in self._file.execute("SELECT origin FROM log ORDER BY origin")]
        self._places(sizes, owner)
        return Held(
            owner=owner,
            incarnation=await self._queries.meta("incarnation") or 0,
            logs=[log for log in logs if log.size],
            heads=[HeldHead(use, origin, head.size, head.root.hex(), head.time_s) for (use, origin), head in sorted(heads.items())],
            statements=self._statements(),
        )

    async def _log(self, origin: str) -> tuple[int, str]:
        """Hash its records up to every root that a note states; its size and root."""
        stated: dict[int, set[bytes]] = {}
        for space, size, note in self._file.execute(
            "SELECT space, size, note FROM note WHERE log = (SELECT id FROM log WHERE origin = ?)", (origin,)
        ):
            if space.split(" ")[0] in _ABOUT_TREES:
                stated.setdefault(size, set()).add(read_checkpoint(note).root)
        size = await self._queries.scrub(origin, stated)
        return size, (await self._queries.frontier(origin)).root().hex()

    def _statements(self) -> int:
        count, bodies, openings = 0, set[bytes](), set[bytes]()
        prunes = self._file.execute("SELECT 1 FROM floor").fetchone() is not None
        for table in ("body", "document", "law"):
            for identity, data, total in self._file.execute(f"SELECT id, envelope, sum FROM {table}"):  # noqa: S608 -- our own names
                if prunes and table == "body" and is_gone(data):
                    bodies.add(identity)
                    continue
                _believe(total == checksum(data) and _identity(data) == identity.hex(), f"{table} {identity.hex()}")
                bodies.discard(identity)  # it was stored again since
                count += 1
        for digest, data, total in self._file.execute("SELECT digest, data, sum FROM bundle"):
            _believe(total == checksum(data) and bundle_digest(data) == digest, f"policy bundle {digest}")
        for intent, data, total, erased in self._file.execute(_OPENINGS):
            if prunes and not erased and (data, total) == (bytes(len(data)), OPENINGS_SUM):
                openings.add(intent)
                continue
            _believe((data, total) == (bytes(len(data)), 0) if erased else total == checksum(data), f"openings of {intent.hex()}")
        for number, data, total in self._file.execute("SELECT n, entries, sum FROM part"):
            _believe(total == checksum(data), f"part {number} of the index")
        for key, value, total in self._file.execute("SELECT key, value, sum FROM meta"):
            _believe(total == fact_sum(key, value), f"meta {key}")
        if bodies or openings:
            for data_ids, opened in named_still(self._file.execute(KEPT)):
                _believe(bodies.isdisjoint(data_ids), "the body of a record that is kept")
                _believe(openings.isdisjoint(opened), "the openings of a record that is kept")
        return count

    def _notes(self) -> None:
        for space, origin, size, note, total in self._file.execute(_NOTES):
            what = f"{space} of {origin} at size {size}"
            _believe(total == note_sum(space, origin, size, note), what)
            if space.split(" ")[0] in _ABOUT_TREES:
                try:
                    said = read_checkpoint(note)
                except Refused as refusal:
                    raise Alarm("storage_corrupt", f"{what}: {refusal}") from None
                _believe((said.origin, said.size) == (origin, size), what)

    def _places(self, sizes: Mapping[str, int], owner: str) -> None:
        """That what leads to records leads to some that are held and name what it says; first uses to some of the owner's own logs."""
        for origin, last in self._file.execute("SELECT origin, max(idx) FROM located JOIN log ON log.id = located.log GROUP BY origin"):
            _believe(last < sizes.get(origin, 0), f"a place beyond the records of {origin}")
        for identity, data in self._file.execute(_LOCATED):
            _believe(is_gone(data) or _names(data, identity.hex()), f"a place of {identity.hex()}")
        own = [origin for origin in sizes if origin.split("/")[1:2] == [owner]]
        _believe(self._file.execute("SELECT count(*) FROM used").fetchone() == self._used(own), "a first use beyond the own records")

    def _used(self, origins: Sequence[str]) -> tuple[int]:
        """How many first uses stand where a record of these logs names what was used."""
        marks = ", ".join("?" * len(origins))
        found = self._file.execute(_USED.format(origins=marks), origins)
        return (
            len(
                {
                    (space, identity)
                    for space, identity, data in found
                    if space in _SPACES and (is_gone(data) or _names(data, identity.hex()))
                }
            ),
        )


def _names(data: bytes, identity: str) -> bool:
    """Whether a record can be found under that id."""
    return identity.encode() in data or identity in located_ids(read_record(data))


def _identity(data: bytes) -> str:
    try:
        return envelope.identify(data)[1]
    except Refused:
        return ""


def _believe(true: bool, what: str) -> None:
    if not true:
        raise Alarm("storage_corrupt", what)
