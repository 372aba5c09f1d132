"""A node's file, or a copy of it, as whoever trusts nobody reads it: without its lock, without writing, and without believing its index.

Rules
-----
1. The file is opened read-only; the node may run meanwhile. What SQLite or a checksum finds broken is ``storage_corrupt``.
2. Bodies are found by their own ids, of which a table is made at the start: 100 bytes of memory for each.

Not here: belief. Whoever reads it verifies records, statements and certificates as if they had come over the bus.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from mesh.adapters.store import LAYOUT, failure
from mesh.adapters.store_schema import checksum, is_gone, statement_key
from mesh.adapters.storequeries import Queries
from mesh.errors import Alarm, Refused

__all__ = ["StoreReader", "is_store"]

_MAGIC: Final = b"SQLite format 3\0"
_OPENINGS: Final = "SELECT openings, sum FROM opening WHERE intent = ? AND intent NOT IN (SELECT intent FROM erased)"


def is_store(path: Path) -> bool:
    """Whether it begins as a node's file does."""
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


class StoreReader(Queries):
    """An open file; also a context manager that closes it. Raises as all :class:`~mesh.adapters.storequeries.Queries`."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            Refused: ``config_invalid`` if it is not a node's file.
            Unavailable: ``storage_failed``.
            Alarm: ``storage_corrupt``.
        """
        super().__init__(self._rows)
        try:
            self._connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
            self._connection.execute("PRAGMA trusted_schema = OFF")
            kind = tuple(self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
            if kind != (LAYOUT.application, LAYOUT.version):
                raise Refused("config_invalid", f"{path}: not a node's file, or of another version: {kind}")
            self._prunes = self._connection.execute("SELECT 1 FROM floor").fetchone() is not None
            self._places = dict[bytes, tuple[str, int]]()
            for table in ("body", "document"):
                for number, key in self._connection.execute(f"SELECT n, id FROM {table}"):  # noqa: S608 -- our own two names
                    self._places.setdefault(key, (table, number))
        except sqlite3.Error as error:
            raise failure(error) from None

    async def _rows(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as error:
            raise failure(error) from None

    async def bodies(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Envelopes of those of the statements that are held, by id."""
        found = dict[str, bytes]()
        for name in dict.fromkeys(ids):
            if place := self._places.get(statement_key(name)):
                table, number = place
                rows = await self._rows(f"SELECT envelope, sum FROM {table} WHERE n = ?", (number,))  # noqa: S608 -- our own two names
                found.update((name, _summed(name, *row)) for row in rows if not (self._prunes and is_gone(row[0])))
        return found

    async def openings(self, intents: Iterable[str]) -> dict[str, bytes]:
        """Openings of those of the intents that have any here, by intent."""
        found = dict[str, bytes]()
        for name in dict.fromkeys(intents):
            rows = await self._rows(_OPENINGS, (statement_key(name),))
            found.update((name, _summed(name, *row)) for row in rows if not (self._prunes and is_gone(row[0])))
        return found

    async def bundles(self) -> list[bytes]:
        """All policy bundles."""
        digests = [digest for (digest,) in await self._rows("SELECT digest FROM bundle ORDER BY digest", ())]
        return [data for digest in digests if (data := await self.bundle(digest)) is not None]

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the file."""
        self._connection.close()


def _summed(name: str, data: bytes, total: int) -> bytes:
    if total != checksum(data):
        raise Alarm("storage_corrupt", f"statement {name}")
    return data
