"""No bit of what a node or a witness keeps can be changed unseen: by `mesh node verify`, by the node that runs, or at the next start."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mesh.adapters import signer
from mesh.adapters.store import Store
from mesh.adapters.storecheck import check_file, copy_file
from mesh.adapters.witnessstore import WitnessStore
from mesh.core.bytes import envelope
from mesh.core.log.checkpoint import Checkpoint, log_line
from mesh.core.log.merkle import Frontier, verify_inclusion
from mesh.core.log.note import Note
from mesh.errors import Alarm, MeshError, Refused
from mesh.protocol.events import Tick
from mesh.protocol.step import AppendHashes, Head, Persist, PutLaw, PutNote, PutOpenings, SetHead
from tests.adapters.storekit import refused
from tests.core.kit import refuses, secret
from tests.roles.test_performer import LAB, Bench
from tests.support.factory import T0

RECORDS = 280
FLIPS = 400
KEY = secret(100)
ORIGIN = "lab/eu-1/e1"
PRUNED = "lab/us-1/e1"
"""A log of which only hashes are held."""
FOLLOWS = {
    ("owner", "sqlite"),  # which SQLite wrote last: for people
    *((table, "n") for table in ("record", "body", "located", "document")),
    ("body", "kind"),
    ("document", "kind"),
    ("opening", "intent"),
    ("law", "stream"),
    ("law", "sequence"),
    ("used", "at_ms"),
}
"""Columns by which something is found that says the same of itself: where one is wrong, something is not found, and nothing else is."""
ELSEWHERE = {"run", "part", "forgotten"}
"""An index that can be made again (tests/adapters/test_store_index.py), and streams that are no more."""


def _note(origin: str, size: int, root: bytes) -> bytes:
    text = Checkpoint(origin, size, root).to_text()
    return Note(text, (log_line(origin, KEY.public, KEY.sign(text)),)).encode()


async def _filled(path: Path) -> None:
    """A governor's file with rows wherever there can be any, and notes of every kind."""
    bench = await Bench.at(path)
    for first in range(0, RECORDS, 140):
        bench.ask(*range(first, first + 140))
        await bench.done()
        await bench.performer.take([Tick()])
    log = bench.performer.state.log
    head = Head(log.frontier.size, log.frontier.root(), T0 // 1000 + 9)
    note = _note(ORIGIN, head.size, head.root)
    more: list[Persist] = [SetHead(use, ORIGIN, head) for use in ("log", "witness", "attest")]
    more += [PutNote(space, ORIGIN, head.size, note) for space in ("checkpoint", "attested", "certificate", "heartbeat")]
    more += [PutNote("cosigned", ORIGIN, head.size, note, "us-1"), PutNote("outside", ORIGIN, head.size, note, "w1")]
    roster = envelope.identify(LAB.roster_envelope)[1]
    await bench.store.commit([*more, PutLaw("roster", 1, roster, LAB.roster_envelope), PutOpenings("ab" * 32, b"openings")])
    await bench.store.commit([PutOpenings("cd" * 32, b"openings that go")])
    await bench.store.erase(["cd" * 32])
    hashes = tuple(bytes([number]) * 32 for number in range(3))
    root = Frontier.empty().extend(hashes).root()
    await bench.store.commit([AppendHashes(PRUNED, 0, hashes, 3), SetHead("witness", PRUNED, Head(3, root, T0 // 1000))])
    await bench.store.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a file, whole."""
    folder = tmp_path_factory.mktemp("written")
    asyncio.run(_filled(folder))
    copy_file(folder / "node.db", folder / "copy")
    return folder / "copy"


def _flipped(value: Any, random: Random) -> Any:
    """The value of a column with one bit changed."""
    if isinstance(value, int):
        return value ^ 1 << random.randrange(20)
    data = bytearray(value.encode() if isinstance(value, str) else value or bytes(1))
    data[random.randrange(len(data))] ^= 1 << random.randrange(7)
    return data.decode() if isinstance(value, str) else bytes(data)


def _tamper(path: Path, *statements: tuple[str, tuple[Any, ...]]) -> bool:
    """Change rows past what forbids it, and put that back; false where the rows themselves cannot be so."""
    with closing(sqlite3.connect(path, isolation_level=None)) as file:
        triggers = file.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
        for pragma in ("foreign_keys = OFF", "synchronous = OFF"):
            file.execute(f"PRAGMA {pragma}")
        file.execute("BEGIN")
        for name, _ in triggers:
            file.execute(f"DROP TRIGGER {name}")
        try:
            for sql, values in statements:
                assert file.execute(sql, values).rowcount != 0
        except sqlite3.IntegrityError:
            return False
        finally:
            for _, sql in triggers:
                file.execute(sql)
            file.execute("COMMIT")
    return True


def _columns(path: Path) -> Iterator[tuple[str, str, str, tuple[Any, ...], Any]]:
    """Of each column of each table that has rows, some values: with the condition that finds the row."""
    random = Random(1)
    with closing(sqlite3.connect(path)) as file:
        for (table,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall():
            columns = file.execute(f"PRAGMA table_info({table})").fetchall()
            keys = [column[1] for column in columns if column[5]] or ["rowid"]
            rows = file.execute(f"SELECT {', '.join(keys)}, {', '.join(column[1] for column in columns)} FROM {table}").fetchall()  # noqa: S608 -- names of ours
            where = " AND ".join(f"{key} = ?" for key in keys)
            for row in random.sample(rows, min(len(rows), 4)):
                for column, value in zip(columns, row[len(keys) :], strict=True):
                    yield table, column[1], where, row[: len(keys)], value


async def _passes(looking: Awaitable[object]) -> bool:
    """Whether nothing is found."""
    try:
        await looking
    except (Alarm, Refused):
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------- a node's file


async def test_one_changed_bit_of_any_column_that_a_node_keeps_is_found(written: Path, tmp_path: Path) -> None:
    random, found, held = Random(2), set[tuple[str, str]](), set[str]()
    for table, column, where, key, value in _columns(written):
        held.add(table)
        if (table, column) in FOLLOWS:
            continue
        path = tmp_path / "node.db"
        path.write_bytes(written.read_bytes())
        change = f"UPDATE {table} SET {column} = ? WHERE {where}"  # noqa: S608 -- names of ours
        if _tamper(path, (change, (_flipped(value, random), *key))):
            found.add((table, column))
            assert not await _passes(check_file(path, still=False)), f"{table}.{column} {value!r}"
    with closing(sqlite3.connect(written)) as file:
        tables = {name for (name,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        columns = {(table, row[1]) for table in held for row in file.execute(f"PRAGMA table_info({table})")}
    assert tables - held == ELSEWHERE
    assert columns - found - FOLLOWS == set()


def _rows(path: Path) -> str:
    """All that it holds, without what only finds something."""
    kept = list[str]()
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as file:
        for (table,) in file.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").fetchall():
            columns = [row[1] for row in file.execute(f"PRAGMA table_info({table})") if (table, row[1]) not in FOLLOWS]
            kept.append(repr(sorted(file.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall())))  # noqa: S608 -- names of ours
    return "\n".join(kept)


async def test_one_flipped_bit_anywhere_in_the_file_is_found_or_changes_nothing_that_it_holds(written: Path, tmp_path: Path) -> None:
    random, whole, data, found = Random(3), _rows(written), bytearray(written.read_bytes()), 0
    for at in random.sample(range(len(data)), FLIPS):
        bit = 1 << random.randrange(8)
        data[at] ^= bit
        (tmp_path / "node.db").write_bytes(data)
        data[at] ^= bit
        try:
            await check_file(tmp_path / "node.db", still=True)
        except MeshError:
            found += 1
        else:
            assert _rows(tmp_path / "node.db") == whole, at
    assert found > FLIPS / 2


async def test_a_leaf_hash_stands_twice_and_the_one_that_tiles_and_proofs_are_made_from_is_looked_at_while_the_node_runs(
    written: Path, tmp_path: Path
) -> None:
    data, alarms = bytearray(written.read_bytes()), 0
    with closing(sqlite3.connect(written)) as file:
        (leaf, before) = (file.execute("SELECT leaf FROM record WHERE idx = ?", (index,)).fetchone()[0] for index in (41, 40))
        root, size = file.execute("SELECT root, size FROM head WHERE use = 'log'").fetchone()
    places = [at for at in range(len(data)) if data.startswith(leaf, at)]
    assert len(places) == 2
    for at in places:
        data[at + 7] ^= 1
        (tmp_path / "node.db").write_bytes(data)
        data[at + 7] ^= 1
        await refused(check_file(tmp_path / "node.db", still=True), Alarm, "storage_corrupt")
        store = await Store.open(tmp_path / "node.db", owner="eu-1")
        path, tile = await store.inclusion_path(ORIGIN, 40, size), await store.tile(ORIGIN, 0, 41, 1)
        if await _passes(store.scrub(ORIGIN)):
            verify_inclusion(before, 40, size, root, path)
            assert tile == (leaf,)
        else:
            with refuses("bad_proof"):
                verify_inclusion(before, 40, size, root, path)
            assert tile != (leaf,)
            alarms += 1
        await store.close()
    assert alarms == 1


MOVED: dict[str, tuple[str, ...]] = {
    "two records change places": (
        "UPDATE record SET idx = -1 WHERE idx = 7",
        "UPDATE record SET idx = 7 WHERE idx = 8",
        "UPDATE record SET idx = 8 WHERE idx = -1",
    ),
    "a record in the middle is gone": ("DELETE FROM record WHERE idx = 7",),
    "a record in the middle is gone and the rest moves up": (
        "DELETE FROM record WHERE idx = 7",
        "UPDATE record SET idx = -idx WHERE idx > 7",
        "UPDATE record SET idx = -idx - 1 WHERE idx < 0",
    ),
    "the last records are gone": ("DELETE FROM record WHERE idx > 270",),
    "a branch hash is gone": ("DELETE FROM branch WHERE level = 8",),
    "a head goes back": ("UPDATE head SET size = size - 1 WHERE use = 'log'",),
    "a head becomes another's": ("UPDATE head SET use = 'other' WHERE use = 'witness'",),
    "a certificate stands at another size": ("UPDATE note SET size = size - 1 WHERE space = 'certificate'",),
    "a member's lines become another's": ("UPDATE note SET space = 'cosigned ap-1' WHERE space = 'cosigned us-1'",),
    "a checkpoint becomes a certificate": (
        "DELETE FROM note WHERE space = 'certificate'",
        "UPDATE note SET space = 'certificate' WHERE space = 'checkpoint'",
    ),
}


@pytest.mark.parametrize("what", MOVED)
async def test_what_was_removed_moved_or_set_back_is_found(written: Path, tmp_path: Path, what: str) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(written.read_bytes())
    assert _tamper(path, *((sql, ()) for sql in MOVED[what]))
    with pytest.raises(Alarm, match=r"storage_(corrupt|rolled_back)"):
        await check_file(path, still=False)


@pytest.mark.parametrize("pages", [1, 2, 40])
async def test_a_file_that_ends_too_early_is_found(written: Path, tmp_path: Path, pages: int) -> None:
    (tmp_path / "node.db").write_bytes(written.read_bytes()[: -4096 * pages])
    await refused(check_file(tmp_path / "node.db", still=True), Alarm, "storage_corrupt")


# ------------------------------------------------------------------------------------------------------------- a witness's file


async def _witness(folder: Path) -> WitnessStore:
    if not (folder / "witness.key").exists():
        signer.generate(folder / "witness.key", "witness", bytes(32))
    path = folder / "witness.db"
    return await WitnessStore.open(path, key="ab" * 32, key_file=folder / "witness.key", create=not path.exists())


async def _remembered(folder: Path) -> str:
    store = await _witness(folder)
    try:
        return repr((await store.all(), await store.evidence()))
    finally:
        await store.close()


@pytest.fixture
async def witness(tmp_path: Path) -> Path:
    """A witness's folder: two logs that it has cosigned, and evidence against one."""
    store = await _witness(tmp_path)
    for number in (1, 2):
        origin, head = f"log.example/{number}", Head(7, bytes([number]) * 32, 1_700_000_000)
        note = _note(origin, head.size, head.root)
        await store.advance(origin, None, [SetHead("witness", origin, head), PutNote("checkpoint", origin, head.size, note)])
    await store.keep("log.example/1", _note("log.example/1", 7, bytes(32)))
    await store.close()
    return tmp_path


async def test_one_changed_bit_of_any_column_that_a_witness_keeps_is_found(witness: Path) -> None:
    random, found, path = Random(4), set[tuple[str, str]](), witness / "witness.db"
    data = path.read_bytes()
    for table, column, where, key, value in list(_columns(path)):
        path.write_bytes(data)
        change = f"UPDATE {table} SET {column} = ? WHERE {where}"  # noqa: S608 -- names of ours
        if (table, column) not in FOLLOWS and _tamper(path, (change, (_flipped(value, random), *key))):
            found.add((table, column))
            assert not await _passes(_remembered(witness)), f"{table}.{column} {value!r}"
    assert found == {
        ("owner", "name"),
        *(("cosigned", name) for name in ("origin", "size", "root", "time_s", "note", "sum")),
        *(("evidence", name) for name in ("origin", "note", "sum")),
    }


async def test_one_flipped_bit_anywhere_in_a_witness_file_is_found_or_changes_nothing_that_it_remembers(witness: Path) -> None:
    random, path, whole = Random(5), witness / "witness.db", await _remembered(witness)
    data, found = bytearray(path.read_bytes()), 0
    places = {at for at in range(len(data)) if data[at]}  # nothing is stored where nothing stands
    for at in random.sample(sorted(places), min(len(places), FLIPS)):
        bit = 1 << random.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        try:
            assert await _remembered(witness) == whole, at
        except MeshError:
            found += 1
    assert found > FLIPS / 8
