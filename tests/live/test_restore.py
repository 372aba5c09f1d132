"""An old copy of a governor's storage is put in place: it signs no second history, and goes on once every other has told it."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from mesh.adapters.store import Store
from mesh.core.log.record import Incident, read_record
from mesh.core.messages import Authorized
from mesh.dev.cluster import Cluster
from tests.live.kit import Client, code_of, command, settled

pytestmark = pytest.mark.asyncio
NAME = "us-1"
ORIGIN = "dev/us-1/e1"


def _data(mesh: Cluster) -> Path:
    return mesh.files.folder / "nodes" / NAME / "data"


async def _set_back(mesh: Cluster, client: Client) -> tuple[int, int, int]:
    """Copy the node's storage, let it sign more, put the copy back; sizes then and later, and the incarnation it was in last."""
    region = client.governance.roster.member(NAME).region
    await client.until(NAME, "fresh", lambda status: status.fresh)
    assert code_of(await client.ask(region=region)) == "authorized"
    early = await settled(mesh, client, NAME)
    mesh.kill(NAME)
    copy = mesh.files.folder / "copy"
    shutil.copytree(_data(mesh), copy)
    mesh.start([NAME])
    await client.until(NAME, "fresh again", lambda status: status.fresh)
    for _ in range(20):
        assert code_of(await client.ask(region=region)) == "authorized"
    late = await settled(mesh, client, NAME)
    incarnation = (await client.status(NAME)).incarnation
    mesh.kill(NAME)
    shutil.rmtree(_data(mesh))
    shutil.copytree(copy, _data(mesh))
    return early, late, incarnation


async def test_a_governor_whose_disk_is_lost_gets_its_log_back_from_the_others_and_decides_nothing_twice(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    status = await client.until(NAME, "fresh", lambda status: status.fresh)
    _, request = client.request(client.intent())
    first = await client.send(request, region=status.region)
    size = await settled(own_mesh, client, NAME)
    own_mesh.kill(NAME)
    shutil.rmtree(_data(own_mesh))
    own_mesh.start([NAME])
    back = await client.until(NAME, "back", lambda status: status.fresh and status.size > size and status.certified == status.size)
    assert back.incarnation == status.incarnation + 1
    again = await client.send(request, region=status.region)
    assert isinstance(first, Authorized)
    assert isinstance(again, Authorized)
    assert bytes(again.authorization) == bytes(first.authorization)
    assert await _incidents(own_mesh, client) == []


async def _incidents(mesh: Cluster, client: Client) -> list[str]:
    """What any node has recorded of two histories; the mesh is stopped for it."""
    await client.bus.close()
    await asyncio.to_thread(mesh.stop)
    found: list[str] = []
    for name in mesh.files.nodes:
        store = await Store.open(mesh.files.folder / "nodes" / name / "data" / "node.db", owner=name)
        for origin, size in (await store.sizes()).items():
            for first in range(0, size, 100):
                records = [read_record(leaf) for leaf in await store.records(origin, first, 100)]
                found += [f"{name}: {record.code} {record.detail}" for record in records if isinstance(record, Incident)]
        await store.close()
    return found


async def test_a_restored_governor_refills_its_log_and_goes_on_under_a_new_incarnation_when_all_others_answer(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    early, late, incarnation = await _set_back(own_mesh, client)
    own_mesh.start([NAME])
    status = await client.until(NAME, "back", lambda status: status.fresh and status.size > late and status.certified == status.size)
    assert late > early
    assert status.incarnation == incarnation + 1
    assert code_of(await client.ask(region=status.region)) == "authorized"
    await settled(own_mesh, client, NAME)
    held = [mirror for name in own_mesh.files.nodes for mirror in (await client.status(name)).mirrors]
    assert not any(mirror.conflicted or mirror.refused for mirror in held)
    assert await _incidents(own_mesh, client) == []


async def test_a_restored_governor_stays_silent_and_says_why_while_another_member_is_down(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    _, late, incarnation = await _set_back(own_mesh, client)
    own_mesh.kill("ap-1")
    own_mesh.start([NAME])
    await client.until(NAME, "refilled", lambda status: status.code == "storage_rolled_back")
    for _ in range(20):
        status = await client.status(NAME)
        assert (status.incarnation, status.fresh, status.code) == (0, False, "storage_rolled_back")
        await asyncio.sleep(0.2)
    assert code_of(await client.ask(region=client.governance.roster.member(NAME).region)) == "storage_rolled_back"
    assert "storage_rolled_back" in own_mesh.log(NAME).read_text(encoding="utf-8")
    _, said, _ = await command(own_mesh, "status")
    assert "storage_rolled_back" in json.dumps(said)
    assert (await client.status("eu-1")).code == "stale", "two of four are left, which is too few for anybody, but they live"
    own_mesh.start(["ap-1"])
    status = await client.until(NAME, "back", lambda status: status.fresh and status.size > late and status.certified == status.size)
    assert status.incarnation == incarnation + 1
    assert await _incidents(own_mesh, client) == []
