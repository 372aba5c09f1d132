"""What broken storage does to a running governor: it never says less than it said, and it comes back by itself where that is safe."""

import asyncio
import resource
from contextlib import suppress
from pathlib import Path

import pytest

from mesh.adapters.store import Store
from mesh.core import subjects
from mesh.core.log.record import Incident, read_record
from mesh.core.messages import LineageBatch, Pull, pack, unpack
from mesh.dev.cluster import Cluster
from mesh.errors import Unavailable
from tests.live.kit import BILLING, Client, code_of, command, settled, until_fresh
from tests.support.unguarded import unguarded

pytestmark = pytest.mark.asyncio
NAME = "us-1"
ORIGIN = "dev/us-1/e1"


def _file(mesh: Cluster, end: str = "") -> Path:
    return mesh.files.folder / "nodes" / NAME / "data" / f"node.db{end}"


async def _asked(client: Client, count: int) -> None:
    region = client.governance.roster.member(NAME).region
    answers = await client.flood([client.request(client.intent())[1] for _ in range(count)])
    assert {code_of(answer) for answer in answers} == {"authorized"}
    for _ in range(count):
        assert code_of(await client.ask(region=region)) == "authorized"


async def _back(client: Client, size: int) -> int:
    """Wait until the node says more than it had said, and all of it is final; how much."""
    return (await client.until(NAME, "back", lambda now: now.fresh and now.size > size and now.certified == now.size, wait_s=30)).size


async def _unharmed(mesh: Cluster, client: Client) -> None:
    """Nobody has seen two histories, or refused a record."""
    held = [mirror for name in mesh.files.nodes for mirror in (await client.status(name)).mirrors]
    assert not any(mirror.conflicted or mirror.refused for mirror in held)


@pytest.mark.parametrize("cut", ["half of the log", "one bit in the middle of the log"])
async def test_a_node_whose_write_ahead_log_was_cut_finds_that_it_signed_more_and_signs_nothing_until_all_others_told_it(
    own_mesh: Cluster, cut: str
) -> None:
    client = await Client.connect(own_mesh.files.context)
    await until_fresh(own_mesh)
    await _asked(client, 20)
    early = await settled(own_mesh, client, NAME)
    incarnation = (await client.status(NAME)).incarnation
    own_mesh.kill("ap-1")
    own_mesh.kill(NAME)
    log = _file(own_mesh, "-wal")
    data = bytearray(log.read_bytes())
    assert len(data) > 100_000, "what was signed last is in the log"
    if cut == "one bit in the middle of the log":
        data[len(data) // 2] ^= 1
    else:
        del data[len(data) // 2 :]
    log.write_bytes(data)
    own_mesh.start([NAME])
    await client.until(NAME, "silent", lambda now: now.code == "storage_rolled_back" and now.size < early, wait_s=30)
    for _ in range(10):
        assert ((now := await client.status(NAME)).incarnation, now.fresh, now.code) == (0, False, "storage_rolled_back")
        await asyncio.sleep(0.1)
    assert code_of(await client.ask(region=client.governance.roster.member(NAME).region)) == "storage_rolled_back"
    own_mesh.start(["ap-1"])
    back = await client.until(NAME, "back", lambda now: now.fresh and now.size > early and now.certified == now.size, wait_s=30)
    assert back.incarnation == incarnation + 1
    await _asked(client, 3)
    await settled(own_mesh, client, NAME)
    await _unharmed(own_mesh, client)
    await client.bus.close()


def _limit(mesh: Cluster, bytes_max: int) -> None:
    """From now on that process cannot make any file longer than this, as on a disk that is full."""
    pid = mesh.nodes[NAME].pid
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (bytes_max, resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]))


async def test_a_governor_on_a_full_disk_refuses_what_is_new_serves_what_it_holds_says_so_and_goes_on_once_there_is_room(
    own_mesh: Cluster,
) -> None:
    client = await Client.connect(own_mesh.files.context)
    region = client.governance.roster.member(NAME).region
    await until_fresh(own_mesh)
    await _asked(client, 10)
    size = await settled(own_mesh, client, NAME)
    incarnation = (await client.status(NAME)).incarnation
    pid = own_mesh.nodes[NAME].pid
    _limit(own_mesh, 1)
    assert {code_of(await client.ask(region=region)) for _ in range(5)} == {"unavailable"}
    full = await client.until(NAME, "failing", lambda now: now.code == "storage_failed")
    assert (full.fresh, full.size >= size, full.counters["failed_steps"] >= 1) == (False, True, True)
    _, shown, _ = await command(own_mesh, "status")
    assert {row["node"]: row["state"] for row in shown}[NAME] == "storage_failed"
    for first in range(0, size, 10):
        answer = await client.bus.request(subjects.sync(NAME), pack(Pull(origin=ORIGIN, first=first, count=10)), timeout_ms=2_000)
        assert b"refused" not in answer.data[:30], answer.data
        batch = unpack(LineageBatch, answer.data)
        assert (batch.first, len(batch.records) > 0, len(batch.bodies) > 0 or first == 0) == (first, True, True)
    # The others go on, and what is revoked meanwhile is acknowledged without this one; this one denies all that is new anyway.
    assert code_of(await client.ask()) == "authorized"
    key = str(own_mesh.files.folder / "people" / "revoker.key")
    revoked, _, err = await command(own_mesh, "revoke", BILLING.subject, "--key", key, "--watch")
    assert revoked == 0, err
    assert code_of(await client.ask(region=region)) == "unavailable"
    assert code_of(await client.ask()) == "revoked"
    _limit(own_mesh, resource.RLIM_INFINITY)
    back = await client.until(NAME, "back", lambda now: now.fresh and now.size > size and now.certified == now.size, wait_s=30)
    assert own_mesh.nodes[NAME].pid == pid, "nobody had to start it again"
    assert back.incarnation == incarnation + 1
    assert code_of(await client.ask(region=region)) == "revoked"
    answer = await client.bus.request(subjects.sync(NAME), pack(Pull(origin=ORIGIN, first=size, count=50)), timeout_ms=2_000)
    records = [read_record(bytes(raw)) for raw in unpack(LineageBatch, answer.data).records]
    assert "storage_failed" in [record.code for record in records if isinstance(record, Incident)]
    await settled(own_mesh, client, NAME)
    await _unharmed(own_mesh, client)
    await client.bus.close()


def _tamper(mesh: Cluster, *statements: str) -> None:
    """Change rows behind the node's back, past what forbids it."""
    with unguarded(_file(mesh)) as file:
        for statement in statements:
            assert file.execute(statement, NAMES).rowcount > 0, statement


NAMES = {"own": ORIGIN, "peer": "dev/eu-1/e1"}
ROTTEN = {
    "a record of its own": ("UPDATE record SET data = x'00' WHERE idx = 5 AND log = (SELECT id FROM log WHERE origin = :own)",),
    "a record of another log": ("UPDATE record SET data = x'00' WHERE idx = 5 AND log = (SELECT id FROM log WHERE origin = :peer)",),
    "a leaf hash": ("UPDATE record SET leaf = zeroblob(32) WHERE idx = 5 AND log = (SELECT id FROM log WHERE origin = :own)",),
    "a branch hash": ("UPDATE branch SET hash = zeroblob(32) WHERE level = 8 AND log = (SELECT id FROM log WHERE origin = :own)",),
    "a statement": ("UPDATE body SET envelope = CAST(envelope || x'20' AS BLOB) WHERE n = 3",),
    "many at once": (
        "UPDATE record SET data = x'00' WHERE idx BETWEEN 4 AND 30 AND log = (SELECT id FROM log WHERE origin = :own)",
        "UPDATE body SET envelope = x'00' WHERE n BETWEEN 3 AND 30",
        "UPDATE document SET envelope = CAST(envelope || x'20' AS BLOB)",
    ),
}


FOUND_LATER = {"a record of another log", "a statement"}
"""When it is scrubbed, or read: a start rests on the own log only."""


async def _read_everything(mesh: Cluster, client: Client) -> None:
    for origin in NAMES.values():
        for first in range(400):
            if not mesh.alive(NAME):
                return
            with suppress(Unavailable):
                await client.bus.request(subjects.sync(NAME), pack(Pull(origin=origin, first=first, count=1)), timeout_ms=500)


async def test_what_rotted_in_the_file_stops_the_node_and_is_put_back_from_the_others_as_it_was_signed(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await until_fresh(own_mesh)
    await _asked(client, 260)  # so that there is a branch
    size = await settled(own_mesh, client, NAME)
    config = str(own_mesh.files.node(NAME))
    for what, statements in ROTTEN.items():
        own_mesh.kill(NAME)
        _tamper(own_mesh, *statements)
        status, _, _ = await command(own_mesh, "node", "verify", "--config", config)
        assert status == 5, what
        own_mesh.start([NAME])
        if what in FOUND_LATER:
            await _read_everything(own_mesh, client)
            assert await asyncio.to_thread(own_mesh.nodes[NAME].wait, 30) == 5, what
            own_mesh.start([NAME])
        size = await _back(client, size)
        status, _, err = await command(own_mesh, "node", "verify", "--config", config)
        assert status == 0, f"{what}: {err}"
    assert code_of(await client.ask(region=client.governance.roster.member(NAME).region)) == "authorized"
    await settled(own_mesh, client, NAME)
    await _unharmed(own_mesh, client)
    await client.bus.close()
    own_mesh.stop([NAME])
    store = await Store.open(_file(own_mesh), owner=NAME)
    held = (await store.sizes())[ORIGIN]
    records = [read_record(leaf) for first in range(0, held, 100) for leaf in await store.records(ORIGIN, first, min(100, held - first))]
    await store.close()
    incidents = [record.detail for record in records if isinstance(record, Incident)]
    assert len(incidents) == len(ROTTEN)
    assert all("put back" in detail for detail in incidents)


async def test_a_running_node_that_meets_a_flipped_bit_stops_signing_and_its_next_start_mends_it(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await until_fresh(own_mesh)
    await _asked(client, 10)
    size = await settled(own_mesh, client, NAME)
    _tamper(own_mesh, ROTTEN["a record of its own"][0])
    assert await asyncio.to_thread(own_mesh.nodes[NAME].wait, 30) == 5
    assert "storage_corrupt" in own_mesh.log(NAME).read_text(encoding="utf-8")
    own_mesh.start([NAME])
    await _back(client, size)
    await _unharmed(own_mesh, client)
    await client.bus.close()


async def test_what_no_signed_root_vouches_for_is_not_made_up_and_the_way_out_is_a_disk_without_it(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await until_fresh(own_mesh)
    await _asked(client, 10)
    size = await settled(own_mesh, client, NAME)
    own_mesh.kill(NAME)
    _tamper(own_mesh, "UPDATE head SET size = size - 1 WHERE use = 'log' AND log = (SELECT id FROM log WHERE origin = :own)")
    with pytest.raises(Unavailable, match="storage_corrupt"):
        own_mesh.start([NAME])
    _file(own_mesh).parent.rename(own_mesh.files.folder / "aside")
    own_mesh.start([NAME])
    await _back(client, size)
    await _unharmed(own_mesh, client)
    await client.bus.close()
