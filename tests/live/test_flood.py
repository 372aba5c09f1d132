"""Threat 28 on a real mesh: who asks for far more than a governor can take is told so, and is allowed nothing for it."""

import asyncio
from collections import Counter

import pytest

from mesh.core.messages import Authorized
from mesh.dev.cluster import Cluster
from mesh.limits import QUEUE_REQUESTS_MAX
from tests.live.kit import Client, authorization_in, code_of, until_fresh

pytestmark = pytest.mark.asyncio
ASKED = 2 * QUEUE_REQUESTS_MAX
DIFFERENT = 64


async def test_threat_28_what_is_beyond_the_queue_is_told_overloaded_everybody_is_answered_and_other_governors_serve_on(
    own_mesh: Cluster,
) -> None:
    await until_fresh(own_mesh)
    client, other = await Client.connect(own_mesh.files.context), await Client.connect(own_mesh.files.context)
    requests = [client.request(client.intent()) for _ in range(DIFFERENT)]
    flood = asyncio.create_task(client.flood([requests[number % DIFFERENT][1] for number in range(ASKED)], width=ASKED))
    elsewhere = list[str]()
    while not flood.done():
        elsewhere.append(code_of(await other.ask(region="us")))
        await asyncio.sleep(0.05)
    answers = await flood
    codes = Counter(map(code_of, answers))
    assert codes.keys() == {"authorized", "overloaded"}
    assert sum(codes.values()) == ASKED, "nobody waits for ever"
    permits = {authorization_in(answer).id for answer in answers if isinstance(answer, Authorized)}
    assert len(permits) <= DIFFERENT, "asking often is asking once"
    assert set(elsewhere) == {"authorized"}
    assert code_of(await client.ask()) == "authorized", "when it is over it is over"
    shed = await client.until("eu-1", "recorded", lambda status: status.certified == status.size)
    assert shed.fresh
    await client.bus.close()
    await other.bus.close()
