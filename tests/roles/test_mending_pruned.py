"""A disk that rots where records were pruned starts again: here they went before, or meanwhile everywhere else. Nobody can give them."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from mesh.adapters.store import Store
from mesh.adapters.storecheck import check_file, copy_file
from mesh.core.log.merkle import leaf_hash
from mesh.core.messages import LineageBatch
from mesh.errors import Alarm
from mesh.protocol.step import Head, SetHead
from mesh.roles.mending import mended
from tests.protocol.machines import batch
from tests.protocol.test_pruned import LOG
from tests.roles.test_mending import ALARM, _digest, _tamper
from tests.roles.test_pruning import _bench, _floor

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


async def _written(path: Path, *, pruned: int) -> tuple[Path, str, list[bytes]]:
    """A node's file that holds a floor, and has pruned so many records; its log's name, and all its records."""
    (path / "written").mkdir()
    bench = await _bench(path / "written")
    origin, store = bench.performer.state.log.origin, bench.store
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
    _tamper(path, rotten)
    with pytest.raises(Alarm):
        await check_file(path, still=False)
    assert len(await mended(path, ALARM, Pruned(leaves).records)) == 1
    assert _digest(path) == before
    await check_file(path, still=False)


@pytest.mark.parametrize("pruned", [0, 50])
async def test_what_rotted_and_was_pruned_by_all_others_meanwhile_keeps_its_hash_below_the_roots_floor(tmp_path: Path, pruned: int) -> None:
    path, origin, leaves = await _written(tmp_path, pruned=pruned)
    _tamper(path, ROTTEN)
    assert len(await mended(path, ALARM, Pruned(leaves).records)) == 1
    await check_file(path, still=False)
    store = await Store.open(path, owner="eu-1")
    assert await store.pruned(origin, AT, 9) == [leaf_hash(leaves[AT])]
    assert (await store.floors())[origin] == (BELOW, pruned)
    assert await store.scrub(origin) == len(leaves)
    await store.prune(origin, below=BELOW, first=pruned, end=BELOW)
    await store.close()
    await check_file(path, still=False)


@pytest.mark.parametrize("at", [BELOW, BELOW + 9])
async def test_above_the_roots_floor_nobodys_word_lets_a_record_go(tmp_path: Path, at: int) -> None:
    path, _, leaves = await _written(tmp_path, pruned=50)
    _tamper(path, ROTTEN.replace("70", str(at)))
    before = _digest(path)
    with pytest.raises(Alarm):
        await mended(path, ALARM, Pruned(leaves).records)
    assert _digest(path) == before


async def test_a_member_that_says_another_hash_lets_nothing_go(tmp_path: Path) -> None:
    path, _, leaves = await _written(tmp_path, pruned=0)
    _tamper(path, ROTTEN)
    with pytest.raises(Alarm):
        await mended(path, ALARM, Pruned(leaves[1:]).records)
