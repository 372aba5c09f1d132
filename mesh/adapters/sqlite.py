"""SQLite as a node uses it: how a connection is made and ended, who may have a file, what a foreign exception is to us.

Not here: transactions (:mod:`mesh.adapters.store`), what a file holds (:mod:`mesh.adapters.store_schema`).
"""

import asyncio
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Final

import aiosqlite

from mesh.errors import Alarm, MeshError, Unavailable
from mesh.limits import SQLITE_WAIT_MS_MAX

__all__ = ["PRIVATE", "abandon", "busy", "connect", "failure", "hold"]

PRIVATE: Final = 0o600
"""Only its owner reads a node's file."""
_STATEMENTS: Final = 512
"""Prepared statements kept per connection: one for each count of keys in a query, too."""
_PRAGMAS: Final = (
    f"busy_timeout = {SQLITE_WAIT_MS_MAX}",
    "foreign_keys = ON",
    "recursive_triggers = ON",  # without it REPLACE deletes past the triggers that forbid deleting
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "secure_delete = ON",  # pages that are let go are overwritten
    "temp_store = MEMORY",
    "cache_size = -32768",  # KiB
    "page_size = 4096",
    "wal_autocheckpoint = 4096",  # pages, so 16 MiB: more makes the stall longer, less makes every commit dearer (both measured)
)
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def hold(path: Path) -> int | None:
    """Lock the file ``path`` for as long as the returned descriptor is open; None if somebody else holds it.

    Raises:
        Unavailable: ``storage_failed``.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise Unavailable("storage_failed", f"{path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise Unavailable("storage_failed", f"{path}: {error.strerror}") from None
    return descriptor


def failure(error: Exception) -> MeshError:
    """What a foreign exception is to us."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        return Alarm("storage_rolled_back", str(error))
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code & 0xFF in _CORRUPT or isinstance(error, UnicodeDecodeError):  # what SQLite says of rotten text is no text either
        return Alarm("storage_corrupt", f"{name}: {error}")
    return Unavailable("storage_failed", f"{name}: {error}")


def busy(error: Exception) -> bool:
    """Whether somebody else was at it, so that nothing was done."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


async def connect(path: Path, opened: list[aiosqlite.Connection]) -> aiosqlite.Connection:
    """A connection to that file, added to ``opened`` as soon as it has to be ended."""
    # Where SQLite ends a transaction by itself, as when the disk is full, the isolation level makes what is written next begin
    # another one, which is then rolled back; without it that would be durable.
    connection = await aiosqlite.connect(path, isolation_level="IMMEDIATE", cached_statements=_STATEMENTS)
    opened.append(connection)
    for pragma in _PRAGMAS:
        await connection.execute(f"PRAGMA {pragma}")
    return connection


async def abandon(*connections: aiosqlite.Connection) -> None:
    """Close them; a cancellation waits until that is done, because Python waits for ever on a connection's thread."""
    told = [told for told in [connection.stop() for connection in connections] if told is not None]
    stopped = asyncio.gather(*told, return_exceptions=True)  # what cannot even be closed has nothing left to save
    cancelled: asyncio.CancelledError | None = None
    while not stopped.done():
        try:
            await asyncio.shield(stopped)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
