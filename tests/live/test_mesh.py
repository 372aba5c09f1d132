"""Four governors: one may die unnoticed, two may not; what is cut off denies, what comes back heals, nothing is lost."""

import asyncio
import shutil
import signal
import time
from contextlib import suppress

import pytest

from mesh.adapters.store import Store
from mesh.core.messages import Authorized
from mesh.dev.cluster import Cluster
from mesh.errors import Unavailable
from tests.live.kit import Client, authorization_in, code_of, command, until_fresh

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


async def test_a_bus_that_is_killed_under_load_and_loses_its_disk_costs_no_record(own_mesh: Cluster) -> None:
    await until_fresh(own_mesh)
    client = await Client.connect(own_mesh.files.context)
    answers = list[Authorized]()

    async def ask() -> None:
        while True:
            with suppress(Unavailable):
                answer = await client.send(client.request(client.intent())[1], timeout_ms=500)
                if isinstance(answer, Authorized):
                    answers.append(answer)
            await asyncio.sleep(0.01)  # without a bus nothing else would wait

    load = [asyncio.create_task(ask()) for _ in range(8)]
    await asyncio.sleep(1)
    before = len(answers)
    await asyncio.to_thread(own_mesh.kill_bus)
    shutil.rmtree(own_mesh.files.folder / "bus" / "store")
    await asyncio.sleep(0.5)
    own_mesh.start_bus()
    await own_mesh.provision()
    await client.until_reachable("eu-1")
    again = len(answers)
    end = time.monotonic() + 20
    while len(answers) < again + 20 and time.monotonic() < end:  # noqa: ASYNC110 -- others fill the list
        await asyncio.sleep(0.1)
    for task in load:
        task.cancel()
    await asyncio.gather(*load, return_exceptions=True)
    assert before > 0
    assert len(answers) >= again + 20, "it goes on"
    size = max(authorization_in(answer).claims.index for answer in answers) + 1
    await client.until("eu-1", "final", lambda status: status.certified >= size, wait_s=20)
    for other in ("us-1", "ap-1", "sa-1"):
        await client.until(other, "a mirror", lambda held: any(one.origin == "dev/eu-1/e1" and one.size >= size for one in held.mirrors))
    await client.bus.close()
    _, report, err = await command(own_mesh, "audit", "run", "--once")
    assert report is not None, err
    assert (report["mismatch"], report["findings"], report["garbage"]) == (0, [], 0)
    assert report["match"] >= len(answers), "whoever comes now to a bus that remembers nothing still sees every decision"
    own_mesh.stop()
    wanted = {authorization_in(answer).id: authorization_in(answer).claims.index for answer in answers}
    for name in own_mesh.files.nodes:
        store = await Store.open(own_mesh.files.folder / "nodes" / name / "data" / "node.db", owner=name)
        found = {identity: index for key in wanted for identity, origin, index in await store.find(key, 9) if origin == "dev/eu-1/e1"}
        await store.close()
        assert {key: found.get(key) for key in wanted} == wanted, name


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
