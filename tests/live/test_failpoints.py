"""A node killed at any boundary of a step loses nothing it answered, and repeats nothing."""

from collections import Counter

import pytest

from mesh.adapters.store import Store
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.messages import Authorized
from mesh.dev.cluster import Cluster
from mesh.errors import Unavailable
from mesh.protocol.step import FAILPOINTS
from tests.live.kit import Client, authorization_in

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("point", FAILPOINTS)
async def test_killed_at_a_boundary_nothing_answered_is_lost_and_nothing_stands_twice(single: Cluster, point: str) -> None:
    name = single.files.nodes[0]
    client = await Client.connect(single.files.context)
    answered: dict[str, str] = {}
    requests = [client.request(client.intent()) for _ in range(200)]
    for round_ in range(3):
        single.stop([name])
        single.start([name], env={"MESH_FAILPOINT": f"{point}:{40 + 7 * round_}"})
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


async def _permits(store: Store) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for origin, size in (await store.sizes()).items():
        for first in range(0, size, 100):
            for leaf in await store.records(origin, first, 100):
                record = read_record(leaf)
                if isinstance(record, DecisionMade) and record.authorization:
                    found.setdefault(record.intent, []).append(record.authorization)
    return found
