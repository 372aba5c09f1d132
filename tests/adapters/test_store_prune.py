"""What a floor lets go is in no byte of the file; hashes, proofs and what other records name stay, and nothing above the floor goes."""

import random
import signal
import sqlite3
from pathlib import Path

import pytest

from mesh.adapters.store import Store
from mesh.adapters.storecheck import check_file
from mesh.adapters.storemend import BrokenFile
from mesh.core.log.merkle import leaf_hash, verify_inclusion
from mesh.core.log.record import DecisionMade, read_record
from mesh.errors import Alarm, Refused
from mesh.protocol.events import Tick
from mesh.protocol.serving import leaf_ids
from mesh.protocol.step import AppendHashes, Head, Locate, PutBody, PutOpenings, SetHead
from tests.adapters.storekit import NAME, PEER, append, child, filled, frontier_of, refused
from tests.roles.test_performer import Bench
from tests.support.factory import T0
from tests.support.unguarded import tampered

COUNT = 200


def _bytes(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.iterdir())


async def _decided(path: Path) -> tuple[Store, str, list[bytes], dict[str, bytes]]:
    """A node's file with 200 decisions and openings; its log's name, its records and the statements beside them."""
    bench = await Bench.at(path)
    for first in range(0, COUNT, 50):
        bench.ask(*range(first, first + 50))
        await bench.done()
    await bench.performer.take([Tick()])
    store, origin = bench.store, bench.performer.state.log.origin
    size = (await store.sizes())[origin]
    leaves = [leaf for first in range(0, size, 100) for leaf in await store.records(origin, first, 100)]
    intents = [intent for leaf in leaves for intent in leaf_ids(leaf)[1]]
    chance = random.Random(3)
    await store.commit([PutOpenings(intent, chance.randbytes(chance.choice((30, 300, 5_000)))) for intent in intents])
    bodies = await store.bodies(intents) | {f"opening {key}": data for key, data in (await store.openings(intents)).items()}
    assert len(bodies) == 2 * COUNT
    frontier = await store.frontier(origin)
    await store.commit([SetHead("log", origin, Head(size, frontier.root(), T0 // 1000 + 99))])
    return store, origin, leaves, bodies


async def _pruned(store: Store, origin: str, below: int) -> None:
    for first in range(0, below, 64):
        await store.prune(origin, below=below, first=first, end=min(first + 64, below))
    await store.cut()


def _own(leaf: bytes) -> bytes:
    """A part of a record that stands in no other."""
    at = leaf.index(b'"index":')
    return leaf[max(at - 40, 0) : at + 40]


def _about(leaves: list[bytes]) -> list[str]:
    return [record.intent for record in map(read_record, leaves) if isinstance(record, DecisionMade)]


async def test_no_byte_of_pruned_records_and_of_what_only_they_name_stays_in_the_file_or_its_wal(tmp_path: Path) -> None:
    store, origin, leaves, bodies = await _decided(tmp_path)
    below = len(leaves) - 20
    assert all(leaf in _bytes(tmp_path) for leaf in leaves[:5])
    await _pruned(store, origin, below)
    left, gone, kept = _bytes(tmp_path), _about(leaves[:below]), _about(leaves[below:])
    assert min(len(gone), len(kept)) > 10
    for leaf in leaves[:below]:
        assert _own(leaf) not in left
        assert leaf_hash(leaf) in left
    for intent in gone:
        for data in (bodies[intent], bodies[f"opening {intent}"]):
            for at in (0, len(data) // 2, len(data) - 24):
                part = data[at : at + 24]
                assert part not in left or any(part in bodies[other] for other in kept)
    assert await store.bodies(gone) == await store.openings(gone) == {}
    assert await store.bodies(kept) == {intent: bodies[intent] for intent in kept}
    assert await store.openings(kept) == {intent: bodies[f"opening {intent}"] for intent in kept}
    await store.close()


async def test_hashes_roots_proofs_and_places_are_as_before_also_after_reopening(tmp_path: Path) -> None:
    store, origin, leaves, _ = await _decided(tmp_path)
    size, below = len(leaves), len(leaves) - 20
    before = await store.frontier(origin)
    await _pruned(store, origin, below)
    for _ in range(2):
        assert await store.frontier(origin) == before
        assert await store.scrub(origin) == size
        assert await store.tile(origin, 0, 0, size) == tuple(map(leaf_hash, leaves))
        assert await store.pruned(origin, 0, size) == [leaf_hash(leaf) for leaf in leaves[:below]]
        assert await store.pruned(origin, below, 1) == []
        path = await store.inclusion_path(origin, 7, size)
        verify_inclusion(leaf_hash(leaves[7]), 7, size, before.root(), path)
        assert [place[1:] for place in await store.find(_about(leaves)[0], 1)] == [
            (origin, next(i for i, x in enumerate(leaves) if leaf_ids(x)[1]))
        ]
        assert (await store.floors())[origin] == (below, below)
        await store.close()
        store = await Store.open(tmp_path / NAME, owner="eu-1")
    await store.close()
    held = await check_file(tmp_path / NAME, still=False)
    assert (held.logs[0].size, held.logs[0].root) == (size, before.root().hex())


async def test_whoever_asks_for_a_pruned_record_is_told_that_it_was_pruned(tmp_path: Path) -> None:
    store, origin, leaves, _ = await _decided(tmp_path)
    await _pruned(store, origin, 64)
    await refused(store.records(origin, 63, 9), Refused, "record_pruned")
    assert await store.records(origin, 64, 9) == leaves[64:73]
    await store.verify(origin, 0, len(leaves))
    await store.close()


async def test_the_file_prunes_nothing_at_or_above_its_floor_and_the_floor_never_falls_whoever_writes(tmp_path: Path) -> None:
    store, origin, leaves, _ = await _decided(tmp_path)
    await refused(store.prune(origin, below=64, first=0, end=65), Alarm, "storage_rolled_back")
    assert await store.records(origin, 0, 9) == leaves[:9]
    assert await store.floors() == {}
    await store.prune(origin, below=64, first=0, end=64)
    await store.prune(origin, below=10, first=0, end=10)  # a smaller one changes nothing
    assert (await store.floors())[origin] == (64, 64)
    await store.close()
    connection = sqlite3.connect(tmp_path / NAME)
    for statement in (
        "UPDATE floor SET below = 63",
        "UPDATE floor SET done = 0",
        "DELETE FROM floor",
        "REPLACE INTO floor SELECT log, 1, 1, sum FROM floor",
        "UPDATE record SET data = zeroblob(length(data)) WHERE idx = 64",
        "UPDATE record SET data = x'' WHERE idx = 1",
        "UPDATE record SET leaf = zeroblob(32) WHERE idx = 1",
        "UPDATE body SET envelope = x'00'",
        "UPDATE body SET sum = 0",
        "INSERT INTO record (log, idx, leaf, data) SELECT log, max(idx) + 1, leaf, x'' FROM record",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(statement)
    connection.close()


async def test_what_another_record_names_stays_until_that_goes_too_and_comes_back_with_one_that_names_it_later(tmp_path: Path) -> None:
    store, origin, leaves, bodies = await _decided(tmp_path)
    at = next(index for index, leaf in enumerate(leaves) if leaf_ids(leaf)[1])
    intent = _about(leaves)[0]
    assert at < 64
    await store.commit([append(PEER, 0, 1), Locate(intent, PEER, 0)])
    await store.prune(origin, below=64, first=0, end=64)
    assert await store.bodies([intent]) == {intent: bodies[intent]}
    assert len(await store.openings([intent])) == 1
    second = _about(leaves)[1]
    assert await store.bodies([second]) == {}
    for _ in range(2):
        await store.commit([PutBody(second, "intent", bodies[second]), PutOpenings(second, b"again")])
        assert await store.bodies([second]) == {second: bodies[second]}
        assert await store.openings([second]) == {second: b"again"}
        await store.close()
        store = await Store.open(tmp_path / NAME, owner="eu-1")
    await store.close()


async def test_hashes_are_taken_below_a_floor_only_and_lead_on_to_whole_records(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    later = append(PEER, 2, 300)
    await refused(store.commit([AppendHashes(PEER, 2, later.hashes[:100], 101)]), Alarm, "storage_rolled_back")
    await store.commit([AppendHashes(PEER, 2, later.hashes[:100], 102), AppendHashes(PEER, 102, later.hashes[100:110], 150)])
    assert (await store.sizes())[PEER] == 112
    rest = append(PEER, 112, 190)
    await store.commit([rest])
    for _ in range(2):
        assert (await store.frontier(PEER)).root() == frontier_of(PEER, 302).root()
        assert await store.scrub(PEER) == 302
        assert await store.records(PEER, 0, 300) == list(append(PEER, 0, 2).leaves)
        assert await store.pruned(PEER, 2, 300) == list(later.hashes[:110])
        assert (await store.floors())[PEER] == (150, 0)  # the first two are held
        await store.close()
        store = await Store.open(tmp_path / NAME, owner="a")
    await store.commit([AppendHashes("dev/c/e1", 0, append("dev/c/e1", 0, 5).hashes, 5)])
    assert (await store.floors())["dev/c/e1"] == (5, 5)
    await store.close()


@pytest.mark.parametrize("what", ["zeros above the floor", "other bytes below it", "the floor itself", "a body that a kept record names"])
async def test_what_is_no_pruning_is_damage(tmp_path: Path, what: str) -> None:
    store, origin, leaves, _ = await _decided(tmp_path)
    await _pruned(store, origin, 64)
    kept = _about(leaves[64:])[0]
    await store.close()
    await check_file(tmp_path / NAME, still=False)
    tampered(
        tmp_path / NAME,
        {
            "zeros above the floor": "UPDATE record SET data = zeroblob(length(data)) WHERE idx = 64",
            "other bytes below it": "UPDATE record SET data = x'0001' WHERE idx = 3",
            "the floor itself": "UPDATE floor SET below = 70",
            "a body that a kept record names": f"UPDATE body SET envelope = zeroblob(length(envelope)) WHERE id = x'{kept}'",  # noqa: S608 -- our own text
        }[what],
    )
    with pytest.raises(Alarm) as found:
        await check_file(tmp_path / NAME, still=False)
    assert found.value.code == "storage_corrupt"
    with BrokenFile(tmp_path / NAME) as broken:
        lost = broken.lost_records(), broken.lost_statements()
        all_below = list(range(64))  # without a floor that is whole
        expected = {"zeros above the floor": [64], "the floor itself": all_below}  # other bytes below it need not be asked for
        assert [item.at for item in lost[0]] == expected.get(what, [])
        assert [item.id for item in lost[1]] == ([kept] if what.startswith("a body") else [])


async def test_a_file_that_was_pruned_has_nothing_to_mend(tmp_path: Path) -> None:
    store, origin, _, _ = await _decided(tmp_path)
    await _pruned(store, origin, 100)
    await store.close()
    with BrokenFile(tmp_path / NAME) as broken:
        assert (broken.lost_records(), broken.lost_statements()) == ([], [])


_KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
import mesh.adapters.store as module
from mesh.adapters.store import Store

async def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

async def main():
    store = await Store.open(Path(sys.argv[1]), owner="eu-1")
    origin = next(iter(await store.sizes()))
    await store.prune(origin, below=100, first=0, end=50)
    setattr(module, sys.argv[2], die)
    await store.prune(origin, below=100, first=50, end=100)
    await store.cut()

asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["overwrite", "emptied"])
async def test_killed_between_two_batches_it_is_whole_and_goes_on_from_there(tmp_path: Path, where: str) -> None:
    store, origin, leaves, _ = await _decided(tmp_path)
    await store.close()
    process = child(_KILLED, str(tmp_path / NAME), where)
    assert process.wait(60) == -signal.SIGKILL, process.communicate()[1]
    process.communicate()
    store = await Store.open(tmp_path / NAME, owner="eu-1")
    done = (await store.floors())[origin].done
    assert done == (50 if where == "overwrite" else 100)
    assert await store.scrub(origin) == len(leaves)
    if done < 100:
        await store.prune(origin, below=100, first=done, end=100)
    await store.cut()
    left = _bytes(tmp_path)
    assert not [leaf for leaf in leaves[:100] if _own(leaf) in left]
    await store.close()


async def test_hashes_that_come_in_two_answers_are_taken_in_one_commit(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    hashes = append("dev/c/e1", 0, 30).hashes
    await store.commit([AppendHashes("dev/c/e1", 0, hashes[:10], 30), AppendHashes("dev/c/e1", 10, hashes[10:], 30)])
    assert (await store.floors())["dev/c/e1"] == (30, 30)
    await store.close()


async def test_a_file_from_before_there_were_floors_is_of_another_version_and_not_taken_for_a_broken_one(tmp_path: Path) -> None:
    """Opened nevertheless, it would work until the root signs a floor, and then end every node at once."""
    store, _, _, _ = await _decided(tmp_path)
    await store.close()
    connection = sqlite3.connect(tmp_path / NAME, isolation_level=None)
    for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%floor%'").fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("DROP TABLE floor")
    connection.execute("PRAGMA user_version = 5")
    connection.close()
    await refused(Store.open(tmp_path / NAME, owner="eu-1"), Refused, "config_invalid")
    await refused(check_file(tmp_path / NAME, still=False), Refused, "config_invalid")
