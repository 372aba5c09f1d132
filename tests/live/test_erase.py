"""What the root says to erase is in no file of any node any more, also of one that was away; nothing stalls, and no proof breaks."""

import asyncio
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters import signer
from mesh.adapters.clock import wall_ms
from mesh.adapters.store import Store
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.law.erase import Erase
from mesh.core.log.record import GovernanceChanged, read_record
from mesh.core.messages import Authorized, Offer, Offered, pack, unpack
from mesh.core.run.params import Opening, commit
from mesh.dev.cluster import Cluster
from tests.live.kit import Client, code_of, command

pytestmark = pytest.mark.asyncio
ALL = ("eu-1", "us-1", "ap-1", "sa-1")
SECRET = "needle-4711-what-nobody-may-keep"


def _holders(cluster: Cluster, what: str = SECRET) -> list[str]:
    """Nodes of which some file has these bytes."""
    folders = {name: cluster.files.folder / "nodes" / name for name in cluster.files.nodes}
    return [
        name for name, folder in folders.items() if any(what.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    ]


async def _final(client: Client, *names: str) -> None:
    for name in names:
        await client.until(name, "all final", lambda status: status.certified == status.size)


async def _erase(cluster: Cluster, *arguments: str) -> tuple[int, dict[str, Any], str]:
    people = cluster.files.folder / "people"
    keys = ("--key", str(people / "root-1.key"), "--co-sign", str(people / "root-2.key"))
    status, out, err = await command(cluster, "lineage", "erase", *arguments, *keys)
    return status, out or {}, err


async def _ask_hiding(client: Client, secret: str = SECRET) -> str:
    opening = Opening(name="memo", salt="0" * 32, value=secret)
    identity, data = client.request(client.intent(committed={"memo": commit(opening)}), [opening])
    assert isinstance(await client.send(data), Authorized)
    return identity


async def test_what_was_erased_is_in_no_file_of_any_node_also_of_one_that_was_away_and_no_proof_breaks(
    own_mesh: Cluster, tmp_path: Path
) -> None:
    client = await Client.connect(own_mesh.files.context)
    for name in ALL:
        await client.until(name, "fresh", lambda status: status.fresh)
    own_mesh.kill("sa-1")
    intent = await _ask_hiding(client)
    await _final(client, "eu-1", "us-1", "ap-1")
    assert sorted(_holders(own_mesh)) == ["ap-1", "eu-1", "us-1"]
    before = tmp_path / "before.json"
    assert (await command(own_mesh, "prove", intent, "--out", str(before)))[0] == 0

    status, told, err = await _erase(own_mesh, intent, "--reason", "asked for by the customer", "--quorum", "--watch")
    assert status == 0, err
    assert [row["node"] for row in told["members"] if row["erased"]] == ["eu-1", "us-1", "ap-1"], told
    assert _holders(own_mesh) == []
    status, again, err = await _erase(own_mesh, intent)
    assert (status, again["needed"], again["erased"]) == (4, 4, 3), err
    assert "not_acknowledged" in err
    assert "sa-1" in err

    own_mesh.start(["sa-1"])  # it never saw the openings, and nobody can show them to it any more
    status, told, err = await _erase(own_mesh, intent, "--watch", "--wait", "60")
    assert (status, told["erased"], len(told["erasures"])) == (0, 4, 1), err
    assert _holders(own_mesh) == []
    await _ask_hiding(client, "another")
    for name in ALL:
        await client.until(name, "fresh", lambda status: status.fresh)
    await _final(client, *ALL)
    sizes = {name: (await client.status(name)).size for name in ALL}
    for name in ALL:
        await _holds_all(client, name, sizes)

    after = tmp_path / "after.json"
    assert (await command(own_mesh, "prove", intent, "--out", str(after)))[0] in {0, 2}
    roster = str(next((own_mesh.files.folder).glob("**/roster.json")))
    verdicts = [(await command(own_mesh, "verify", str(path), "--trust", roster)) for path in (before, after)]
    assert [status for status, _, _ in verdicts] == [0, 2], verdicts
    assert "memo" in str(verdicts[1][1])

    status, report, err = await command(own_mesh, "audit", "run", "--once")
    assert (status, report["mismatch"], report["unverifiable"]) == (0, 0, 1), (report, err)
    await client.bus.close()


async def _holds_all(client: Client, name: str, sizes: dict[str, int]) -> None:
    end = time.monotonic() + 20
    while True:
        status = await client.status(name)
        attested = {mirror.origin.split("/")[1]: mirror.attested for mirror in status.mirrors}
        if all(attested[other] >= size for other, size in sizes.items() if other != name):
            return
        assert time.monotonic() < end, f"{name} attests {attested} of {sizes}"
        await asyncio.sleep(0.1)


async def _until_gone(cluster: Cluster, what: str = SECRET, wait_s: float = 30) -> None:
    end = time.monotonic() + wait_s
    while _holders(cluster, what):
        assert time.monotonic() < end, _holders(cluster, what)
        await asyncio.sleep(0.1)


async def _until_all_hold_all(client: Client) -> None:
    await _final(client, *ALL)
    sizes = {name: (await client.status(name)).size for name in ALL}
    for name in ALL:
        await _holds_all(client, name, sizes)


async def _words(cluster: Cluster, name: str) -> list[str]:
    """What the node's own log says that it has erased."""
    store = await Store.open(cluster.files.folder / "nodes" / name / "data" / "node.db", owner=name)
    origin = f"dev/{name}/e1"
    size = (await store.sizes())[origin]
    leaves = [leaf for first in range(0, size, 100) for leaf in await store.records(origin, first, min(100, size - first))]
    await store.close()
    records = map(read_record, leaves)
    return [record.about for record in records if isinstance(record, GovernanceChanged) and record.change == "erased"]


async def test_neither_an_old_backup_nor_a_lost_disk_brings_back_what_was_erased_or_keeps_its_owner_from_starting(
    own_mesh: Cluster, tmp_path: Path
) -> None:
    client = await Client.connect(own_mesh.files.context)
    for name in ALL:
        await client.until(name, "fresh", lambda status: status.fresh)
    intent = await _ask_hiding(client)
    await _until_all_hold_all(client)
    configs = {name: str(own_mesh.files.node(name)) for name in ALL}
    owner, other = "eu-1", "us-1"
    for name in (owner, other):
        status, _, err = await command(own_mesh, "node", "backup", "--config", configs[name], "--out", str(tmp_path / f"old-{name}"))
        assert status == 0, err
        assert SECRET.encode() in (tmp_path / f"old-{name}" / "node.db").read_bytes()

    status, told, err = await _erase(own_mesh, intent, "--watch", "--wait", "60")
    assert (status, told["erased"]) == (0, 4), err
    (erasure,) = told["erasures"]
    await _until_all_hold_all(client)
    for name in (owner, other):  # what was erased is no rot
        status, _, err = await command(own_mesh, "node", "verify", "--config", configs[name])
        assert status == 0, err
        new = tmp_path / f"new-{name}"
        assert (await command(own_mesh, "node", "backup", "--config", configs[name], "--out", str(new)))[0] == 0
        assert (await command(own_mesh, "node", "verify", str(new)))[0] == 0
        assert SECRET.encode() not in (new / "node.db").read_bytes()

    for name in (owner, other):
        own_mesh.kill(name)
        status, _, err = await command(own_mesh, "node", "restore", "--config", configs[name], "--replace", str(tmp_path / f"old-{name}"))
        assert status == 0, err
    assert _holders(own_mesh) == [owner, other]
    own_mesh.start([owner, other])
    for name in ALL:
        await client.until(name, "fresh", lambda status: status.fresh, wait_s=60)
    await _until_gone(own_mesh)
    await _until_all_hold_all(client)

    own_mesh.kill(owner)  # all of its disk is lost: its log comes back from members that have no openings
    shutil.rmtree(own_mesh.files.folder / "nodes" / owner / "data")
    own_mesh.start([owner])
    await client.until(owner, "fresh", lambda status: status.fresh, wait_s=60)
    await _ask_hiding(client, "another")
    await _until_all_hold_all(client)
    assert _holders(own_mesh) == []
    status, told, err = await _erase(own_mesh, intent)
    assert (status, told["erased"], told["erasures"]) == (0, 4, [erasure]), err
    await client.bus.close()
    own_mesh.stop()
    assert {name: await _words(own_mesh, name) for name in ALL} == {name: [erasure] for name in ALL}, "each says it once"


async def test_killed_at_any_time_after_the_statement_a_node_erases_when_it_is_back(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    for name in ALL:
        await client.until(name, "fresh", lambda status: status.fresh)
    named = list[str]()
    for turn, (name, wait_s) in enumerate((("eu-1", 0.0), ("us-1", 0.03), ("eu-1", 0.08), ("eu-1", 0.15))):
        intent = await _ask_hiding(client, f"{SECRET}-{turn}")
        await _until_all_hold_all(client)
        assert sorted(_holders(own_mesh)) == sorted(ALL)
        status, told, err = await _erase(own_mesh, intent)
        assert status in {0, 4}, err
        await asyncio.sleep(wait_s)
        own_mesh.kill(name)
        own_mesh.start([name])
        await client.until(name, "fresh", lambda status: status.fresh, wait_s=30)
        status, again, err = await _erase(own_mesh, intent, "--watch", "--wait", "60")
        assert (status, again["erasures"]) == (0, told["erasures"]), err
        named += told["erasures"]
        assert _holders(own_mesh) == []
    await _until_all_hold_all(client)
    await client.bus.close()
    own_mesh.stop()
    assert {name: await _words(own_mesh, name) for name in ALL} == dict.fromkeys(ALL, named)


async def test_naming_intents_that_are_asked_for_just_now_stalls_no_log_and_leaves_nothing(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    for name in ALL:
        await client.until(name, "fresh", lambda status: status.fresh)
    requests = dict[str, bytes]()
    for number in range(120):
        opening = Opening(name="memo", salt=f"{number:032x}", value=f"{SECRET}-{number}")
        identity, data = client.request(client.intent(committed={"memo": commit(opening)}), [opening])
        requests[identity] = data
    said = Erase(
        mesh=client.context.mesh, sequence=1, previous="", since="", intents=sorted(requests), reason="test", issued_ms=wall_ms()
    )  # fmt: skip
    keys = [signer.load(own_mesh.files.folder / "people" / f"root-{number}.key").key for number in (1, 2)]
    draft = envelope.draft(said)
    data = envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message) for key in keys})

    async def tell() -> dict[str, str]:
        """A member hears of it, twice, while another decides."""
        question = pack(Offer(statements=[msgspec.Raw(data), msgspec.Raw(data)]))
        return unpack(Offered, (await client.bus.request(subjects.sync("us-1"), question, timeout_ms=5_000)).data).results

    codes, telling = Counter[str](), list[asyncio.Task[dict[str, str]]]()
    for number, request in enumerate(requests.values()):
        if number == 20:
            telling.append(asyncio.create_task(tell()))
        codes[code_of(await client.send(request))] += 1
        await asyncio.sleep(0.02)
    assert await telling[0] == {draft.id: ""}
    assert codes.keys() == {"authorized", "erased"}, codes
    assert {code_of(await client.send(data)) for data in list(requests.values())[-3:]} == {"erased"}
    await _until_all_hold_all(client)
    await _until_gone(own_mesh)
    for name in ALL:
        status = await client.until(name, "fresh", lambda status: status.fresh)
        assert not any(mirror.conflicted or mirror.refused for mirror in status.mirrors), status
    await client.bus.close()
