"""A log of which the beginning was pruned is published as ever: who took it back as hashes may have to say all of it again."""

from pathlib import Path

from mesh.core.messages import LineageBatch, unpack
from mesh.roles.answers import announcement
from mesh.roles.recent import Recent
from tests.roles.test_erasing import _within
from tests.roles.test_performer import Bench
from tests.roles.test_pruning import BELOW, _bench, _final, _floor, _later, _pruning


async def _pruned(path: Path) -> tuple[Bench, list[bytes]]:
    """A node that has pruned the first records of its log; and what these were."""
    bench = await _bench(path)
    origin = bench.performer.state.log.origin
    leaves = [*await bench.store.records(origin, 0, 128), *await bench.store.records(origin, 128, BELOW - 128)]
    await _final(bench, 180)
    await _floor(bench, BELOW)
    _later(bench)
    async with _pruning(bench) as told:
        await _within(lambda: bool(told))
    return bench, leaves


async def test_a_log_of_which_the_beginning_was_pruned_is_published_from_behind_that(tmp_path: Path) -> None:
    bench, _ = await _pruned(tmp_path)
    origin, size = bench.performer.state.log.origin, bench.performer.state.log.frontier.size
    for first in (0, 100, BELOW, BELOW + 5):
        batches = [unpack(LineageBatch, data) for data in await announcement(bench.store, Recent(origin), origin, first, size, b"note\n")]
        behind = max(first, BELOW)
        assert (batches[0].first, sum(len(batch.records) for batch in batches)) == (behind, size - behind)
        assert batches[-1].checkpoint == "note\n"
    await bench.store.close()
