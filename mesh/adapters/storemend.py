"""A file that is not as it was written: which rows are not, and how a row is put back that is known to be what was written.

Rules
-----
1. Only what is known by a hash can be put back: a record and its leaf hash by the tree up to a root that this node signed,
   witnessed or attested; branch hashes by the records; a statement by its id and by the checksum of the bytes it had. Where records
   were pruned that is zeros, which nobody need be asked for, and a leaf hash is what the index has of it.
2. What members have pruned meanwhile may go here too, below a floor that the root signed.
3. What no root covers, and what only a checksum covers (heads, notes, facts, statements of streams), is not: it stays as it is.
4. All is put back in one transaction, with what forbids changes set aside in it and back at its end. The lock of the file is
   held meanwhile.

Not here: where the bytes come from (:mod:`mesh.roles.mending`).
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

from mesh.adapters.store import failure, hold
from mesh.adapters.store_schema import LEVELS, SET_FLOORS, checksum, floor_sum, head_sum, is_gone
from mesh.adapters.storeprune import KEPT, StoredFloor, named_still
from mesh.core.bytes import envelope
from mesh.core.law.erase import ERASURES
from mesh.core.law.retain import Retain
from mesh.core.law.travel import read_law
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.errors import Alarm, Refused, Unavailable
from mesh.protocol.step import Head

__all__ = ["BrokenFile", "LostRecord", "LostStatement"]

_STATEMENTS: Final = ("body", "document")
_INDEXED: Final = "SELECT idx, leaf FROM record INDEXED BY record_at WHERE log = ?"
_HEADS: Final = "SELECT use, size, root, time_s, sum FROM head WHERE log = ? AND size > 0"
_NAMING: Final = """SELECT origin, idx FROM record JOIN log ON log.id = record.log WHERE CAST(data AS TEXT) LIKE ?
    ORDER BY n DESC LIMIT 8"""
_BLANK: Final = "UPDATE record SET data = zeroblob(length(data)) WHERE log = ? AND idx = ?"
_TRIGGERS: Final = "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name IN ('record', 'branch', 'body', 'document')"


class LostRecord(NamedTuple):
    """A record whose bytes are gone."""

    origin: str
    at: int
    """Its index."""
    leaf: bytes
    """Its hash, which a signed root covers."""


class LostStatement(NamedTuple):
    """A statement beside records whose bytes are gone."""

    table: str
    row: int
    id: str
    total: int
    """The checksum of the bytes it had."""

    def fits(self, data: bytes) -> bool:
        """Whether these are its bytes."""
        try:
            return envelope.identify(data)[1] == self.id and checksum(data) == self.total
        except Refused:
            return False


class BrokenFile:
    """That file, locked and open; a context manager.

    Raises:
        Unavailable: ``storage_failed``: somebody else has it, or it cannot be read.
        Alarm: ``storage_corrupt`` where SQLite itself cannot make sense of it.
    """

    def __init__(self, path: Path) -> None:
        lock = hold(path.with_name(f"{path.name}.lock"))
        if lock is None:
            raise Unavailable("storage_failed", f"{path} is in use by another process")
        self._lock = lock
        self._file = sqlite3.connect(path, isolation_level=None)
        self._logs: dict[str, int] = {}
        self._writes: list[tuple[str, tuple[object, ...]]] = []
        self._given: dict[tuple[str, int], bytes] = {}

    def __enter__(self) -> Self:
        """Nothing is looked at by entering."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let go of it."""
        self._file.close()
        os.close(self._lock)

    def lost_records(self) -> list[LostRecord]:
        """Records that are not what a signed root says. What can be made again from the rest is noted for :meth:`put_back`.

        Raises:
            Alarm: ``storage_corrupt``: of some nobody knows what they were (rule 2).
        """
        with _ours():
            self._logs = dict(self._file.execute("SELECT origin, id FROM log"))
            return [lost for origin, log in sorted(self._logs.items()) for lost in self._of_log(origin, log)]

    def lost_statements(self) -> list[LostStatement]:
        """Bodies and documents that are not what their ids say."""
        with _ours():
            return [lost for table in _STATEMENTS for lost in self._of_table(table)]

    def let_go_record(self, lost: LostRecord, heard: int) -> bool:
        """Members have pruned it, and nobody has it: :meth:`put_back` keeps its hash. False if the root's word does not let it go.

        ``heard`` is from where on that log is kept by statements of the root that are not in this file.
        """
        with _ours():
            log, said = self._logs[lost.origin], max(self._said(lost.origin), heard)
            floor = self._floor(lost.origin, log)
        if lost.at >= said:
            return False
        below = max(floor.below, said)
        self._writes += [(SET_FLOORS, (log, below, floor.done, floor_sum(lost.origin, below, floor.done))), (_BLANK, (log, lost.at))]
        return True

    def let_go_statement(self, lost: LostStatement) -> bool:
        """Whether no record names it any more that is held or was just given; then :meth:`put_back` leaves zeros of it."""
        with _ours():
            gone = lost.table == "body" and self._prunes() and next(self.naming(lost), None) is None
        if gone:
            self._writes.append(("UPDATE body SET envelope = zeroblob(length(envelope)) WHERE n = ?", (lost.row,)))
        return gone

    def naming(self, lost: LostStatement) -> Iterator[tuple[str, int]]:
        """Places of records that may name it: the newest that are whole, then those that were just given."""
        with _ours():
            names = f'%"{lost.id}"%'
            rows = self._file.execute(_NAMING, (names,)).fetchall()
        yield from rows
        yield from [place for place, data in self._given.items() if lost.id.encode() in data]

    def give_record(self, lost: LostRecord, data: bytes) -> None:
        """The bytes of it were found; :meth:`put_back` writes them.

        Raises:
            Alarm: ``storage_corrupt``: they are not its bytes.
        """
        if leaf_hash(data) != lost.leaf:
            raise Alarm("storage_corrupt", f"record {lost.at} of {lost.origin}")
        self._given[lost.origin, lost.at] = data
        self._writes.append(("UPDATE record SET data = ? WHERE log = ? AND idx = ?", (data, self._logs[lost.origin], lost.at)))

    def give_statement(self, lost: LostStatement, data: bytes) -> None:
        """The same of a statement. Raises as :meth:`give_record`."""
        if not lost.fits(data):
            raise Alarm("storage_corrupt", f"statement {lost.id}")
        self._writes.append((f"UPDATE {lost.table} SET envelope = ? WHERE n = ?", (data, lost.row)))  # noqa: S608 -- our own names

    def put_back(self) -> int:
        """Write what was found (rule 3); how many rows, or 1 if only an index was broken."""
        with _ours():
            sound = self._file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.execute("BEGIN IMMEDIATE")
            triggers = self._file.execute(_TRIGGERS).fetchall()
            for name, _ in triggers:
                self._file.execute(f"DROP TRIGGER {name}")
            self._file.execute("REINDEX record")  # SQLite changes no row that its index does not have so
            for sql, values in self._writes:
                self._file.execute(sql, values)
            self._file.execute("REINDEX record")
            for _, sql in triggers:
                self._file.execute(sql)
            self._file.execute("COMMIT")
        return len(self._writes) or int(not sound)

    def _of_log(self, origin: str, log: int) -> list[LostRecord]:
        leaves, actual, gone, floor = list[bytes](), dict[int, bytes](), set[int](), self._floor(origin, log)
        for index, leaf, data in self._file.execute("SELECT idx, leaf, data FROM record NOT INDEXED WHERE log = ? ORDER BY idx", (log,)):
            found = leaf_hash(data)
            if index != len(leaves):
                raise Alarm("storage_corrupt", f"{origin}: a record is missing before {index}")
            leaves.append(leaf)
            if found != leaf and index < floor.below and is_gone(data):
                gone.add(index)
            elif found != leaf and index < floor.done:
                gone.add(index)
                self._writes.append((_BLANK, (log, index)))
            elif found != leaf:
                actual[index] = found
        signed = self._signed(origin, log, len(leaves))
        if actual and (signed is None or max(actual) >= signed.size):
            raise Alarm("storage_corrupt", f"{origin}: what record {max(actual)} was, no signed root says")
        if signed is not None and not _leads(leaves, signed):  # then it is the hashes that are broken
            self._correct(log, leaves, {index: leaf for index, leaf in self._file.execute(_INDEXED, (log,)) if index in gone})
        if signed is not None and not _leads(leaves, signed):
            self._correct(log, leaves, actual)
            actual.clear()
            if not _leads(leaves, signed):
                raise Alarm("storage_corrupt", f"{origin}: neither records nor hashes lead to the root signed at size {signed.size}")
        self._branches(log, leaves)
        return [LostRecord(origin, index, leaves[index]) for index in actual]

    def _correct(self, log: int, leaves: list[bytes], hashes: Mapping[int, bytes]) -> None:
        """These are the hashes of those records."""
        for index, leaf in hashes.items():
            if leaves[index] != leaf:
                leaves[index] = leaf
                self._writes.append(("UPDATE record SET leaf = ? WHERE log = ? AND idx = ?", (leaf, log, index)))

    def _floor(self, origin: str, log: int) -> StoredFloor:
        """The floor of that log, if it has one that is whole."""
        rows = self._file.execute("SELECT below, done, sum FROM floor WHERE log = ?", (log,)).fetchall()
        whole = (StoredFloor(below, done) for below, done, total in rows if total == floor_sum(origin, below, done))
        return next(whole, StoredFloor(0, 0))

    def _said(self, origin: str) -> int:
        """From where on the root has said that records of that log are kept, by the statements here that are whole."""
        laws = self._file.execute("SELECT envelope, sum FROM law WHERE stream = ? OR stream LIKE ?", (ERASURES, f"{ERASURES}/%"))
        said = [read_law(data).claims for data, total in laws if total == checksum(data)]
        return max((item.below for one in said if isinstance(one, Retain) for item in one.floors if item.origin == origin), default=0)

    def _prunes(self) -> bool:
        return self._file.execute("SELECT 1 FROM floor").fetchone() is not None

    def _signed(self, origin: str, log: int, held: int) -> Head | None:
        """The largest head of that log which is whole, and whose records are held."""
        heads = [(use, Head(size, root, time_s), total) for use, size, root, time_s, total in self._file.execute(_HEADS, (log,))]
        whole = [head for use, head, total in heads if total == head_sum(use, origin, head) and head.size <= held]
        return max(whole, key=lambda head: head.size, default=None)

    def _branches(self, log: int, leaves: Sequence[bytes]) -> None:
        """What is stored of the tree follows from the leaves."""
        rows = self._file.execute("SELECT level, number, hash FROM branch WHERE log = ?", (log,)).fetchall()
        stored = {(level, number): branch for level, number, branch in rows}
        _, grown = Frontier.empty().grow(leaves)
        for level, number, branch in grown:
            if level and level % LEVELS == 0 and stored.get((level, number)) != branch:
                row = "INSERT OR REPLACE INTO branch (log, level, number, hash) VALUES (?, ?, ?, ?)"
                self._writes.append((row, (log, level, number, branch)))

    def _of_table(self, table: str) -> list[LostStatement]:
        lost, gone = list[LostStatement](), list[LostStatement]()
        prunes = self._prunes()
        for row, identity, data, total in self._file.execute(f"SELECT n, id, envelope, sum FROM {table}"):  # noqa: S608 -- our own names
            one = LostStatement(table, row, identity.hex(), total)
            if not one.fits(data):
                (gone if prunes and table == "body" and is_gone(data) else lost).append(one)
        if gone:  # with the last record that named it, or it has rotted
            named = set[bytes]().union(*(bodies for bodies, _ in named_still(self._file.execute(KEPT))))
            lost += [one for one in gone if bytes.fromhex(one.id) in named and not self._again(one)]
        return lost

    def _again(self, one: LostStatement) -> bool:
        """Whether it was stored again after it went."""
        rows = self._file.execute("SELECT envelope FROM body WHERE id = ? AND n > ?", (bytes.fromhex(one.id), one.row))
        return any(not is_gone(data) for (data,) in rows)


def _leads(leaves: Sequence[bytes], signed: Head) -> bool:
    return Frontier.empty().extend(leaves[: signed.size]).root() == signed.root


@contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise failure(error) from None
