"""Whoever runs the bus repeats everything, late and out of order: every node is in the same state, and nothing is there twice."""

import asyncio
import random
from contextlib import suppress

import pytest

from mesh.adapters.bus import Bus
from mesh.adapters.bus_message import Message
from mesh.adapters.bus_options import BusOptions
from mesh.core.messages import NodeStatus
from mesh.dev.cluster import Cluster
from mesh.errors import MeshError
from tests.live.kit import Client, code_of, command

pytestmark = pytest.mark.asyncio
_TIMES = 5
_PUBLISHED = ("mesh.v1.hb.*", "mesh.v1.law.*", "mesh.v1.*.lineage.*", "mesh.v1.*.checkpoint.*", "mesh.v1.*.cosig.*")
_LATE_S = 1.5


class Echo:
    """A login that may do everything repeats whatever is published, five times, each time somewhat later, in any order."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus
        self.random = random.Random(1)
        self.repeated = 0
        self.own = set[tuple[str, bytes]]()
        self.tasks = set[asyncio.Task[None]]()

    async def begin(self) -> None:
        for subject in _PUBLISHED:
            await self.bus.subscribe(subject, self.hear)

    def hear(self, message: Message) -> None:
        said = message.subject, message.data
        if said in self.own:
            return
        self.own.add(said)
        for _ in range(_TIMES):
            task = asyncio.get_running_loop().create_task(self.say(*said, self.random.uniform(0.0, _LATE_S)))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def say(self, subject: str, data: bytes, late_s: float) -> None:
        await asyncio.sleep(late_s)
        with suppress(MeshError):
            await self.bus.publish(subject, data)
            self.repeated += 1

    async def end(self) -> None:
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.bus.close()


def _final(status: NodeStatus) -> bool:
    return status.fresh and status.certified == status.size


async def test_everything_is_delivered_six_times_in_any_order_and_all_nodes_are_in_the_same_state(own_mesh: Cluster) -> None:
    files = own_mesh.files
    client = await Client.connect(files.context)
    for name in files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    echo = Echo(await Bus.connect(BusOptions(servers=(own_mesh.url,), name="echo", nkey_file=str(files.provisioner))))
    await echo.begin()
    try:
        requests = [client.request(client.intent())[1] for _ in range(40)]
        codes = {code_of(answer) for answer in await client.flood([*requests, *requests])}
        revoker = str(files.folder / "people" / "revoker.key")
        for number in range(5):
            ended, _, err = await command(own_mesh, "revoke", f"subject:spiffe://dev/agent/nobody-{number}", "--key", revoker)
            assert ended == 0, err
        await asyncio.sleep(2 * _LATE_S)
        statuses = {name: await client.until(name, "final", _final) for name in files.nodes}
    finally:
        await echo.end()
        await client.bus.close()
    assert codes == {"authorized"}
    assert echo.repeated > 500
    assert len({status.frontier for status in statuses.values()}) == 1, "the digest of all that governs"
    sizes = {status.origin: status.size for status in statuses.values()}
    for status in statuses.values():
        assert {mirror.origin: mirror.size for mirror in status.mirrors}.items() <= sizes.items()
        assert not any(mirror.refused or mirror.conflicted for mirror in status.mirrors)
    _, report, err = await command(own_mesh, "audit", "run", "--once")
    assert report is not None, err
    assert (report["match"], report["mismatch"], report["findings"]) == (40, 0, []), "each intent was decided once"
