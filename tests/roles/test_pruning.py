"""A node prunes what is below a floor, final and old, says so in its log once, and tells whoever asks that it was pruned."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from mesh.adapters.clock import Clock, Reading
from mesh.adapters.httpserver import Request
from mesh.adapters.store import Store
from mesh.core.bytes import envelope
from mesh.core.log.checkpoint import Checkpoint, log_line
from mesh.core.log.merkle import leaf_hash, verify_consistency
from mesh.core.log.note import Note
from mesh.core.log.record import GovernanceChanged, read_record
from mesh.core.messages import Leaves, LineageBatch, Offer, OutcomeAnswer, Prove, Pull, pack, unpack
from mesh.core.run.authorization import Receipt
from mesh.errors import Refused
from mesh.limits import PRUNE_AGE_MS_MIN
from mesh.protocol.events import OfferArrived, OutcomesArrived, Tick
from mesh.protocol.gossip import RecordsPruned
from mesh.protocol.step import PutNote
from mesh.roles.answers import looked_up
from mesh.roles.loading import load_state
from mesh.roles.pruning import prune_for_ever
from mesh.roles.tiles import Tiles
from tests.core.kit import refuses
from tests.roles.test_erasing import _within
from tests.roles.test_performer import LAB, Bench
from tests.support.factory import T0
from tests.support.retains import retain

BELOW = 150


async def _bench(path: Path) -> Bench:
    """A governor that has decided 200 intents."""
    bench = await Bench.at(path)
    for first in range(0, 200, 50):
        bench.ask(*range(first, first + 50))
        await bench.done()
    await bench.performer.take([Tick()])
    return bench


async def _final(bench: Bench, size: int, *, root: bytes | None = None) -> None:
    """Hold a certificate of the own log over so many records, as believed before it was stored."""
    origin = bench.performer.state.log.origin
    root = root or (await bench.store.frontier_at(origin, size)).root()
    note = Note(Checkpoint(origin, size, root).to_text(), (log_line(origin, "ab" * 32, bytes(64)),)).encode()
    await bench.store.commit([PutNote("certificate", origin, size, note)])


async def _floor(bench: Bench, below: int) -> str:
    """Offer the node a floor of its own log; the statement's id."""
    statement = retain(LAB, {bench.performer.state.log.origin: below})
    await bench.performer.take([OfferArrived(9, pack(Offer(statements=[msgspec.Raw(statement.envelope)]))), Tick()])
    assert bench.performer.state.governance.floors[bench.performer.state.log.origin].id == statement.id
    return statement.id


def _later(bench: Bench, by_ms: int = PRUNE_AGE_MS_MIN) -> None:
    bench.performer.clock = Clock(source=lambda: Reading(T0 + 1_000 + by_ms, 0))


@asynccontextmanager
async def _pruning(bench: Bench) -> AsyncIterator[list[RecordsPruned]]:
    told = list[RecordsPruned]()
    work = asyncio.create_task(prune_for_ever(bench.performer, told.append))
    yield told
    work.cancel()


async def _said(bench: Bench) -> list[str]:
    origin = bench.performer.state.log.origin
    first, found = BELOW, list[str]()
    while leaves := await bench.store.records(origin, first, 128):
        first += len(leaves)
        found += [item.about for item in map(read_record, leaves) if isinstance(item, GovernanceChanged) and item.change == "pruned"]
    return found


async def test_what_is_below_the_floor_final_and_old_goes_and_the_log_says_up_to_where_once(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    origin = bench.performer.state.log.origin
    leaves = await bench.store.records(origin, 0, 128)
    await _final(bench, 180)
    identity = await _floor(bench, BELOW)
    _later(bench)
    async with _pruning(bench) as told:
        await _within(lambda: bool(told))
        assert told == [RecordsPruned(identity, origin, BELOW)]
        await bench.performer.take([told[0], Tick()])
        await asyncio.sleep(0.7)
    assert (await bench.store.floors())[origin] == (BELOW, BELOW)
    kept = await bench.store.records(origin, BELOW, 9)
    assert len(kept) == 9
    left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [leaf for leaf in leaves if leaf in left]
    assert all(leaf in left for leaf in kept)
    assert await _said(bench) == [f"{identity} {origin} {BELOW}"]
    assert [at for _, at, _ in await bench.store.find(identity, 9)] == [origin]
    async with _pruning(bench) as told:  # the next start
        await asyncio.sleep(0.7)
        assert told == []
    await bench.store.close()


@pytest.mark.parametrize("why", ["not final", "another history is final", "a certificate over more than is held", "too young"])
async def test_nothing_goes_that_is_not_final_or_not_old(tmp_path: Path, why: str) -> None:
    bench = await _bench(tmp_path)
    origin = bench.performer.state.log.origin
    if why == "another history is final":
        await _final(bench, 180, root=bytes(32))
    elif why == "a certificate over more than is held":
        await _final(bench, 900, root=bytes(32))
    elif why != "not final":
        await _final(bench, 180)
    await _floor(bench, BELOW)
    _later(bench, PRUNE_AGE_MS_MIN - 1 if why == "too young" else PRUNE_AGE_MS_MIN)
    async with _pruning(bench) as told:
        await asyncio.sleep(0.8)
        assert told == []
    assert await bench.store.floors() == {}
    assert len(await bench.store.records(origin, 0, 9)) == 9
    await bench.store.close()


async def test_what_is_final_goes_up_to_there_and_the_rest_once_it_is_and_the_newest_record_stays(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    origin, size = bench.performer.state.log.origin, bench.performer.state.log.frontier.size
    await _final(bench, 100)
    await _floor(bench, 10_000)
    size = bench.performer.state.log.frontier.size
    _later(bench)
    async with _pruning(bench) as told:
        await asyncio.sleep(0.8)
        assert (await bench.store.floors())[origin] == (10_000, 100)
        await _final(bench, size)
        await asyncio.sleep(0.8)
        assert (await bench.store.floors())[origin] == (10_000, size - 1)
        assert told == []
    assert len(await bench.store.records(origin, size - 1, 1)) == 1
    stored = await load_state(bench.store, LAB.governance, bench.performer.machine.me)
    assert stored.own.last_ms == read_record((await bench.store.records(origin, size - 1, 1))[0]).at_ms
    await bench.store.close()


async def test_an_old_copy_of_the_file_is_pruned_again(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    await _final(bench, 180)
    await _floor(bench, BELOW)
    await bench.store.cut()
    copy = (tmp_path / "node.db").read_bytes()
    _later(bench)
    origin = bench.performer.state.log.origin
    async with _pruning(bench) as told:
        await _within(lambda: bool(told))
    await bench.store.close()
    (tmp_path / "node.db").write_bytes(copy)
    store = await Store.open(tmp_path / "node.db", owner="eu-1")
    assert len(await store.records(origin, 0, 9)) == 9
    bench.performer.store = store
    async with _pruning(bench) as told:
        await _within(lambda: bool(told))
    assert len(await store.pruned(origin, 0, 128)) == 128
    await store.close()


async def test_who_asks_for_what_was_pruned_gets_its_code_and_where_archives_are_and_who_pulls_gets_the_hashes(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    origin = bench.performer.state.log.origin
    leaves = [*await bench.store.records(origin, 0, 128), *await bench.store.records(origin, 128, 52)]
    await _final(bench, 180)
    await _floor(bench, BELOW)
    _later(bench)
    async with _pruning(bench) as told:
        await _within(lambda: bool(told))
    state = bench.performer.state
    for asked in (Prove(origin=origin, index=3), Leaves(origin=origin, first=3, count=9)):
        with pytest.raises(Refused) as caught:
            await looked_up(bench.store, asked, state, openings=True)
        assert caught.value.code == "record_pruned"
        assert "archives: tape 7" in caught.value.detail
    assert await looked_up(bench.store, Prove(origin=origin, index=BELOW), state, openings=True)
    for first, count in ((0, 128), (100, 50)):
        batch = unpack(LineageBatch, await looked_up(bench.store, Pull(origin=origin, first=first, count=128), state, openings=True))
        assert (batch.first, batch.records, batch.bodies) == (first, [], [])
        assert batch.pruned == [leaf_hash(leaf).hex() for leaf in leaves[first : first + count]]
        end, root = first + count, (await bench.store.frontier_at(origin, 180)).root()
        begun = (await bench.store.frontier_at(origin, end)).root()
        verify_consistency(end, 180, begun, root, [bytes.fromhex(value) for value in batch.path])
    batch = unpack(LineageBatch, await looked_up(bench.store, Pull(origin=origin, first=BELOW, count=5), state, openings=True))
    assert ([bytes(raw) for raw in batch.records], batch.pruned) == (leaves[BELOW : BELOW + 5], [])
    await bench.store.close()


async def test_tiles_of_hashes_are_served_on_and_bundles_of_what_was_pruned_are_not_there(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    origin = bench.performer.state.log.origin
    root = (await bench.store.frontier_at(origin, 180)).root()
    note = Note(Checkpoint(origin, 180, root).to_text(), (log_line(origin, "ab" * 32, bytes(64)),)).encode()
    await _final(bench, 180)
    await _floor(bench, BELOW)
    tiles, asked = Tiles(lambda: bench.store, lambda: note), (f"/{origin}/tile/0/000.p/180", f"/{origin}/tile/entries/000.p/180")
    before = [await tiles.answer(Request("GET", path, b"")) for path in asked]
    assert [answer.status for answer in before] == [200, 200]
    _later(bench)
    async with _pruning(bench) as told:
        await _within(lambda: bool(told))
    after = [await tiles.answer(Request("GET", path, b"")) for path in asked]
    assert ([answer.status for answer in after], after[0].body) == ([200, 404], before[0].body)
    await bench.store.close()


async def test_an_outcome_whose_record_was_pruned_is_answered_with_its_receipt_still(tmp_path: Path) -> None:
    bench = await _bench(tmp_path)
    report = LAB.report(LAB.lived("aa" * 32, "bb" * 32, at_ms=T0 + 1_000))
    await bench.performer.take([OutcomesArrived(7, report)])
    first = bench.said[-1][1]
    index = bench.performer.state.log.frontier.size - 1
    bench.ask(900, 901)
    await bench.done()
    await _final(bench, index + 2)
    await _floor(bench, index + 1)
    _later(bench)
    async with _pruning(bench) as told:
        await _within(lambda: bool(told))
    with refuses("record_pruned"):
        await bench.store.records(bench.performer.state.log.origin, index, 1)
    bench.performer.clock = Clock(source=lambda: Reading(T0 + 1_000, 0))
    await bench.performer.take([OutcomesArrived(8, report)])
    again = unpack(OutcomeAnswer, bench.said[-1][1])
    before = unpack(OutcomeAnswer, first)
    assert [envelope.read(Receipt, bytes(raw)).claims for raw in again.receipts] == [
        envelope.read(Receipt, bytes(raw)).claims for raw in before.receipts
    ]
    await bench.store.close()
