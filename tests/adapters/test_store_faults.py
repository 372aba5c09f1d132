"""Wrong bytes are never handed out, and after a failure everyone is told the truth or nothing."""

import asyncio
import errno
import fcntl
import os
import random
import signal
import sqlite3
from pathlib import Path

import pytest

from mesh.adapters import sqlite as sqlite_module
from mesh.adapters import store as store_module
from mesh.adapters.store import Store
from mesh.errors import Alarm, MeshError, Refused, Unavailable
from mesh.protocol.step import InsertOnce, Locate, Persist, PutBody, SetMeta
from tests.adapters.storekit import LOG, NAME, PEER, READS, append, child, filled, frontier_of, ident, refused, tamper

# ------------------------------------------------------------------------------------------------------------- wrong bytes


async def test_what_no_journal_protects_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await refused(Store.open(Path(":memory:"), owner="a"), Unavailable, "storage_failed")


async def test_a_broken_list_of_logs_lets_go_of_the_file(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    tamper(tmp_path, "ALTER TABLE log RENAME COLUMN origin TO elsewhere")
    await refused(Store.open(tmp_path / NAME, owner="a"), Unavailable, "storage_failed")
    tamper(tmp_path, "ALTER TABLE log RENAME COLUMN elsewhere TO origin")
    await (await Store.open(tmp_path / NAME, owner="a")).close()


async def test_one_flipped_bit_of_a_record_is_found_by_whoever_reads_it(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.commit([append(LOG, 300, 3)])
    await store.close()
    data = bytearray((tmp_path / NAME).read_bytes())
    place = data.find(append(LOG, 301, 1).leaves[0])
    assert place > 0
    data[place + 20] ^= 4
    (tmp_path / NAME).write_bytes(data)
    store = await Store.open(tmp_path / NAME, owner="a")
    assert len(await store.records(LOG, 0, 301)) == 301
    await refused(store.records(LOG, 300, 3), Alarm, "storage_corrupt")
    await refused(store.frontier(LOG), Alarm, "storage_corrupt")
    await refused(store.commit([append(LOG, 303, 1)]), Alarm, "storage_corrupt")
    await refused(store.scrub(LOG), Alarm, "storage_corrupt")
    assert await store.scrub(PEER) == 2
    await store.close()


@pytest.mark.parametrize(
    ("statement", "reads"),
    [
        ("UPDATE record SET data = x'00' WHERE idx = 295", ("records", "scrub")),
        ("UPDATE record SET leaf = zeroblob(32) WHERE idx = 295", ("records", "frontier", "scrub")),
        ("DELETE FROM record WHERE idx = 295", ("records", "frontier", "scrub")),
        ("DELETE FROM record WHERE idx = 295", ("scrub",)),
        ("DELETE FROM record WHERE idx = 4", ("inclusion", "scrub")),
        ("UPDATE branch SET hash = zeroblob(32)", ("frontier", "scrub")),
        ("DELETE FROM branch", ("frontier", "scrub")),
        ("UPDATE head SET root = zeroblob(32)", ("heads", "frontier", "scrub")),
        ("UPDATE head SET size = 299, sum = sum + 1", ("heads",)),
        ("UPDATE head SET time_s = 5", ("heads",)),
        ("UPDATE body SET envelope = x'00'", ("bodies",)),
        ("UPDATE document SET envelope = x'00'", ("documents",)),
        ("UPDATE law SET envelope = x'00'", ("law", "all law")),
        ("UPDATE law SET sum = sum + 1", ("law", "all law")),
        ("UPDATE opening SET openings = x'00'", ("openings",)),
        ("UPDATE note SET note = x'00'", ("note",)),
        ("UPDATE meta SET value = 6", ("meta",)),
    ],
)
async def test_wrong_rows_are_alarms_for_every_read_that_needs_them(tmp_path: Path, statement: str, reads: tuple[str, ...]) -> None:
    await (await filled(tmp_path)).close()
    tamper(tmp_path, statement)
    store = await Store.open(tmp_path / NAME, owner="a")
    for name in reads:
        await refused(READS[name](store), Alarm, "storage_corrupt")
    await store.close()


async def test_records_that_were_cut_off_below_a_signed_size_are_missed(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    tamper(tmp_path, "DELETE FROM record WHERE idx > 280")
    store = await Store.open(tmp_path / NAME, owner="a")
    await refused(store.scrub(LOG), Alarm, "storage_rolled_back")
    await store.close()


async def test_a_page_that_sqlite_cannot_read_ends_the_store(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    data = bytearray((tmp_path / NAME).read_bytes())
    page = data.find(append(LOG, 100, 1).leaves[0]) & -4096
    data[page : page + 8] = b"\xff" * 8
    (tmp_path / NAME).write_bytes(data)
    store = await Store.open(tmp_path / NAME, owner="a")
    assert await store.meta("incarnation") == 7
    await refused(store.records(LOG, 0, 300), Alarm, "storage_corrupt")
    await refused(store.meta("incarnation"), Unavailable, "storage_failed")
    await store.close()


async def test_a_file_that_was_cut_is_not_opened(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    os.truncate(tmp_path / NAME, (tmp_path / NAME).stat().st_size // 2)
    await refused(Store.open(tmp_path / NAME, owner="a"), Alarm, "storage_corrupt")


# ------------------------------------------------------------------------------------------------ one process, one failure

OTHER = """
import asyncio, sys
from pathlib import Path
from mesh.adapters.store import Store
from mesh.errors import MeshError
async def main():
    try:
        await (await Store.open(Path(sys.argv[1]), owner="a")).close()
    except MeshError as error:
        print(error.code, "another process" in error.detail)
    else:
        print("opened")
asyncio.run(main())
"""


async def test_a_second_process_cannot_open_the_file_until_the_first_lets_go(tmp_path: Path) -> None:
    def other() -> str:
        return child(OTHER, str(tmp_path / NAME)).communicate(timeout=60)[0].strip()

    store = await filled(tmp_path)
    await refused(Store.open(tmp_path / NAME, owner="a"), Unavailable, "storage_failed")
    assert await asyncio.to_thread(other) == "storage_failed True"
    await store.close()
    await store.close()
    assert await asyncio.to_thread(other) == "opened"


async def test_a_refused_owner_does_not_keep_the_file_locked(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    await refused(Store.open(tmp_path / NAME, owner="b"), Refused, "config_invalid")
    await (await Store.open(tmp_path / NAME, owner="a")).close()


async def test_a_strangers_write_lock_delays_but_does_not_end_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_module, "_PRAGMAS", (*sqlite_module._PRAGMAS, "busy_timeout = 50"))
    store = await filled(tmp_path)
    connection = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    await refused(store.commit([SetMeta("x", 1)]), Unavailable, "storage_failed")
    assert await store.meta("incarnation") == 7
    connection.execute("ROLLBACK")
    connection.close()
    await store.commit([SetMeta("x", 2)])
    assert await store.meta("x") == 2
    await store.close()


async def test_a_file_whose_journal_cannot_be_made_durable_whole_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else reads an old state of it; in the same way a disk that takes nothing stands between."""
    monkeypatch.setattr(sqlite_module, "_PRAGMAS", (*sqlite_module._PRAGMAS, "busy_timeout = 50"))
    store = await filled(tmp_path)
    reader = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM record").fetchall()
    await store.commit([SetMeta("x", 1)])
    await store.close()
    await refused(Store.open(tmp_path / NAME, owner="a"), Unavailable, "storage_failed")
    reader.execute("ROLLBACK")
    reader.close()
    store = await Store.open(tmp_path / NAME, owner="a")
    assert await store.meta("x") == 1
    assert (tmp_path / f"{NAME}-wal").stat().st_size == 0
    await store.close()


async def test_commits_are_taken_in_the_order_of_the_calls(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await asyncio.gather(*(store.commit([append(LOG, number, 1), SetMeta("last", number)]) for number in range(50)))
    assert await store.meta("last") == 49
    await store.close()


async def test_a_cancelled_caller_does_not_cancel_its_commit(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    for number in range(50):
        task = asyncio.create_task(store.commit([append(LOG, number, 1)]))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        task.cancel()
        if number % 7 == 0:  # cancelled before it was ever called
            await asyncio.gather(task, return_exceptions=True)
            await store.commit([append(LOG, number, 1)])
        else:
            with pytest.raises(asyncio.CancelledError):
                await task
    assert (await store.sizes(), await store.frontier(LOG)) == ({LOG: 50}, frontier_of(LOG, 50))
    await store.close()


async def test_closing_under_load_answers_everyone_truthfully(tmp_path: Path) -> None:
    for turns in (0, 1, 5, 20):
        store = await Store.open(tmp_path / NAME, owner="a")
        size = (await store.sizes()).get(LOG, 0)
        commits = [asyncio.create_task(store.commit([append(LOG, size + number, 1)])) for number in range(40)]
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.gather(store.close(), store.close())
        answers = await asyncio.gather(*commits, return_exceptions=True)
        done = answers.count(None)
        assert all(isinstance(answer, Unavailable) and answer.code == "storage_failed" for answer in answers[done:])
        await refused(store.commit([]), Unavailable, "storage_failed")
        await refused(store.sizes(), Unavailable, "storage_failed")
        store = await Store.open(tmp_path / NAME, owner="a")
        assert (await store.sizes()).get(LOG, 0) == size + done
        await store.close()


async def test_after_one_error_nothing_is_answered_until_the_file_is_opened_again(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store._file._writer.execute("DROP TABLE meta")
    answers = await asyncio.gather(*(store.commit([SetMeta("x", number)]) for number in range(10)), return_exceptions=True)
    assert [answer.code for answer in answers if isinstance(answer, Unavailable)] == ["storage_failed"] * 10
    await refused(store.commit([append(LOG, 300, 1)]), Unavailable, "storage_failed")
    for read in READS.values():
        await refused(read(store), Unavailable, "storage_failed")
    await store.close()
    store = await Store.open(tmp_path / NAME, owner="a")
    assert await store.scrub(LOG) == 300
    await store.close()


async def test_a_connection_lost_inside_a_transaction_ends_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await filled(tmp_path)

    async def lose(session: store_module.Session, *_: object) -> None:
        await session._connection._execute(session._connection._conn.close)  # type: ignore[no-untyped-call]

    with monkeypatch.context() as patch:
        patch.setattr(store_module.Session, "many", lose)
        await refused(store.commit([append(LOG, 300, 1)]), Unavailable, "storage_failed")
    await refused(store.sizes(), Unavailable, "storage_failed")
    await store.close()
    store = await Store.open(tmp_path / NAME, owner="a")
    assert (await store.sizes())[LOG] == 300
    await store.close()


async def test_a_file_system_without_locks_is_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    await refused(Store.open(tmp_path / NAME, owner="a"), Unavailable, "storage_failed")


async def test_when_sqlite_itself_ends_the_transaction_nothing_behind_it_is_kept(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("CREATE TRIGGER ends BEFORE INSERT ON body BEGIN SELECT RAISE(ROLLBACK, 'as for a full disk'); END")
    connection.close()
    store = await Store.open(tmp_path / NAME, owner="a")
    with pytest.raises(MeshError):
        await store.commit([append(LOG, 300, 1), PutBody(ident(8), "intent", b"x"), Locate(ident(8), LOG, 300), SetMeta("x", 1)])
    assert (await store.sizes())[LOG] == 300
    assert (await store.meta("x"), await store.find(ident(8), 1)) == (None, [])
    await store.commit([SetMeta("x", 2)])
    await store.close()


@pytest.mark.parametrize("pages", range(12))
async def test_a_disk_that_fills_up_anywhere_inside_a_step_keeps_nothing_of_it(tmp_path: Path, pages: int) -> None:
    store = await filled(tmp_path)
    session = store_module.Session(store._file._writer)
    ((used,),) = await session.fetch("PRAGMA page_count")
    await session.fetch(f"PRAGMA max_page_count = {used + pages}")
    step: list[Persist] = [append(LOG, 300, 9, size=3_000), PutBody(ident(8), "intent", bytes(30_000)), SetMeta("x", 1)]
    await refused(store.commit([*step, InsertOnce("intent", ident(8), 7, 300)]), Unavailable, "storage_failed")
    await store.close()
    store = await Store.open(tmp_path / NAME, owner="a")
    assert (await store.sizes())[LOG] == 300
    assert (await store.meta("x"), await store.bodies([ident(8)]), await store.once("intent", {ident(8): 7})) == (None, {}, {})
    await store.commit(step)
    await store.close()


FULL = """
import asyncio, resource, sys
from pathlib import Path
from mesh.adapters.store import Store
from mesh.errors import MeshError, Unavailable
from mesh.protocol.step import InsertOnce, PutBody, SetMeta
from tests.adapters.storekit import LOG, append, head, ident, refused
async def main(path):
    store = await Store.open(path, owner="a")
    size = 0
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        for first in range(0, 100_000, 50):
            await store.commit([append(LOG, first, 50, size=2_000)])
            size = first + 50
    except MeshError as error:
        assert error.code == "storage_failed", error
    assert 0 < size < 90_000
    for call in (store.sizes(), store.meta("x"), store.commit([SetMeta("x", 1)])):
        await refused(call, Unavailable, "storage_failed")
    await store.close()
    store = await Store.open(path, owner="a")
    assert size <= (await store.sizes())[LOG] <= size + 50  # the failed one may be there, wholly; nothing acknowledged is missing
    assert (await store.records(LOG, size - 1, 1)) == list(append(LOG, size - 1, 1, size=2_000).leaves)
    await store.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    store = await Store.open(path, owner="a")
    held = (await store.sizes())[LOG]
    await store.commit([append(LOG, held, 50, size=2_000)])
    assert await store.scrub(LOG) == held + 50
    await store.close()
    print("done")
asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_full_disk_fails_closed_serves_reads_when_reopened_and_recovers_without_repair(tmp_path: Path) -> None:
    out, err = child(FULL, str(tmp_path / NAME)).communicate(timeout=100)
    assert (out.strip(), err) == ("done", "")


LOOP = """
import asyncio, sys
from pathlib import Path
from mesh.adapters.store import Store
from mesh.errors import MeshError, Unavailable
from mesh.protocol.step import InsertOnce, PutBody, SetMeta
from tests.adapters.storekit import LOG, append, head, ident, refused
async def main(path):
    store = await Store.open(path, owner="a")
    size = (await store.sizes()).get(LOG, 0)
    while True:
        step = [append(LOG, size, 3), head(LOG, size + 3), *(InsertOnce("intent", ident(size + more), 7, size + more) for more in range(3))]
        await store.commit([*step, *(PutBody(ident(size + more), "intent", b"body") for more in range(3))])
        size += 3
        print(size, flush=True)
asyncio.run(main(Path(sys.argv[1])))
"""


def test_kill_9_loses_nothing_that_was_acknowledged_and_tears_nothing(tmp_path: Path) -> None:
    async def check(acknowledged: int) -> None:
        store = await Store.open(tmp_path / NAME, owner="a")
        size = (await store.sizes()).get(LOG, 0)
        assert size >= acknowledged
        assert size % 3 == 0
        assert await store.scrub(LOG) == size
        ids = [ident(number) for number in range(size + 3)]
        assert len(await store.once("intent", dict.fromkeys(ids, 7))) == len(await store.bodies(ids)) == size
        if size:
            assert (await store.heads())["log", LOG].size == size
        await store.close()

    dice = random.Random(4)
    for _ in range(4):
        with child(LOOP, str(tmp_path / NAME)) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            lines = [process.stdout.readline() for _ in range(dice.randint(5, 60))]
            os.kill(process.pid, signal.SIGKILL)
            lines += process.stdout.readlines()
        acknowledged = max((int(line) for line in lines if line.endswith("\n")), default=0)
        assert acknowledged > 0
        asyncio.run(check(acknowledged))


ABANDONED = """
import asyncio, sys
from pathlib import Path
from mesh.adapters.store import Store
from mesh.errors import MeshError, Unavailable
from mesh.protocol.step import InsertOnce, PutBody, SetMeta
from tests.adapters.storekit import LOG, append, head, ident, refused
async def main(path):
    store = await Store.open(path, owner="a")
    tasks = [asyncio.create_task(store.commit([append(LOG, number, 1)])) for number in range(20)]
    await tasks[0]
    return store, tasks
store, tasks = asyncio.run(main(Path(sys.argv[1])))
print(all(task.done() for task in tasks))
"""
FAILED = """
import asyncio, sys
from pathlib import Path
from mesh.adapters.store import Store
from mesh.errors import MeshError, Unavailable
from mesh.protocol.step import InsertOnce, PutBody, SetMeta
from tests.adapters.storekit import LOG, append, head, ident, refused
async def main(path):
    store = await Store.open(path, owner="a")
    await store._file._writer.execute("DROP TABLE meta")
    await store.commit([SetMeta("x", 1)])
try:
    asyncio.run(main(Path(sys.argv[1])))
except Unavailable as error:
    print(error.code == "storage_failed")
"""


@pytest.mark.parametrize("script", [ABANDONED, FAILED])
def test_a_loop_that_ends_without_closing_leaves_no_thread_and_no_waiter_behind(tmp_path: Path, script: str) -> None:
    out, err = child(script, str(tmp_path / NAME)).communicate(timeout=30)
    assert (out.strip(), err) == ("True", "")
