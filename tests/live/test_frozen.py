"""Threat 19 on a real mesh: a governor shows two halves two roots at one size; neither is final, peers prove it, and all freeze it."""

import json
import time
from pathlib import Path

import msgspec
import pytest

from mesh.adapters import signer
from mesh.adapters.bus import Bus
from mesh.adapters.bus_options import BusOptions
from mesh.core import subjects
from mesh.core.log.checkpoint import Checkpoint, log_line
from mesh.core.log.merkle import Frontier, leaf_hash
from mesh.core.log.note import Note
from mesh.core.log.record import Noise, encode_record
from mesh.core.messages import LineageBatch, MirrorStatus, NodeStatus, Pull, pack, unpack
from mesh.deploy.devmesh import point_at
from mesh.dev.cluster import Cluster
from tests.live.halves import HUB, LEAF, Halves
from tests.live.kit import Client, code_of, command
from tests.live.test_fraud import elsewhere

pytestmark = pytest.mark.asyncio
LIAR = "us-1"
NEAR = tuple(name for name in HUB if name != LIAR)
_PAGE = 128


class Liar:
    """Whoever has all that is on the disk of a governor, and says what it likes."""

    def __init__(self, halves: Halves, origin: str, leaves: list[bytes]) -> None:
        self.folder = halves.cluster.files.folder / "nodes" / LIAR
        self.key = signer.load(self.folder / "keys" / "log.key").key
        self.origin, self.leaves = origin, leaves

    async def say(self, url: str, count: int) -> bytes:
        """One more record, and the checkpoint over it, to whom that server reaches; ``count`` makes the difference."""
        now_ms, size = time.time_ns() // 1_000_000, len(self.leaves)
        record = Noise(
            mesh=self.origin.split("/")[0],
            origin=self.origin,
            index=size,
            at_ms=now_ms,
            code="malformed",
            count=count,
            from_ms=0,
            to_ms=now_ms,
        )
        leaf = encode_record(record)
        root = Frontier.empty().extend([leaf_hash(each) for each in (*self.leaves, leaf)]).root()
        text = Checkpoint(self.origin, size + 1, root).to_text()
        note = Note(text, (log_line(self.origin, self.key.public, self.key.sign(text)),)).encode()
        batch = LineageBatch(
            origin=self.origin,
            first=size,
            records=[msgspec.Raw(leaf)],
            bodies=[],
            pruned=[],
            openings=[],
            path=[],
            start=[],
            checkpoint=note.decode(),
        )
        bus = await Bus.connect(BusOptions(servers=(url,), name="liar", nkey_file=str(self.folder / "bus.nk")))
        await bus.publish(subjects.lineage("us", LIAR), pack(batch))
        await bus.close()
        return note


def _mirror(status: NodeStatus, origin: str) -> MirrorStatus:
    return next(mirror for mirror in status.mirrors if mirror.origin == origin)


async def _records(client: Client, node: str, origin: str) -> list[bytes]:
    leaves = list[bytes]()
    while True:
        question = pack(Pull(origin=origin, first=len(leaves), count=_PAGE))
        batch = unpack(LineageBatch, (await client.bus.request(subjects.sync(node), question, timeout_ms=5_000)).data)
        leaves += [bytes(raw) for raw in batch.records]
        if not batch.records:
            return leaves


async def test_threat_19_two_roots_shown_to_two_halves_are_proven_by_peers_and_every_honest_node_freezes_the_liar(
    halves: Halves, tmp_path: Path
) -> None:
    await halves.link.open()
    halves.start_leaf()
    cluster, files = halves.cluster, halves.cluster.files
    cluster.start()
    near = await Client.connect(files.context)
    assert halves.leaf is not None
    point_at(files, [halves.leaf.url])
    far = await Client.connect(files.context)
    point_at(files, [cluster.url])
    sides = {**dict.fromkeys(NEAR, near), **dict.fromkeys(LEAF, far)}
    try:
        for name, side in {**sides, LIAR: near}.items():
            await side.until(name, "fresh", lambda status: status.fresh, wait_s=30.0)
        assert code_of(await near.ask(region="us")) == "authorized"
        origin = (await near.status(LIAR)).origin
        cluster.stop([LIAR])
        leaves = await _records(near, NEAR[0], origin)
        for name, side in sides.items():
            await side.until(name, "holding it all", lambda status: _mirror(status, origin).attested == len(leaves), wait_s=30.0)

        await halves.link.become("cut", "cut")
        liar, size = Liar(halves, origin, leaves), len(leaves) + 1
        one, other = await liar.say(cluster.url, 1), await liar.say(halves.leaf.url, 2)
        assert one != other
        for name, side in sides.items():
            held = await side.until(name, "attesting one of the two", lambda status: _mirror(status, origin).attested == size, wait_s=30.0)
            assert held.frozen == [], "by itself each of them is perfect"

        await halves.link.become("pass", "pass")
        for name, side in sides.items():
            held = await side.until(name, "freezing the liar", lambda status: status.frozen == [LIAR], wait_s=60.0)
            assert _mirror(held, origin).certified < size, "neither of the two is final"
        for name, side in sides.items():
            held = await side.until(name, "fresh without the liar", lambda status: status.fresh, wait_s=30.0)
            assert LIAR not in held.vouchers
        assert code_of(await near.ask(region="eu")) == code_of(await far.ask(region="sa")) == "authorized"

        status, (row,), err = await command(cluster, "fraud", "ls")
        assert (status, row["kind"], row["member"], row["state"], row["numbers"]) == (0, "same-size", LIAR, "frozen", [size, size]), err
        assert set(row["held_by"]) == set(sides)
        assert f"mesh roster remove {LIAR}" in err
        proof = tmp_path / "proof.json"
        status, _, err = await command(cluster, "fraud", "show", LIAR, "-o", str(proof))
        assert status == 0, err
        status, judged = await elsewhere(cluster, proof, tmp_path / "elsewhere")
        assert (status, judged["verdict"], judged["member"]) == (0, "PROVED", LIAR)
        halves_of_it = json.loads(proof.read_text())
        assert {halves_of_it["first"], halves_of_it["second"]} == {one.decode(), other.decode()}

        cluster.kill(NEAR[0])
        cluster.start([NEAR[0]])
        await near.until_reachable(NEAR[0])
        await near.until(NEAR[0], "frozen still", lambda status: status.frozen == [LIAR], wait_s=1.0)
    finally:
        await near.bus.close()
        await far.bus.close()
        await halves.link.close()


async def test_an_auditor_that_sees_two_histories_writes_the_proof_which_verifies_elsewhere_and_is_handed_to_whoever_lacks_it(
    own_mesh: Cluster, tmp_path: Path
) -> None:
    client, folder, others = await Client.connect(own_mesh.files.context), tmp_path / "proofs", set(own_mesh.files.nodes) - {LIAR}
    for name in own_mesh.files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    own_mesh.kill(LIAR)
    own_mesh.start([LIAR], env={"MESH_LIE": "forks"}, program=("mesh.testing.liar",))
    for name in others:
        await client.until(name, "freezing the liar", lambda status: status.frozen == [LIAR], wait_s=30.0)
    _, audited, err = await command(own_mesh, "audit", "run", "--once", "--proofs", str(folder))
    assert "log_conflict" in {item["code"] for item in audited["findings"]}, err
    (proof,) = folder.iterdir()
    assert f"mesh fraud push {proof}" in err
    status, judged = await elsewhere(own_mesh, proof, tmp_path / "elsewhere")
    assert (status, judged["verdict"], judged["member"]) == (0, "PROVED", LIAR)
    status, (row,), err = await command(own_mesh, "fraud", "push", str(proof))
    assert (status, set(row["held_by"]) >= others, row["kind"]) == (0, True, judged["kind"]), err
    await client.bus.close()
