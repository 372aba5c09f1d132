"""What a node committed is there, whole, in its order, and wrong bytes are never handed out."""

import asyncio
import errno
import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from mesh.adapters import store as store_module
from mesh.adapters.store import Conflict, Store
from mesh.core.log.merkle import EMPTY_ROOT, Frontier, leaf_hash, verify_consistency, verify_inclusion
from mesh.errors import Alarm, MeshError, Refused, Unavailable
from mesh.protocol.step import Append, Head, HeadUse, InsertOnce, Locate, Persist, PutBody, PutNote, PutOpenings, SetHead, SetMeta

LOG = "dev/a/e1"
PEER = "dev/b/e1"
NAME = "node.db"


def ident(number: int) -> str:
    return leaf_hash(number.to_bytes(8, "big")).hex()


def append(origin: str, first: int, count: int, *, size: int = 40) -> Append:
    leaves = tuple(f"{origin} {index} ".encode().ljust(size, b".") for index in range(first, first + count))
    return Append(origin, first, leaves, tuple(leaf_hash(leaf) for leaf in leaves))


def frontier_of(origin: str, size: int) -> Frontier:
    return Frontier.empty().extend(append(origin, 0, size).hashes)


def head(origin: str, size: int, time_s: int = 1, use: HeadUse = "log") -> SetHead:
    return SetHead(use, origin, Head(size, frontier_of(origin, size).root(), time_s))


def everything() -> list[Persist]:
    return [
        append(LOG, 0, 300),
        append(PEER, 0, 2),
        head(LOG, 300),
        head(PEER, 2, use="witness"),
        PutBody(ident(1), "intent", b"envelope one"),
        PutOpenings(ident(1), b"openings one"),
        InsertOnce("intent", ident(1), 299),
        Locate(ident(1), LOG, 299),
        Locate(ident(2), PEER, 1),
        PutNote("checkpoint", LOG, 300, b"checkpoint 300"),
        PutNote("certificate", LOG, 300, b"certificate 300"),
        SetMeta("incarnation", 7),
    ]


async def filled(path: Path) -> Store:
    store = await Store.open(path / NAME, owner="a")
    await store.commit(everything())
    return store


async def refused(call: Awaitable[object], kind: type[MeshError], code: str) -> MeshError:
    with pytest.raises(kind) as caught:
        await call
    assert caught.value.code == code
    return caught.value


def tamper(path: Path, *statements: str) -> None:
    """Change rows as no code of ours could."""
    connection = sqlite3.connect(path / NAME, isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        assert connection.execute(statement).rowcount != 0
    connection.close()


def child(script: str, *arguments: str) -> "subprocess.Popen[str]":
    """A process that can import this file."""
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{here.parent.parent}:{here}"},
    )


# ---------------------------------------------------------------------------------------------------------- what is kept


async def test_everything_that_was_committed_is_there_after_reopening(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    store = await Store.open(tmp_path / NAME, owner="a")
    assert await store.sizes() == {LOG: 300, PEER: 2}
    assert await store.heads() == {("log", LOG): head(LOG, 300).head, ("witness", PEER): head(PEER, 2).head}
    assert await store.frontier(LOG) == frontier_of(LOG, 300)
    assert await store.records(LOG, 298, 10) == list(append(LOG, 298, 2).leaves)
    assert await store.bodies([ident(1), ident(9)]) == {ident(1): b"envelope one"}
    assert await store.openings([ident(1), ident(2)]) == {ident(1): b"openings one"}
    assert await store.once("intent", [ident(1), ident(2)]) == {ident(1): 299}
    assert await store.once("outcome", [ident(1)]) == {}
    assert await store.find(ident(2), 9) == [(ident(2), PEER, 1)]
    assert await store.note("checkpoint", LOG) == (300, b"checkpoint 300")
    assert await store.note("certificate", LOG) == (300, b"certificate 300")
    assert await store.meta("incarnation") == 7
    assert await store.scrub(LOG) == 300
    await store.commit([append(LOG, 300, 1)])
    assert await store.frontier(LOG) == frontier_of(LOG, 301)
    await store.close()


async def test_what_was_never_stored_is_an_answer_not_an_error(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    assert (await store.sizes(), await store.heads()) == ({}, {})
    assert (await store.frontier(LOG)).root() == EMPTY_ROOT
    assert await store.records(LOG, 0, 5) == []
    assert (await store.bodies([]), await store.find("", 5)) == ({}, [])
    assert await store.note("certificate", LOG, latest=True) is None
    assert await store.meta("nothing") is None
    assert await store.scrub(LOG) == 0
    await store.commit([])
    await store.close()


async def test_the_file_says_whose_it_is_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(tmp_path / NAME) as connection:
        assert connection.execute("SELECT name, sqlite FROM owner").fetchall() == [("a", sqlite3.sqlite_version)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    await refused(Store.open(tmp_path / NAME, owner="b"), Refused, "config_invalid")
    await (await Store.open(tmp_path / NAME, owner="a")).close()


async def test_a_file_written_by_another_sqlite_says_so_from_then_on(tmp_path: Path) -> None:
    await (await filled(tmp_path)).close()
    tamper(tmp_path, "UPDATE owner SET sqlite = '3.37.0'")
    await (await Store.open(tmp_path / NAME, owner="a")).close()
    connection = sqlite3.connect(tmp_path / NAME)
    assert connection.execute("SELECT sqlite FROM owner").fetchone() == (sqlite3.sqlite_version,)
    connection.close()


async def test_commits_sync_in_full(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    session = store_module.Session(store._file._writer)
    assert await session.fetch("PRAGMA synchronous") == [(2,)]
    assert await session.fetch("PRAGMA foreign_keys") == [(1,)]
    await store.close()


async def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / NAME)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    await refused(Store.open(tmp_path / NAME, owner="a"), Refused, "config_invalid")
    (tmp_path / "text.db").write_bytes(b"this is no database" * 100)
    await refused(Store.open(tmp_path / "text.db", owner="a"), Alarm, "storage_corrupt")
    await refused(Store.open(tmp_path / "no" / NAME, owner="a"), Unavailable, "storage_failed")
    (tmp_path / "folder.db").mkdir()
    await refused(Store.open(tmp_path / "folder.db", owner="a"), Unavailable, "storage_failed")


# ------------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(head(LOG, 299, 2), id="smaller size"),
        pytest.param(SetHead("log", LOG, Head(300, bytes(32), 2)), id="other root at the same size"),
        pytest.param(head(LOG, 300, 0), id="earlier time"),
        pytest.param(append(LOG, 299, 2), id="record that is there"),
        pytest.param(append(LOG, 301, 1), id="gap"),
        pytest.param(append("dev/c/e1", 1, 1), id="gap in a new log"),
    ],
)
async def test_what_would_move_back_is_an_alarm_and_leaves_nothing(tmp_path: Path, wrong: Persist) -> None:
    store = await filled(tmp_path)
    await refused(store.commit([SetMeta("incarnation", 8), append(PEER, 2, 1), wrong]), Alarm, "storage_rolled_back")
    assert await store.meta("incarnation") == 7
    assert await store.sizes() == {LOG: 300, PEER: 2}
    assert (await store.heads())["log", LOG] == head(LOG, 300).head
    await store.commit([head(LOG, 300, 1), append(LOG, 300, 1), head(LOG, 301, 1), append(PEER, 2, 1)])
    assert await store.sizes() == {LOG: 301, PEER: 3}
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM log",
        "DELETE FROM record",
        "DELETE FROM branch",
        "DELETE FROM body",
        "DELETE FROM located",
        "DELETE FROM named",
        "DELETE FROM head",
        "UPDATE log SET origin = 'x'",
        "UPDATE record SET data = x'00'",
        "UPDATE branch SET hash = zeroblob(32)",
        "UPDATE body SET envelope = x'00'",
        "UPDATE located SET idx = 5",
        "UPDATE named SET at = 5",
        "UPDATE head SET size = size - 1",
        "UPDATE head SET root = zeroblob(32)",
        "UPDATE head SET time_s = 0",
        "UPDATE head SET use = 'attest'",
        "REPLACE INTO head SELECT use, log, size - 1, root, time_s, sum FROM head",
        "REPLACE INTO record SELECT n, log, idx, leaf, x'00' FROM record WHERE idx = 0",
        "REPLACE INTO record SELECT n, log, idx + 1, leaf, data FROM record WHERE idx = 299",
        "INSERT INTO record SELECT 9999, log, idx + 2, leaf, data FROM record WHERE idx = 299",
    ],
)
async def test_the_file_itself_refuses_to_forget_whoever_writes(tmp_path: Path, statement: str) -> None:
    await (await filled(tmp_path)).close()
    connection = sqlite3.connect(tmp_path / NAME)
    with pytest.raises(sqlite3.IntegrityError) as caught:
        connection.execute(statement)
    assert caught.value.sqlite_errorcode == sqlite3.SQLITE_CONSTRAINT_TRIGGER
    connection.close()


@pytest.mark.parametrize(
    "again", [[InsertOnce("intent", ident(1), 5)], [InsertOnce("intent", ident(3), 5), InsertOnce("intent", ident(3), 6)]]
)
async def test_a_key_that_is_not_new_is_named_and_leaves_nothing(tmp_path: Path, again: list[InsertOnce]) -> None:
    store = await filled(tmp_path)
    step: list[Persist] = [
        append(LOG, 300, 1),
        InsertOnce("intent", ident(4), 300),
        InsertOnce("outcome", ident(1), 300),
        *again,
        SetMeta("x", 1),
    ]
    error = await refused(store.commit(step), Conflict, "intent_conflict")
    assert isinstance(error, Conflict)
    assert (error.space, error.key) == ("intent", again[-1].key)
    assert await store.once("intent", [ident(number) for number in range(9)]) == {ident(1): 299}
    assert (await store.sizes())[LOG] == 300
    assert await store.meta("x") is None
    await store.commit(step[:3])
    assert await store.once("outcome", [ident(1)]) == {ident(1): 300}
    await store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        PutBody(ident(5).upper(), "intent", b""),
        PutBody(ident(5)[:-2], "intent", b""),
        PutOpenings("z" * 64, b""),
        InsertOnce("intent", " " + ident(5)[1:], 1),
        Locate("", LOG, 1),
        Append(LOG, 300, (b"one", b"two"), (leaf_hash(b"one"),)),
    ],
)
async def test_what_is_no_id_is_refused_and_leaves_nothing(tmp_path: Path, wrong: Persist) -> None:
    store = await filled(tmp_path)
    await refused(store.commit([SetMeta("x", 1), wrong]), Refused, "malformed")
    assert await store.meta("x") is None
    await store.commit([SetMeta("x", 2)])
    await store.close()


async def test_a_record_with_the_hash_of_another_is_never_stored(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await refused(store.commit([Append(LOG, 300, (b"one",), (leaf_hash(b"two"),))]), Alarm, "storage_corrupt")
    assert (await store.sizes())[LOG] == 300
    await store.commit([append(LOG, 300, 1)])
    await store.close()


async def test_a_body_and_a_place_can_come_again(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.commit([PutBody(ident(1), "intent", b"other signatures"), PutOpenings(ident(1), b"other"), Locate(ident(1), LOG, 299)])
    await store.commit([PutBody(ident(5), "intent", b"five"), PutBody(ident(5), "intent", b"five"), *[Locate(ident(5), LOG, 7)] * 2])
    assert await store.bodies([ident(1), ident(5)]) == {ident(1): b"envelope one", ident(5): b"five"}
    assert await store.openings([ident(1)]) == {ident(1): b"openings one"}
    assert await store.find(ident(1), 9) == [(ident(1), LOG, 299)]
    assert await store.find(ident(5), 9) == [(ident(5), LOG, 7)]
    await store.close()


async def test_more_ids_than_fit_one_query_are_answered(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([PutBody(ident(number), "intent", str(number).encode()) for number in range(1_300)])
    assert await store.bodies([ident(number) for number in range(1_400)]) == {
        ident(number): str(number).encode() for number in range(1_300)
    }
    await refused(store.bodies(["x"]), Refused, "malformed")
    await store.close()


# ---------------------------------------------------------------------------------------------------- notes and searching


async def test_every_certificate_and_the_newest_checkpoint_are_kept(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    for size in (10, 20, 30):
        await store.commit([PutNote(space, LOG, size, f"{space} {size}".encode()) for space in ("checkpoint", "certificate")])
    await store.commit([PutNote("checkpoint", LOG, 15, b"late"), PutNote("checkpoint", PEER, 3, b"peer")])
    assert await store.note("certificate", LOG) == (10, b"certificate 10")
    assert await store.note("certificate", LOG, at_least=10) == (10, b"certificate 10")
    assert await store.note("certificate", LOG, at_least=11) == (20, b"certificate 20")
    assert await store.note("certificate", LOG, at_least=31) is None
    assert await store.note("certificate", LOG, latest=True) == (30, b"certificate 30")
    assert await store.note("checkpoint", LOG) == (30, b"checkpoint 30")
    assert await store.note("checkpoint", PEER) == (3, b"peer")
    await store.commit([PutNote("checkpoint", LOG, 30, b"more signatures")])
    assert await store.note("checkpoint", LOG, latest=True) == (30, b"more signatures")
    await store.close()


async def test_records_are_found_by_any_prefix_newest_first(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    places = [(ident(number % 300), PEER if number % 3 else LOG, number) for number in range(600)]
    for start in range(0, 600, 50):
        await store.commit([Locate(*place) for place in places[start : start + 50]])
    for digits in (0, 1, 2, 3, 4, 63, 64):
        prefix = ident(7)[:digits]
        expected = [place for place in reversed(places) if place[0].startswith(prefix)]
        assert await store.find(prefix, 1_000) == expected
        assert await store.find(prefix, 1) == expected[:1]
    for wrong in ("g", "A", " ", "0" * 65):
        await refused(store.find(wrong, 1), Refused, "malformed")
    await store.close()


# --------------------------------------------------------------------------------------------------- trees from few hashes


async def test_proofs_of_every_small_size_lead_to_its_root(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    whole = append(LOG, 0, 600)
    await store.commit([append(LOG, 0, 255), append(LOG, 255, 2), append(LOG, 257, 343)])
    roots, frontier, dice = [EMPTY_ROOT], Frontier.empty(), random.Random(1)
    for leaf in whole.hashes:
        frontier = frontier.append(leaf)
        roots.append(frontier.root())
    for size in range(1, 601):
        for index in {0, size - 1, dice.randrange(size)}:
            verify_inclusion(whole.hashes[index], index, size, roots[size], await store.inclusion_path(LOG, index, size))
        old = dice.randint(1, size)
        verify_consistency(old, size, roots[old], roots[size], await store.consistency_path(LOG, old, size))
    for call in (store.inclusion_path(LOG, 0, 601), store.inclusion_path(LOG, 5, 5), store.inclusion_path(PEER, 0, 1)):
        await refused(call, Refused, "not_found")
    for call in (store.consistency_path(LOG, 1, 601), store.consistency_path(LOG, 0, 5), store.consistency_path(LOG, 6, 5)):
        await refused(call, Refused, "not_found")
    await store.close()


async def test_proofs_across_all_stored_levels_lead_to_the_root(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    size = 2**16 + 2**8 * 3 + 5
    whole = append(LOG, 0, size)
    for first in range(0, size, 8_192):
        await store.commit([append(LOG, first, min(8_192, size - first))])
    with sqlite3.connect(tmp_path / NAME) as connection:
        assert connection.execute("SELECT level, count(*) FROM branch GROUP BY level").fetchall() == [(8, 2**8 + 3), (16, 1)]
    connection.close()
    dice = random.Random(2)
    for _ in range(60):
        new = dice.randint(2, size)
        old, index = dice.randint(1, new), dice.randrange(new)
        root = Frontier.empty().extend(whole.hashes[:new]).root()
        verify_inclusion(whole.hashes[index], index, new, root, await store.inclusion_path(LOG, index, new))
        old_root = Frontier.empty().extend(whole.hashes[:old]).root()
        verify_consistency(old, new, old_root, root, await store.consistency_path(LOG, old, new))
    await store.commit([SetHead("log", LOG, Head(size, Frontier.empty().extend(whole.hashes).root(), 1))])
    assert await store.frontier(LOG) == Frontier.empty().extend(whole.hashes)
    assert await store.scrub(LOG) == size
    await store.close()


async def test_the_frontier_is_rebuilt_at_a_thousand_sizes_wherever_the_head_stands(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    dice, frontier = random.Random(3), Frontier.empty()
    for turn in range(1_000):
        step = append(LOG, frontier.size, dice.randint(1, 12))
        frontier = frontier.extend(step.hashes)
        signed = [SetHead(dice.choice(["log", "attest"]), LOG, Head(frontier.size, frontier.root(), turn))] if dice.random() < 0.1 else []
        await store.commit([step, *signed])
        assert await store.frontier(LOG) == frontier
        if turn % 200 == 0:  # and what the writer goes on from after a restart is the same
            await store.close()
            store = await Store.open(tmp_path / NAME, owner="a")
    assert await store.scrub(LOG) == frontier.size
    await store.close()


async def test_the_frontier_of_any_earlier_size_is_rebuilt_and_leads_on_to_what_was_signed(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([append(LOG, 0, 1_200), head(LOG, 700), head(LOG, 900, use="attest")])
    for size in (0, 1, 255, 256, 511, 512, 699, 700, 701, 768, 899, 900, 901, 1_024, 1_200):
        assert await store.frontier_at(LOG, size) == frontier_of(LOG, size)
    for size in (-1, 1_201):
        await refused(store.frontier_at(LOG, size), Refused, "not_found")
    await store.close()
    tamper(tmp_path, "UPDATE branch SET hash = zeroblob(32) WHERE number = 0")
    store = await Store.open(tmp_path / NAME, owner="a")
    for size in (300, 700, 800, 1_200):
        await refused(store.frontier_at(LOG, size), Alarm, "storage_corrupt")
    await store.close()


async def test_a_witness_may_be_ahead_of_the_records_it_holds_but_a_signer_not(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([append(PEER, 0, 5), head(PEER, 9, use="witness")])
    assert await store.frontier(PEER) == frontier_of(PEER, 5)
    assert await store.scrub(PEER) == 5
    await store.commit([head(PEER, 8, use="attest")])
    await refused(store.scrub(PEER), Alarm, "storage_rolled_back")
    await store.close()


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


_READS: dict[str, Callable[[Store], Awaitable[object]]] = {
    "records": lambda store: store.records(LOG, 290, 10),
    "frontier": lambda store: store.frontier(LOG),
    "scrub": lambda store: store.scrub(LOG),
    "inclusion": lambda store: store.inclusion_path(LOG, 3, 300),
    "heads": lambda store: store.heads(),
    "bodies": lambda store: store.bodies([ident(1)]),
    "openings": lambda store: store.openings([ident(1)]),
    "note": lambda store: store.note("certificate", LOG),
    "meta": lambda store: store.meta("incarnation"),
}


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
        await refused(_READS[name](store), Alarm, "storage_corrupt")
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
    monkeypatch.setattr(store_module, "_PRAGMAS", (*store_module._PRAGMAS, "busy_timeout = 50"))
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
    for read in _READS.values():
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
    await refused(store.commit([*step, InsertOnce("intent", ident(8), 300)]), Unavailable, "storage_failed")
    await store.close()
    store = await Store.open(tmp_path / NAME, owner="a")
    assert (await store.sizes())[LOG] == 300
    assert (await store.meta("x"), await store.bodies([ident(8)]), await store.once("intent", [ident(8)])) == (None, {}, {})
    await store.commit(step)
    await store.close()


FULL = """
import asyncio, resource, sys
from pathlib import Path
from test_store import *
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
from test_store import *
async def main(path):
    store = await Store.open(path, owner="a")
    size = (await store.sizes()).get(LOG, 0)
    while True:
        step = [append(LOG, size, 3), head(LOG, size + 3), *(InsertOnce("intent", ident(size + more), size + more) for more in range(3))]
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
        assert len(await store.once("intent", ids)) == len(await store.bodies(ids)) == size
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
from test_store import *
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
from test_store import *
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
