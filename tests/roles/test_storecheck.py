"""A copy of a node's file is what it held at one commit, and whatever is not as it was written is found in it."""

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from mesh.adapters.store import Store
from mesh.adapters.storecheck import check_file, copy_file
from mesh.adapters.storereader import StoreReader
from mesh.core.log.checkpoint import Checkpoint, log_line
from mesh.core.log.note import Note
from mesh.errors import Alarm, MeshError, Refused
from mesh.protocol.events import Tick
from mesh.protocol.step import Head, Persist, PutNote, PutOpenings, SetHead
from tests.roles.test_performer import Bench
from tests.support.factory import T0
from tests.support.unguarded import unguarded


async def _bench(path: Path) -> Bench:
    """A governor that has decided 300 intents, and has certificates of its log."""
    bench = await Bench.at(path)
    for first in range(0, 300, 100):
        bench.ask(*range(first, first + 100))
        await bench.done()
        await bench.performer.take([Tick()])
    return bench


async def _filled(path: Path) -> None:
    """The same, with a row in every table."""
    bench = await _bench(path)
    log = bench.performer.state.log
    head = Head(log.frontier.size, log.frontier.root(), T0 // 1000 + 9)
    text = Checkpoint(log.origin, head.size, head.root).to_text()
    note = Note(text, (log_line(log.origin, "ab" * 32, bytes(64)),)).encode()
    more: list[Persist] = [SetHead(use, log.origin, head) for use in ("log", "witness", "attest")]
    await bench.store.commit([*more, PutNote("certificate", log.origin, head.size, note), PutOpenings("ab" * 32, b"openings")])
    await bench.store.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a file, to be copied."""
    folder = tmp_path_factory.mktemp("written")
    asyncio.run(_filled(folder))
    return folder / "node.db"


def _tamper(path: Path, statement: str) -> None:
    """Change rows past all that forbids it."""
    with unguarded(path) as file:
        file.execute("PRAGMA foreign_keys = OFF")
        assert file.execute(statement).rowcount != 0


async def test_a_file_as_it_was_written_is_described_as_what_it_holds(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    log = bench.performer.state.log
    live = await check_file(tmp_path / "node.db", still=False)
    await bench.store.close()
    held = await check_file(tmp_path / "node.db", still=False)
    assert live == held
    assert held.owner == "eu-1"
    assert held.incarnation == 1
    assert [(item.origin, item.size, item.root) for item in held.logs] == [(log.origin, log.frontier.size, log.frontier.root().hex())]
    assert held.logs[0].size > 300
    assert {item.use for item in held.heads} == {"log", "witness", "attest"}
    assert held.statements > 300


async def test_a_copy_that_is_made_while_the_node_writes_is_one_moment_of_it_and_stops_no_commit(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    before = bench.performer.state.log.frontier.size
    copies = [asyncio.create_task(asyncio.to_thread(copy_file, tmp_path / "node.db", tmp_path / f"copy-{number}")) for number in range(4)]
    asked = 300
    while not all(copy.done() for copy in copies):
        bench.ask(*range(asked, asked + 5))
        await bench.done()
        asked += 5
    bench.performer.check()
    await asyncio.gather(*copies)
    after = bench.performer.state.log.frontier.size
    await bench.store.close()
    assert asked > 300
    for number in range(4):
        held = await check_file(tmp_path / f"copy-{number}", still=True)
        assert before <= held.logs[0].size <= after
        assert not (tmp_path / f"copy-{number}-wal").exists()
        assert (tmp_path / f"copy-{number}").stat().st_mode & 0o777 == 0o600


async def test_copying_what_a_killed_process_left_changes_nothing_of_it(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    for end in ("", "-wal"):
        (tmp_path / f"left{end}").write_bytes((tmp_path / f"node.db{end}").read_bytes())
    await bench.store.close()
    before = {end: hashlib.sha256((tmp_path / f"left{end}").read_bytes()).digest() for end in ("", "-wal")}
    assert (tmp_path / "left-wal").stat().st_size > 0
    copy_file(tmp_path / "left", tmp_path / "copy")
    assert {end: hashlib.sha256((tmp_path / f"left{end}").read_bytes()).digest() for end in ("", "-wal")} == before
    assert await check_file(tmp_path / "copy", still=True) == await check_file(tmp_path / "node.db", still=False)


TAMPERED = {
    "a record": "UPDATE record SET data = CAST(data || x'20' AS BLOB) WHERE idx = 7",
    "a leaf hash": "UPDATE record SET leaf = zeroblob(32) WHERE idx = 7",
    "a branch hash": "UPDATE branch SET hash = zeroblob(32) WHERE level = 8",
    "a head": "UPDATE head SET size = size - 1 WHERE use = 'log'",
    "records below a head": "DELETE FROM record WHERE idx >= 299",
    "a body": "UPDATE body SET envelope = CAST(replace(CAST(envelope AS TEXT), 'a', 'b') AS BLOB) WHERE n = 5",
    "a body under another id": "UPDATE body SET id = zeroblob(32) WHERE n = 5",
    "a document": "UPDATE document SET sum = sum + 1",
    "openings": "UPDATE opening SET openings = x'00'",
    "a note": "UPDATE note SET note = CAST(note || x'20' AS BLOB)",
    "a note of another size": "UPDATE note SET size = size - 1 WHERE space = 'certificate'",
    "a policy bundle": "UPDATE bundle SET data = CAST(data || x'20' AS BLOB)",
    "a small fact": "UPDATE meta SET value = value + 1",
    "a place": "UPDATE located SET idx = 100000 WHERE n = 3",
    "a first use": "UPDATE used SET idx = 100000",
    "a log that is no more": "UPDATE record SET log = 9 WHERE idx = 0",
    "a table more": "CREATE TABLE more (n INTEGER)",
    "an index less": "DROP INDEX record_at",
}


@pytest.mark.parametrize("what", TAMPERED)
async def test_whatever_is_not_as_it_was_written_is_found(written: Path, tmp_path: Path, what: str) -> None:
    copy_file(written, tmp_path / "node.db")
    await check_file(tmp_path / "node.db", still=False)
    _tamper(tmp_path / "node.db", TAMPERED[what])
    with pytest.raises(Alarm) as found:
        await check_file(tmp_path / "node.db", still=False)
    assert found.value.code == ("storage_rolled_back" if what == "records below a head" else "storage_corrupt")


async def test_a_file_from_which_openings_were_erased_is_sound_and_one_where_some_of_them_are_left_is_not(
    written: Path, tmp_path: Path
) -> None:
    path = tmp_path / "node.db"
    copy_file(written, path)
    store = await Store.open(path, owner="eu-1")
    await store.erase(["ab" * 32, "cd" * 32])
    await store.close()
    await check_file(path, still=False)
    copy_file(path, tmp_path / "copy")
    await check_file(tmp_path / "copy", still=True)
    with StoreReader(tmp_path / "copy") as reader:
        assert await reader.openings(["ab" * 32]) == {}
    with StoreReader(written) as reader:
        assert await reader.openings(["ab" * 32]) == {"ab" * 32: b"openings"}
    _tamper(path, "UPDATE opening SET openings = CAST('openings' AS BLOB)")  # with the checksum that they had
    with pytest.raises(Alarm, match="storage_corrupt"):
        await check_file(path, still=False)


async def test_a_file_of_another_version_is_refused_by_whoever_reads_it(written: Path, tmp_path: Path) -> None:
    copy_file(written, tmp_path / "node.db")
    with closing(sqlite3.connect(tmp_path / "node.db", isolation_level=None)) as file:
        file.execute("PRAGMA user_version = 4")
    with pytest.raises(Refused, match="config_invalid"):
        await check_file(tmp_path / "node.db", still=True)
    with pytest.raises(Refused, match="config_invalid"):
        StoreReader(tmp_path / "node.db")


@pytest.mark.parametrize("still", [True, False])
async def test_what_is_no_file_of_a_node_is_refused(tmp_path: Path, still: bool) -> None:
    with closing(sqlite3.connect(tmp_path / "other")) as file, file:
        file.execute("CREATE TABLE t (n INTEGER)")
    with pytest.raises(Refused, match="config_invalid"):
        await check_file(tmp_path / "other", still=still)
    (tmp_path / "garbage").write_bytes(b"garbage" * 5_000)
    with pytest.raises(Alarm, match="storage_corrupt"):
        await check_file(tmp_path / "garbage", still=still)
    with pytest.raises(MeshError, match="storage_failed"):
        await check_file(tmp_path / "nothing", still=still)
