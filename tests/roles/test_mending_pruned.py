"""A disk that rots where records were pruned starts again: here they went before, or meanwhile everywhere else. Nobody can give them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from mesh.adapters.store import Store
from mesh.adapters.storecheck import check_file, copy_file
from mesh.core.bytes.envelope import Statement
from mesh.core.law.retain import Retain
from mesh.core.log.merkle import leaf_hash
from mesh.core.messages import LawAsked, LawBatch, LineageBatch, pack, unpack
from mesh.errors import Alarm
from mesh.protocol.step import Head, SetHead
from mesh.roles.mending import mended
from mesh.roles.peers import Peers
from tests.protocol.machines import batch
from tests.protocol.test_pruned import LOG
from tests.roles.test_mending import ALARM, _digest
from tests.roles.test_performer import LAB
from tests.roles.test_pruning import _bench, _floor
from tests.support.retains import retain
from tests.support.unguarded import tampered

BELOW = 150
AT = 70
ROTTEN = "UPDATE record SET data = x'01' WHERE idx = 70"


class Pruned:
    """A member that has pruned all that it is asked for."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.hashes = [leaf_hash(leaf).hex() for leaf in leaves]

    async def records(self, origin: str, index: int, fits: Callable[[LineageBatch], bool]) -> LineageBatch | None:
        answer = msgspec.structs.replace(batch(LOG, 0, 0), origin=origin, first=index, pruned=[self.hashes[index]])
        return answer if fits(answer) else None


class Laws:
    """A bus at whose other end a member shows these statements, one in a page."""

    def __init__(self, held: list[Statement[Retain]]) -> None:
        self.held = held

    async def request(self, _subject: str, data: bytes, *, timeout_ms: int) -> Laws.Answer:
        asked = unpack(LawAsked, data)
        page = [item for item in self.held if (item.claims.sequence, item.id) > (asked.sequence, asked.id)][:1]
        return Laws.Answer(pack(LawBatch(statements=[msgspec.Raw(item.envelope) for item in page])))

    class Answer(NamedTuple):
        data: bytes


async def _written(path: Path, *, pruned: int, floor: bool = True) -> tuple[Path, str, list[bytes]]:
    """A node's file that holds a floor, and has pruned so many records; its log's name, and all its records."""
    (path / "written").mkdir()
    bench = await _bench(path / "written")
    origin, store = bench.performer.state.log.origin, bench.store
    if floor:
        await _floor(bench, BELOW)
    size = (await store.sizes())[origin]
    leaves = [leaf for first in range(0, size, 100) for leaf in await store.records(origin, first, 100)]
    head = (await store.frontier(origin)).root()
    await store.commit([SetHead("log", origin, Head(size, head, 1 << 31))])
    for first in range(0, pruned, 50):
        await store.prune(origin, below=BELOW, first=first, end=min(first + 50, pruned))
    await store.close()
    copy_file(path / "written" / "node.db", path / "node.db")
    return path / "node.db", origin, leaves


@pytest.mark.parametrize(
    "rotten",
    [
        "UPDATE record SET data = CAST(x'01' || substr(data, 2) AS BLOB) WHERE idx = 70",
        "UPDATE body SET envelope = CAST(x'01' || substr(envelope, 2) AS BLOB) WHERE n = (SELECT min(n) FROM body)",
    ],
)
async def test_what_was_pruned_here_and_rotted_since_goes_again(tmp_path: Path, rotten: str) -> None:
    path, _, leaves = await _written(tmp_path, pruned=BELOW)
    before = _digest(path)
    tampered(path, rotten)
    with pytest.raises(Alarm):
        await check_file(path, still=False)
    assert len(await mended(path, ALARM, Pruned(leaves).records)) == 1
    assert _digest(path) == before
    await check_file(path, still=False)


@pytest.mark.parametrize("pruned", [0, 50])
async def test_what_rotted_and_was_pruned_by_all_others_meanwhile_keeps_its_hash_below_the_roots_floor(tmp_path: Path, pruned: int) -> None:
    path, origin, leaves = await _written(tmp_path, pruned=pruned)
    tampered(path, ROTTEN)
    assert len(await mended(path, ALARM, Pruned(leaves).records)) == 1
    await check_file(path, still=False)
    store = await Store.open(path, owner="eu-1")
    assert await store.pruned(origin, AT, 9) == [leaf_hash(leaves[AT])]
    assert (await store.floors())[origin] == (BELOW, pruned)
    assert await store.scrub(origin) == len(leaves)
    await store.prune(origin, below=BELOW, first=pruned, end=BELOW)
    await store.close()
    await check_file(path, still=False)


async def test_who_was_away_when_the_floor_was_raised_hears_of_it_from_members_and_believes_no_other(tmp_path: Path) -> None:
    path, origin, leaves = await _written(tmp_path, pruned=0, floor=False)
    tampered(path, ROTTEN)
    bus = Laws([retain(LAB, {origin: AT + 1}, by=[LAB.revoker])])
    for laws, passes in ((bus, False), (Laws([retain(LAB, {origin: AT})]), False), (Laws([retain(LAB, {origin: AT + 1})]), True)):
        peers = Peers(laws, lambda _: None)  # type: ignore[arg-type]  # all that is asked of it
        peers.others = ["us-1"]
        mending = mended(path, ALARM, Pruned(leaves).records, partial(peers.floors, LAB.governance))
        if passes:
            assert len(await mending) == 1
        else:
            with pytest.raises(Alarm):
                await mending
    await check_file(path, still=False)
    store = await Store.open(path, owner="eu-1")
    assert await store.pruned(origin, AT, 9) == [leaf_hash(leaves[AT])]
    await store.close()


@pytest.mark.parametrize("at", [BELOW, BELOW + 9])
async def test_above_the_roots_floor_nobodys_word_lets_a_record_go(tmp_path: Path, at: int) -> None:
    path, _, leaves = await _written(tmp_path, pruned=50)
    tampered(path, ROTTEN.replace("70", str(at)))
    before = _digest(path)
    with pytest.raises(Alarm):
        await mended(path, ALARM, Pruned(leaves).records)
    assert _digest(path) == before


async def test_a_member_that_says_another_hash_lets_nothing_go(tmp_path: Path) -> None:
    path, _, leaves = await _written(tmp_path, pruned=0)
    tampered(path, ROTTEN)
    with pytest.raises(Alarm):
        await mended(path, ALARM, Pruned(leaves[1:]).records)
