"""What a floor lets go is in no file of any node any more; who has lost its disk comes back by hashes, and nothing stalls."""

import shutil

import msgspec
import pytest

from mesh.adapters import signer
from mesh.adapters.clock import wall_ms
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.law.retain import Floor, Retain
from mesh.core.messages import Authorized, Offer, Offered, Prove, RefusedAnswer, pack, unpack
from mesh.dev.cluster import Cluster
from tests.live.kit import Client
from tests.live.test_clock import LIBRARIES, _env
from tests.live.test_erase import ALL, _holders, _until_all_hold_all, _until_gone

pytestmark = [pytest.mark.asyncio, pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed")]
LATER = "+9d"


def _floor(cluster: Cluster, origin: str, below: int) -> bytes:
    people = cluster.files.folder / "people"
    keys = [signer.load(people / f"root-{number}.key").key for number in (1, 2)]
    claims = Retain(
        mesh="dev", sequence=1, previous="", since="", floors=[Floor(origin=origin, below=below)],
        archive="tape 7", reason="test", issued_ms=wall_ms(),
    )  # fmt: skip
    draft = envelope.draft(claims)
    return envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message) for key in keys})


async def test_what_was_pruned_is_in_no_file_and_lost_disks_come_back_by_hashes_and_nothing_stalls(own_mesh: Cluster) -> None:
    client = await Client.connect(own_mesh.files.context)
    for name in ALL:
        await client.until(name, "fresh", lambda status: status.fresh)
    needles = list[str]()
    for _ in range(20):
        identity, data = client.request(client.intent())
        assert isinstance(await client.send(data), Authorized)
        needles.append(f'"intent":"{identity}"')
    await _until_all_hold_all(client)
    status = await client.status("eu-1")
    origin, below = status.origin, status.size
    own_mesh.stop()
    assert all(sorted(_holders(own_mesh, needle)) == sorted(ALL) for needle in needles)

    own_mesh.start(ALL, env=_env(LATER))  # nobody keeps a mesh for nine days to test it
    for name in ALL:
        await client.until(name, "fresh", lambda status: status.fresh, wait_s=60)
    statement = _floor(own_mesh, origin, below)
    answer = await client.bus.request(subjects.sync("eu-1"), pack(Offer(statements=[msgspec.Raw(statement)])), timeout_ms=5_000)
    assert set(unpack(Offered, answer.data).results.values()) == {""}
    for needle in needles:
        await _until_gone(own_mesh, needle)
    for name in ALL:
        answer = await client.bus.request(subjects.sync(name), pack(Prove(origin=origin, index=below - 1)), timeout_ms=5_000)
        refused = unpack(RefusedAnswer, answer.data)
        assert refused.code == "record_pruned"
        assert "archives: tape 7" in refused.detail
    await _until_all_hold_all(client)

    for lost in ("sa-1", "eu-1"):  # a member, and the log's owner
        own_mesh.kill(lost)
        shutil.rmtree(own_mesh.files.folder / "nodes" / lost / "data")
        own_mesh.start([lost], env=_env(LATER))
        await client.until(lost, "fresh", lambda status: status.fresh, wait_s=60)
        await _until_all_hold_all(client)
    assert [needle for needle in needles if _holders(own_mesh, needle)] == []
    await client.bus.close()
