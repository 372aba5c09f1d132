"""A node killed at any boundary of a step loses nothing it answered, repeats nothing, and signs nothing twice in other words.

``MESH_KILLS`` says how often at each (``make kills``: 50); by default a sample.
"""

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress

import pytest

from mesh.adapters.bus import Bus
from mesh.adapters.bus_message import Message
from mesh.adapters.bus_table import bus_options
from mesh.adapters.store import Store
from mesh.core import subjects
from mesh.core.log.checkpoint import Checkpoint
from mesh.core.log.note import parse_note
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.messages import Authorized
from mesh.dev.cluster import Cluster
from mesh.errors import Unavailable
from mesh.protocol.step import FAILPOINTS, HeadUse
from tests.live.kit import Client, authorization_in, until_fresh

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120 + 10 * int(os.environ.get("MESH_KILLS", "3")))]
KILLS = int(os.environ.get("MESH_KILLS", "3"))
NAME = "us-1"


@pytest.mark.parametrize("point", FAILPOINTS)
async def test_killed_at_a_boundary_nothing_answered_is_lost_and_nothing_stands_twice(single: Cluster, point: str) -> None:
    name = single.files.nodes[0]
    client = await Client.connect(single.files.context)
    answered: dict[str, str] = {}
    requests: list[tuple[str, bytes]] = []
    for round_ in range(KILLS):
        if round_ % 9 == 0:  # an intent is asked for once in each round, and expires
            requests = [client.request(client.intent()) for _ in range(200)]
        single.stop([name])
        single.start([name], env={"MESH_FAILPOINT": f"{point}:{40 + 7 * (round_ % 9)}"})
        await client.until_reachable(name)
        for identity, data in requests:
            try:
                answer = await client.send(data, timeout_ms=300)
            except Unavailable:
                if not single.alive(name):
                    break
                continue
            if isinstance(answer, Authorized):
                authorization = authorization_in(answer).id
                assert answered.setdefault(identity, authorization) == authorization, "the same intent got another authorization"
        assert not single.alive(name), f"{point} was never reached"
    await client.bus.close()
    store = await Store.open(single.files.folder / "nodes" / name / "data" / "node.db", owner=name)
    permits = await _permits(store)
    await store.close()
    assert answered
    assert {identity: permits[identity] for identity in answered} == {identity: [what] for identity, what in answered.items()}
    assert max(Counter(len(found) for found in permits.values())) == 1


async def test_killed_anywhere_a_member_cosigns_each_tree_in_one_way_and_none_that_its_file_does_not_hold(own_mesh: Cluster) -> None:
    await until_fresh(own_mesh)
    client = await Client.connect(own_mesh.files.context)
    said = defaultdict[tuple[str, bytes], set[bytes]](set)

    def heard(message: Message) -> None:
        note = parse_note(message.data)
        for line in note.lines:
            if line.name in {f"dev/{NAME}/witness", f"dev/{NAME}/attest"}:
                said[line.name, note.text].add(line.signature)

    observer = await Bus.connect(bus_options(client.context.auditor, name="auditor", base=client.context.path(".")))
    await observer.subscribe(subjects.cosig(subjects.ANY, subjects.ANY), heard)
    for round_ in range(max(1, KILLS // 3)):
        for point in FAILPOINTS:
            own_mesh.stop([NAME])
            own_mesh.start([NAME], env={"MESH_FAILPOINT": f"{point}:{20 + 3 * round_}"})
            for _ in range(400):
                if not own_mesh.alive(NAME):
                    break
                with suppress(Unavailable):
                    await client.send(client.request(client.intent())[1], timeout_ms=2_000)
                await asyncio.sleep(0.02)
            assert not own_mesh.alive(NAME), f"{point} was never reached"
            await asyncio.sleep(0.3)  # what was sent has arrived
            await _held(own_mesh, said)
            own_mesh.start([NAME])
            await client.until(NAME, "fresh", lambda status: status.fresh, wait_s=30)
    assert len(said) > 8
    assert {key: len(signatures) for key, signatures in said.items() if len(signatures) > 1} == {}
    held = [mirror for name in own_mesh.files.nodes for mirror in (await client.status(name)).mirrors]
    assert not any(mirror.conflicted or mirror.refused for mirror in held)
    await observer.close()
    await client.bus.close()


async def _held(mesh: Cluster, said: Mapping[tuple[str, bytes], set[bytes]]) -> None:
    """What was cosigned is in the file of whoever was killed, or something larger of the same log."""
    store = await Store.open(mesh.files.folder / "nodes" / NAME / "data" / "node.db", owner=NAME)
    heads = await store.heads()
    await store.close()
    for name, text in said:
        tree = Checkpoint.from_text(text)
        use: HeadUse = "witness" if name.endswith("/witness") else "attest"
        head = heads[use, tree.origin]
        assert (head.size, head.root) == (tree.size, tree.root) or head.size > tree.size


async def _permits(store: Store) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for origin, size in (await store.sizes()).items():
        for first in range(0, size, 100):
            for leaf in await store.records(origin, first, 100):
                record = read_record(leaf)
                if isinstance(record, DecisionMade) and record.authorization:
                    found.setdefault(record.intent, []).append(record.authorization)
    return found
