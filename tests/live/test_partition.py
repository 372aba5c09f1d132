"""Five governors on two servers, and the link between them is cut: neither side finalizes or allows, and healing loses nothing."""

import asyncio
import time
from collections.abc import Callable

import pytest

from mesh.core.messages import NodeStatus
from mesh.deploy.devmesh import point_at
from tests.live.halves import HUB, LEAF, Halves
from tests.live.kit import Client, code_of

pytestmark = pytest.mark.asyncio


async def _until_all(client: Client, names: tuple[str, ...], what: str, check: Callable[[NodeStatus], bool]) -> dict[str, NodeStatus]:
    return {name: await client.until(name, what, check, wait_s=30.0) for name in names}


def _final_from(least: int) -> Callable[[NodeStatus], bool]:
    return lambda status: status.fresh and status.certified >= least


async def test_partition_two_three_of_five_neither_finalizes_the_minority_denies_and_after_healing_all_is_final(halves: Halves) -> None:
    await halves.link.open()
    halves.start_leaf()  # children are started on the main thread, which this is
    halves.cluster.start()
    files = halves.cluster.files
    near = await Client.connect(files.context)
    assert halves.leaf is not None
    point_at(files, [halves.leaf.url])
    far = await Client.connect(files.context)
    try:
        await _until_all(near, HUB, "fresh", lambda status: status.fresh)
        await _until_all(far, LEAF, "fresh", lambda status: status.fresh)
        assert code_of(await near.ask(region="eu")) == code_of(await far.ask(region="sa")) == "authorized"
        bounds = near.governance.roster.bounds
        settled = lambda status: status.certified == status.size > 0  # noqa: E731 -- asked four times
        await _until_all(near, HUB, "final", settled)
        await _until_all(far, LEAF, "final", settled)

        await halves.link.become("cut", "cut")
        await asyncio.sleep((bounds.stale_ms + 2 * bounds.heartbeat_ms) / 1_000)
        before = {name: await near.status(name) for name in HUB} | {name: await far.status(name) for name in LEAF}
        assert {name: status.code for name, status in before.items()} == dict.fromkeys(files.nodes, "stale")
        for side, region in ((near, "eu"), (near, "us"), (near, "ap"), (far, "sa"), (far, "af")):
            assert code_of(await side.ask(region=region)) == "stale"
        begun = time.monotonic()
        while time.monotonic() - begun < 2.0:
            for name, side in ((name, near if name in HUB else far) for name in files.nodes):
                assert (await side.status(name)).certified == before[name].certified, f"{name} finalized without k"
            await asyncio.sleep(0.2)
        sizes = {name: (await side.status(name)).size for name, side in ((name, near if name in HUB else far) for name in files.nodes)}
        assert all(sizes[name] > before[name].certified for name in files.nodes), "there is something to make final"

        await halves.link.become("pass", "pass")
        for side, names in ((near, HUB), (far, LEAF)):
            for name in names:
                await side.until(name, "final", _final_from(sizes[name]), wait_s=30.0)
        assert code_of(await near.ask(region="eu")) == code_of(await far.ask(region="sa")) == "authorized"
    finally:
        await near.bus.close()
        await far.bus.close()
        await halves.link.close()
