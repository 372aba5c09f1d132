"""Whatever was committed is found by its id at once and ever after, while the index that says where is written, merged, lost or torn."""

import asyncio
import random
import shutil
import sqlite3
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters import storeindex
from mesh.adapters.store import Conflict, Store
from mesh.adapters.store_schema import SCHEMA
from mesh.adapters.storeindex import Index
from mesh.errors import Alarm
from mesh.protocol.step import InsertOnce, Locate, Persist, PutBody
from tests.adapters.storekit import LOG, NAME, PEER, append, ident, refused, tamper

Places = list[tuple[str, str, int]]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many entries in a part as there really are, but few parts, so that hundreds of ids fill several levels."""
    monkeypatch.setattr(storeindex, "CAPACITY", 128)
    monkeypatch.setattr(storeindex, "BITS", 1)
    monkeypatch.setattr(storeindex, "_FLUSH_TOGETHER", 1)
    monkeypatch.setattr(storeindex, "_MERGE_TOGETHER", 1)


def _step(first: int, count: int) -> tuple[list[Persist], Places, dict[str, bytes]]:
    places: Places = []
    bodies: dict[str, bytes] = {}
    for number in range(first, first + count):
        bodies[ident(number)] = b"body %d" % number
        places += [(ident(number), LOG, number), (ident(-1 - number & 0xFFFFFFFF), LOG, number)]
    effects: list[Persist] = [append(LOG, first, count), *(PutBody(key, "intent", data) for key, data in bodies.items())]
    effects += [PutBody(ident(1 << 40), "identity", b"document"), *(Locate(*place) for place in places)]
    effects += [InsertOnce("intent", key, number, number) for number, key in enumerate(bodies, first)]
    return effects, places, bodies


async def _fill(store: Store, size: int, *, step: int = 30) -> tuple[Places, dict[str, bytes]]:
    places: Places = []
    bodies: dict[str, bytes] = {}
    for first in range(0, size, step):
        effects, more, held = _step(first, min(step, size - first))
        await store.commit(effects)
        places += more
        bodies |= held
    return places, bodies


async def _check(store: Store, places: Places, bodies: dict[str, bytes], dice: random.Random) -> None:
    """Some of everything, the newest surely among it."""
    asked = [*dice.sample(sorted(bodies), min(20, len(bodies))), *list(bodies)[-3:]]
    assert await store.bodies([*asked, ident(1 << 50)]) == {key: bodies[key] for key in asked}
    for key in (places[-1][0], dice.choice(places)[0]):
        for digits in (3, 4, 16, 40, 64):
            wanted = [place for place in reversed(places) if place[0].startswith(key[:digits])]
            assert await store.find(key[:digits], 1_000) == wanted
            assert await store.find(key[:digits], 1) == wanted[:1]


def _spoil(path: Path, *statements: str) -> None:
    with sqlite3.connect(path / NAME) as connection:
        for statement in statements:
            assert connection.execute(statement).rowcount > 0
    connection.close()


def _levels(store: Store) -> set[int]:
    return {run.level for run in store._index._runs.values()}


# ------------------------------------------------------------------------------------------------- found at every moment


async def test_after_a_crash_behind_any_commit_everything_is_found(tmp_path: Path) -> None:
    """Each commit's file is copied as a power cut would leave it, opened, and asked; so is the one that goes on."""
    dice = random.Random(1)
    (tmp_path / "copy").mkdir()
    store = await Store.open(tmp_path / NAME, owner="a")
    places: Places = []
    bodies: dict[str, bytes] = {}
    seen: set[str] = set()
    while len(bodies) < 5_000:
        effects, more, held = _step(len(bodies), dice.choice([1, 2, 30, 64]))
        if dice.random() < 0.2 and bodies:  # what is thrown away takes nothing of the index with it
            with pytest.raises(Conflict):
                await store.commit([*effects, InsertOnce("intent", ident(0), 0, 0)])
        await store.commit(effects)
        places += more
        bodies |= held
        await _check(store, places, bodies, dice)
        runs = store._index._runs.values()
        seen |= {"written" for run in runs if run.level == 0 and run.high < 2} | {"moving" for run in runs if run.target}
        for name in (NAME, f"{NAME}-wal"):
            shutil.copy(tmp_path / name, tmp_path / "copy" / name)
        other = await Store.open(tmp_path / "copy" / NAME, owner="a")
        await _check(other, places, bodies, dice)
        await other.close()
        if dice.random() < 0.1:
            await store.close()
            store = await Store.open(tmp_path / NAME, owner="a")
    assert seen == {"written", "moving"}
    assert 2 in _levels(store)
    await store.close()


async def test_nothing_is_missed_by_who_asks_while_others_commit(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    done: Places = []
    asked = 0

    async def ask(dice: random.Random) -> None:
        nonlocal asked
        while len(done) < 6_000:
            if done:
                key, log, number = dice.choice([dice.choice(done), done[-2]])
                assert (key, log, number) in await store.find(key, 9)
                data = await store.bodies([ident(number)])
                assert data == {ident(number): b"body %d" % number}
                asked += 1
            await asyncio.sleep(0)

    async def write() -> None:
        for first in range(0, 3_000, 30):
            effects, places, _ = _step(first, 30)
            await store.commit(effects)
            done.extend(places)

    await asyncio.gather(write(), *(ask(random.Random(number)) for number in range(3)))
    assert asked > 100
    assert 1 in _levels(store)
    await store.close()


async def test_ids_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """Two that share eight bytes can be made on purpose; each keeps its own body and its own places."""
    store = await Store.open(tmp_path / NAME, owner="a")
    await _fill(store, 60)
    one, two, three = (ident(3)[:16] + digit * 48 for digit in "123")
    await store.commit([PutBody(one, "intent", b"one"), Locate(one, LOG, 5)])
    await store.commit([PutBody(two, "outcome", b"two"), Locate(two, PEER, 6), Locate(three, PEER, 7)])
    for beyond in (60, 900):
        assert await store.bodies([one, two, three]) == {one: b"one", two: b"two"}
        assert await store.find(one, 9) == [(one, LOG, 5)]
        assert await store.find(two[:20], 9) == [(two, PEER, 6)]
        assert await store.find(one[:16], 2) == [(three, PEER, 7), (two, PEER, 6)]
        for first in range(beyond, 900, 30):
            await store.commit(_step(first, 30)[0])
    await store.close()


# ------------------------------------------------------------------------------------------------------ once, and no more


async def test_the_file_itself_refuses_a_second_use(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await _fill(store, 30)
    await store.close()
    connection = sqlite3.connect(tmp_path / NAME)
    with pytest.raises(sqlite3.IntegrityError) as caught:
        connection.execute("INSERT INTO used SELECT at_ms, space, id, idx + 1 FROM used")
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY
    connection.close()


async def test_a_document_that_everybody_names_is_stored_once(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await _fill(store, 600)
    await store.commit([PutBody(ident(1 << 40), "identity", b"other signatures")])
    await store.close()
    store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([PutBody(ident(1 << 40), "identity", b"other signatures")])
    assert await store.bodies([ident(1 << 40)]) == {ident(1 << 40): b"document"}
    await store.close()
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("REPLACE INTO document SELECT n, id, kind, x'00', sum FROM document")
    assert connection.execute("SELECT envelope FROM document").fetchall() == [(b"document",)]
    connection.close()


async def test_a_body_that_comes_again_is_stored_once_while_memory_lasts_and_always_answered_as_it_first_was(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await _fill(store, 30)
    await store.commit([PutBody(ident(3), "intent", b"other signatures")])
    assert await store._file.read("SELECT count(*) FROM body") == [(30,)]
    for first in range(30, 900, 30):
        await store.commit(_step(first, 30)[0])
    for _ in range(2):
        await store.commit([PutBody(ident(3), "intent", b"other signatures"), Locate(ident(3), LOG, 3)])
        assert await store.bodies([ident(3)]) == {ident(3): b"body 3"}
        assert await store.find(ident(3), 9) == [(ident(3), LOG, 3)]
    await store.close()
    store = await Store.open(tmp_path / NAME, owner="a")
    assert await store.bodies([ident(3)]) == {ident(3): b"body 3"}
    await store.close()


# ------------------------------------------------------------------------------------------------------------ lost or torn


@pytest.mark.parametrize(
    "lost",
    [
        ("DELETE FROM run",),
        ("DELETE FROM run", "DELETE FROM part"),
        ("DELETE FROM run WHERE run = (SELECT min(run) FROM run WHERE target = 0)",),
        ("DELETE FROM run WHERE run = (SELECT max(run) FROM run)",),
        ("UPDATE run SET body = body + 1000",),
        ("UPDATE run SET body = body + 1000, size = size + 1000 WHERE body = (SELECT max(body) FROM run)",),
    ],
)
async def test_an_index_that_was_lost_is_made_again_from_the_rows(tmp_path: Path, lost: Sequence[str]) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    places, bodies = await _fill(store, 2_000)
    assert _levels(store) >= {0, 1}
    await store.close()
    _spoil(tmp_path, *lost)
    store = await Store.open(tmp_path / NAME, owner="a")
    for seed in range(5):
        await _check(store, places, bodies, random.Random(seed))
    effects, more, held = _step(2_000, 64)
    await store.commit(effects)
    await _check(store, [*places, *more], bodies | held, random.Random(9))
    await store.close()


@pytest.mark.parametrize(
    "rot", ["UPDATE part SET entries = zeroblob(length(entries))", "UPDATE part SET sum = sum + 1", "DELETE FROM part"]
)
async def test_rot_in_the_index_is_an_alarm_and_never_a_missing_answer(tmp_path: Path, rot: str) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await _fill(store, 500)
    await store.close()
    _spoil(tmp_path, rot)
    store = await Store.open(tmp_path / NAME, owner="a")
    await refused(store.bodies([ident(3)]), Alarm, "storage_corrupt")
    await refused(store.find(ident(3), 1), Alarm, "storage_corrupt")

    async def go_on() -> None:
        for first in range(500, 5_000, 30):
            await store.commit(_step(first, 30)[0])

    await refused(go_on(), Alarm, "storage_corrupt")  # what is merged is looked at, too
    await store.close()


async def test_a_row_that_is_missing_is_noticed_when_the_index_takes_it_up(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await _fill(store, 30)
    await store.close()
    tamper(tmp_path, "DELETE FROM body WHERE n = 7")
    await refused(Store.open(tmp_path / NAME, owner="a"), Alarm, "storage_corrupt")


@pytest.mark.parametrize(
    ("theirs", "code"),
    [
        ("INSERT INTO located (id, log, idx) SELECT id, log, idx FROM located WHERE n = 1", "storage_corrupt"),
        ("INSERT INTO body (n, id, kind, envelope, sum) SELECT 31, id, kind, envelope, sum FROM body WHERE n = 1", "storage_rolled_back"),
    ],
)
async def test_who_writes_rows_beside_the_store_is_noticed_before_the_index_leads_astray(tmp_path: Path, theirs: str, code: str) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await _fill(store, 30)
    _spoil(tmp_path, theirs)
    await refused(store.commit(_step(30, 3)[0]), Alarm, code)
    assert (await store.sizes())[LOG] == 30
    await store.close()


# ------------------------------------------------------------------------------------------------------------------- costs


async def test_a_step_writes_as_many_pages_in_a_long_log_as_in_a_short_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storeindex, "CAPACITY", 2_048)
    monkeypatch.setattr(storeindex, "BITS", 5)
    store = await Store.open(tmp_path / NAME, owner="a")
    await store._file._writer.execute("PRAGMA wal_autocheckpoint = 0")
    written = [0]
    for first in range(0, 12_000, 16):
        await store.commit(_step(first, 16)[0])
        if (first + 16) % 4_000 == 0:
            written.append((tmp_path / f"{NAME}-wal").stat().st_size)
    short, _, long = (after - before for before, after in pairwise(written))
    assert {0, 1} <= _levels(store)
    assert long < short * 1.2
    await store.close()


async def test_a_lookup_reads_few_parts_however_many_ids_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storeindex, "CAPACITY", 256)
    monkeypatch.setattr(storeindex, "BITS", 2)
    connection = sqlite3.connect(":memory:")
    for sql in _tables():
        connection.execute(sql)

    async def fetch(sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return connection.execute(sql, values).fetchall()

    index, dice, size, most = Index(), random.Random(5), 0, 0
    while size < 150_000:
        keys = [dice.randbytes(32) for _ in range(dice.choice([1, 3, 192, 192]))]
        size += len(keys)
        turn = await index.turn(fetch, keys[::3], keys)
        for sql, rows in turn.writes:
            connection.executemany(sql, rows)
        index.adopt(turn)
        most = max(most, len(index._runs))
    assert max(run.level for run in index._runs.values()) == 3
    assert most <= 3 * 16
    assert sum(run.size for run in index._runs.values()) > index.bodies + index.places - 3 * 256
    connection.close()


def _tables() -> list[str]:
    return [sql for sql in SCHEMA if sql.startswith(("CREATE TABLE run ", "CREATE TABLE part "))]
