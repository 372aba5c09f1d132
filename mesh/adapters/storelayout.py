"""What kind of file it is and whose: made so once, and asked at every opening.

Not here: the tables of each kind (:mod:`mesh.adapters.store_schema` and others), connections (:mod:`mesh.adapters.store`).
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

import aiosqlite

from mesh.errors import Refused, Unavailable

__all__ = ["Layout", "bind", "owned_schema", "settle"]

_OWNED: Final = ("CREATE TABLE owner (name TEXT NOT NULL, sqlite TEXT NOT NULL) STRICT",)


class Layout(NamedTuple):
    """What kind of file it is."""

    application: int
    """SQLite's application_id: a file of another kind is refused."""
    version: int
    """Of the schema."""
    journal: Literal["wal", "delete"]
    synchronous: Literal["FULL", "EXTRA"]
    schema: Sequence[str]
    together: int
    """How many jobs at most share one transaction."""


def owned_schema(layout: Layout) -> tuple[str, ...]:
    """All statements that make an empty file one of this layout, but for the row that says whose it is."""
    return (*_OWNED, *layout.schema)


async def bind(connection: aiosqlite.Connection, layout: Layout, owner: str, *, create: bool) -> None:
    """Make it a file of this layout and owner if it is empty and to be one; otherwise it must be one. Writes only what is not there yet."""

    async def fetch(sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await connection.execute_fetchall(sql, values)]

    found = await fetch(f"PRAGMA journal_mode = {layout.journal}")
    if found != [(layout.journal,)]:
        raise Unavailable("storage_failed", f"the file system cannot do journal mode {layout.journal}: {found}")
    await fetch(f"PRAGMA synchronous = {layout.synchronous}")
    await fetch("BEGIN IMMEDIATE")
    if await fetch("SELECT count(*) FROM sqlite_schema") == [(0,)]:
        if not create:
            raise Unavailable("storage_failed", "the file is empty")
        for sql in owned_schema(layout):
            await fetch(sql)
        await fetch(f"PRAGMA application_id = {layout.application}")
        await fetch(f"PRAGMA user_version = {layout.version}")
        await fetch("INSERT INTO owner (name, sqlite) VALUES (?, ?)", (owner, sqlite3.sqlite_version))
    kind = (await fetch("PRAGMA application_id"))[0] + (await fetch("PRAGMA user_version"))[0]
    if kind != (layout.application, layout.version):
        raise Refused("config_invalid", f"a file of another kind or version: {kind}")
    ((name, version),) = await fetch("SELECT name, sqlite FROM owner")
    if name != owner:
        raise Refused("config_invalid", f"the file belongs to {name}, not to {owner}")
    if version != sqlite3.sqlite_version:  # what wrote last is the first question after a corruption
        await fetch("UPDATE owner SET sqlite = ?", (sqlite3.sqlite_version,))
    await connection.commit()


async def settle(connection: aiosqlite.Connection, layout: Layout) -> None:
    """Write the whole journal into the file and sync that, before anything is read.

    What a journal holds whose fsync failed is read back from memory, but a fsync of the file itself has not failed yet.

    Raises:
        Unavailable: ``storage_failed``.
    """
    if layout.journal == "wal":
        rows = await connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        ((_, frames, written),) = [tuple(row) for row in rows]
        if frames < 0 or frames != written:  # it is no such journal, or somebody else reads an old state of it
            raise Unavailable("storage_failed", f"only {written} of {frames} pages of the journal could be made durable")
