"""Halting on a real mesh: two commands, and every governor denies in between, and allows again after."""

import pytest

from mesh.dev.cluster import Cluster
from tests.live.kit import Client, code_of, command

pytestmark = pytest.mark.asyncio
DOMAIN = "payments"


async def test_a_halted_domain_is_denied_by_every_governor_until_it_is_resumed_also_after_a_restart(own_mesh: Cluster) -> None:
    key = str(own_mesh.files.folder / "people" / "revoker.key")
    client = await Client.connect(own_mesh.files.context)
    for name in own_mesh.files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    assert {code_of(await client.ask(region=region)) for region in own_mesh.files.regions} == {"authorized"}

    status, halted, err = await command(own_mesh, "halt", DOMAIN, "--key", key, "--reason", "books do not balance", "--watch")
    assert (status, halted["acknowledged"], halted["sequence"]) == (0, True, 1), err
    await client.until_answers(own_mesh.files.regions, "halted", before="authorized", within_s=halted["stale_ms"] / 1_000)
    own_mesh.kill("us-1")
    own_mesh.start(["us-1"])
    await client.until("us-1", "halted again", lambda item: item.fresh and item.halted == [DOMAIN])

    status, resumed, err = await command(own_mesh, "resume", DOMAIN, "--key", key, "--watch")
    assert (status, resumed["acknowledged"], resumed["lifts"]) == (0, True, [halted["id"]]), err
    await client.until_answers(own_mesh.files.regions, "authorized", before="halted", within_s=30)
    await client.bus.close()
