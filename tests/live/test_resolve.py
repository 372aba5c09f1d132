"""A contradiction of policy signers shuts a domain on every node of a real mesh; the root's word opens it on all, also after a restart."""

import msgspec
import pytest

from mesh.adapters.signer import load
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.policy import Manifest
from mesh.core.messages import Offer, Offered, pack, unpack
from mesh.dev.cluster import Cluster
from tests.live.kit import Client, command

pytestmark = pytest.mark.asyncio
DOMAIN = "payments"


def _second(cluster: Cluster, reason: str) -> Statement[Manifest]:
    """A second epoch, signed by the domain's signers."""
    people = cluster.files.folder / "people"
    first = envelope.read(Manifest, (cluster.files.folder / "policy" / f"{DOMAIN}.manifest.json").read_bytes())
    claims = msgspec.structs.replace(first.claims, epoch=2, previous=first.id, reason=reason)
    draft = envelope.draft(claims)
    keys = [load(path).key for path in sorted(people.glob(f"policy-{DOMAIN}-*.key"))[:2]]
    signatures = {key.public: key.sign(draft.message) for key in keys}
    return envelope.read(Manifest, envelope.assemble(draft.payload_type, draft.payload, signatures))


async def test_a_conflict_of_policy_signers_shuts_the_domain_everywhere_until_the_root_resolves_it(own_mesh: Cluster) -> None:
    people = own_mesh.files.folder / "people"
    roots = ("--key", str(people / "root-1.key"), "--co-sign", str(people / "root-2.key"))
    client = await Client.connect(own_mesh.files.context)
    for name in own_mesh.files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    await client.until_answers(own_mesh.files.regions, "authorized", before="policy_conflict", within_s=30)

    one, two = (_second(own_mesh, reason) for reason in ("one", "two"))
    for name, manifest in (("eu-1", one), ("us-1", two)):
        offer = pack(Offer(statements=[msgspec.Raw(manifest.envelope)]))
        answer = unpack(Offered, (await client.bus.request(subjects.sync(name), offer, timeout_ms=5_000)).data)
        assert answer.results == {manifest.id: ""}
    await client.until_answers(own_mesh.files.regions, "policy_conflict", before="authorized", within_s=30)

    status, rows, err = await command(own_mesh, "streams", "ls")
    row = next(row for row in rows if row["stream"] == f"policy/{DOMAIN}")
    assert (status, row["state"], row["differ_from"]) == (0, "forked", 2), err
    assert {tip["id"] for tip in row["tips"]} == {one.id, two.id}

    status, resolved, err = await command(own_mesh, "resolve", f"policy/{DOMAIN}", "--head", one.id, *roots, "--watch")
    assert (status, resolved["acknowledged"], resolved["aside"]) == (0, True, [two.id]), err
    await client.until_answers(own_mesh.files.regions, "authorized", before="policy_conflict", within_s=30)

    for name in own_mesh.files.nodes:
        own_mesh.kill(name)
    own_mesh.start()
    await client.until_answers(own_mesh.files.regions, "authorized", before="policy_conflict", within_s=30)
    _, rows, _ = await command(own_mesh, "streams", "ls")
    row = next(row for row in rows if row["stream"] == f"policy/{DOMAIN}")
    assert (row["state"], row["head"], row["held"]) == ("resolved", one.id, "4 of 4")
    await client.bus.close()
