"""Four governors: one may die unnoticed, two may not; what is cut off denies, what comes back heals, nothing is lost."""

import asyncio
import signal
import time

import pytest

from mesh.core.messages import Authorized
from mesh.dev.cluster import Cluster
from tests.live.kit import Client, authorization_in, code_of

pytestmark = pytest.mark.asyncio


async def test_one_dead_governor_of_four_changes_nothing_for_the_clients_of_the_others(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    own_mesh.kill("sa-1")
    await asyncio.sleep(3.5)  # past Δ: its last heartbeats are dead too
    answers = await client.flood([client.request(client.intent())[1] for _ in range(100)])
    assert [code_of(answer) for answer in answers] == ["authorized"] * 100
    size = (await client.status("eu-1")).size
    await client.until("eu-1", "final without the fourth", lambda status: status.certified >= size)
    own_mesh.start(["sa-1"])
    await client.until(
        "sa-1", "caught up", lambda status: status.fresh and any(m.origin == "dev/eu-1/e1" and m.attested >= size for m in status.mirrors)
    )
    await client.bus.close()


async def test_two_dead_governors_stop_finality_then_authorization_and_a_restart_heals_without_loss(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    for name in ("ap-1", "sa-1"):
        own_mesh.kill(name)
    killed = time.monotonic()
    before = await client.ask()
    assert isinstance(before, Authorized), "heartbeats of the dead are still young: this one is allowed"
    index = authorization_in(before).claims.index
    codes = []
    while time.monotonic() - killed < 3.6:
        codes.append(code_of(await client.ask()))
        await asyncio.sleep(0.1)
    assert codes[-1] == "stale"
    assert "authorized" not in codes[codes.index("stale") :], "once stale, always stale until healed"
    assert (await client.status("eu-1")).certified <= index, "two of four certify nothing"
    own_mesh.start(["ap-1", "sa-1"])
    status = await client.until("eu-1", "healed", lambda status: status.fresh and status.certified > index)
    assert code_of(await client.ask()) == "authorized"
    await client.until("eu-1", "all final", lambda now: now.certified >= status.size)
    await client.bus.close()


async def test_a_frozen_mesh_denies_by_delta_and_recovers_when_thawed(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    for name in ("us-1", "ap-1", "sa-1"):
        own_mesh.signal(name, signal.SIGSTOP)
    await asyncio.sleep(3.0 + 0.5)
    assert code_of(await client.ask()) == "stale"
    for name in ("us-1", "ap-1", "sa-1"):
        own_mesh.signal(name, signal.SIGCONT)
    thawed = time.monotonic()
    await client.until("eu-1", "fresh again", lambda status: status.fresh, wait_s=5)
    assert time.monotonic() - thawed < 3.0
    assert code_of(await client.ask()) == "authorized"
    await client.bus.close()


async def test_a_killed_and_restarted_bus_loses_nothing(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    first = await client.flood([client.request(client.intent())[1] for _ in range(50)])
    assert all(code_of(answer) == "authorized" for answer in first)
    size = (await client.status("eu-1")).size
    await asyncio.to_thread(own_mesh.kill_bus)
    await asyncio.sleep(0.5)
    own_mesh.start_bus()
    await client.until_reachable("eu-1")
    await client.until("eu-1", "healed", lambda status: status.fresh and status.certified >= size, wait_s=20)
    assert code_of(await client.ask()) == "authorized"
    await client.bus.close()


async def test_stopping_drains_what_was_taken_is_answered_and_certified(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    asked = asyncio.gather(*(client.send(client.request(client.intent())[1]) for _ in range(40)), return_exceptions=True)
    await asyncio.sleep(0.02)
    await asyncio.to_thread(own_mesh.stop, ["eu-1"])
    answers = [answer for answer in await asked if not isinstance(answer, BaseException)]
    indices = [authorization_in(answer).claims.index for answer in answers if isinstance(answer, Authorized)]
    assert indices, "none was taken before the end"
    status = await client.status("us-1")
    mirror = next(mirror for mirror in status.mirrors if mirror.origin == "dev/eu-1/e1")
    assert mirror.attested > max(indices), "the last checkpoint went out"
    await client.bus.close()
