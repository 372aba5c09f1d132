"""A disk that rots where records were pruned is mended from what is there: nobody holds more of these rows than their hashes."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from mesh.adapters.store import Store
from mesh.adapters.storecheck import check_file
from mesh.core.messages import LineageBatch
from mesh.errors import Alarm
from mesh.roles.mending import mended
from tests.adapters.storekit import NAME
from tests.adapters.test_store_prune import _decided, _pruned
from tests.support.unguarded import tampered

ALARM = Alarm("storage_corrupt", "record 3 of lab/eu-1/e1")
BELOW = 64


async def _nobody(_origin: str, _index: int, _fits: Callable[[LineageBatch], bool]) -> LineageBatch | None:
    """Members that have pruned it, too."""
    return None


def _flip_leaf(path: Path, at: int) -> None:
    """Rot in the page of a row, of which SQLite, and so its index, hears nothing."""
    with closing(sqlite3.connect(path)) as file:
        ((leaf, data),) = file.execute("SELECT leaf, data FROM record NOT INDEXED WHERE idx = ?", (at,)).fetchall()
    whole = bytearray(path.read_bytes())
    row = whole.index(leaf + data)
    whole[row] ^= 1
    path.write_bytes(bytes(whole))


def _digest(path: Path) -> str:
    with closing(sqlite3.connect(path)) as file:
        return hashlib.sha256("\n".join(sorted(file.iterdump())).encode()).hexdigest()


async def _file(path: Path) -> Path:
    store, origin, _, _ = await _decided(path)
    await _pruned(store, origin, BELOW)
    await store.close()
    with closing(sqlite3.connect(path / NAME)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path / NAME


ROTTEN = {
    "a pruned record": ("record", "data", "idx = 3"),
    "a pruned body": ("body", "envelope", "n = (SELECT min(n) FROM body)"),
}


def _flip(path: Path, table: str, column: str, where: str) -> None:
    with closing(sqlite3.connect(path)) as file:
        ((data,),) = file.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchall()  # noqa: S608 -- our own text
    assert data == bytes(len(data))
    tampered(path, f"UPDATE {table} SET {column} = x'{bytes([1, *data[1:]]).hex()}' WHERE {where}")  # noqa: S608 -- our own text


@pytest.mark.parametrize("what", ROTTEN)
async def test_zeros_that_rotted_are_zeros_again(tmp_path: Path, what: str) -> None:
    path = await _file(tmp_path)
    before = _digest(path)
    _flip(path, *ROTTEN[what])
    with pytest.raises(Alarm):
        await check_file(path, still=False)
    assert len(await mended(path, ALARM, _nobody)) == 1
    await check_file(path, still=False)
    assert _digest(path) == before


async def test_a_hash_that_rotted_beside_zeros_is_what_the_index_has(tmp_path: Path) -> None:
    path = await _file(tmp_path)
    before = _digest(path)
    _flip_leaf(path, 3)
    assert _digest(path) != before
    assert len(await mended(path, ALARM, _nobody)) == 1
    assert _digest(path) == before
    await check_file(path, still=False)
    store = await Store.open(path, owner="eu-1")
    for origin in await store.sizes():
        await store.scrub(origin)
    await store.close()


async def test_what_was_not_pruned_yet_is_asked_for_and_stays_as_it_is_if_nobody_has_it(tmp_path: Path) -> None:
    store, origin, _, _ = await _decided(tmp_path)
    await store.prune(origin, below=BELOW, first=0, end=32)
    await store.close()
    path = tmp_path / NAME
    for at in (40, 70):
        tampered(path, f"UPDATE record SET data = x'00' WHERE idx = {at}")  # noqa: S608 -- our own text
        broken = _digest(path)
        with pytest.raises(Alarm, match="storage_corrupt"):
            await mended(path, ALARM, _nobody)
        assert _digest(path) == broken
