"""Whoever says two things on a real mesh leaves a proof with every governor, which verifies on a machine that holds nothing else."""

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters import signer
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.policy import Manifest
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.travel import Said
from mesh.core.messages import Offer, Offered, pack, unpack
from mesh.dev.cluster import Cluster
from tests.live.kit import BILLING, Client, code_of, command

pytestmark = pytest.mark.asyncio
ROOT = Path(__file__).parents[2]
DOMAIN = "payments"


def _people(cluster: Cluster, *names: str) -> list[str]:
    return [str(cluster.files.folder / "people" / f"{name}.key") for name in names]


def _signed(cluster: Cluster, claims: Said, *names: str) -> bytes:
    keys = [signer.load(Path(path)).key for path in _people(cluster, *names)]
    draft = envelope.draft(claims)
    return envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message) for key in keys})


def _history(cluster: Cluster, *revoked: str) -> list[Statement[Revocation]]:
    """What the one revoker says to one half: from number 1 on."""
    key, said = signer.load(Path(_people(cluster, "revoker")[0])).key, list[Statement[Revocation]]()
    for number, subject in enumerate(revoked, 1):
        claims = Revocation(
            mesh=cluster.files.mesh,
            revoker=key.public,
            sequence=number,
            previous=said[-1].id if said else "",
            since="",
            target=Target(type="subject", value=subject),
            spares=[],
            reason="a test",
            issued_ms=time.time_ns() // 1_000_000,
        )
        said.append(envelope.read(Revocation, _signed(cluster, claims, "revoker")))
    return said


def _manifest(cluster: Cluster, reason: str) -> Statement[Manifest]:
    first = envelope.read(Manifest, (cluster.files.folder / "policy" / f"{DOMAIN}.manifest.json").read_bytes())
    claims = msgspec.structs.replace(first.claims, epoch=2, previous=first.id, reason=reason)
    return envelope.read(Manifest, _signed(cluster, claims, f"policy-{DOMAIN}-1", f"policy-{DOMAIN}-2"))


async def _offer(client: Client, node: str, statements: Sequence[Statement[Said]]) -> None:
    question = pack(Offer(statements=[msgspec.Raw(item.envelope) for item in statements]))
    answer = await client.bus.request(subjects.sync(node), question, timeout_ms=5_000)
    assert unpack(Offered, answer.data).results == {item.id: "" for item in statements}


async def _connected(cluster: Cluster) -> Client:
    client = await Client.connect(cluster.files.context)
    for name in cluster.files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    return client


async def _answers(client: Client, cluster: Cluster, wanted: str) -> None:
    """Every region comes to answer so."""
    end = time.monotonic() + 10
    for region in cluster.files.regions:
        while (code := code_of(await client.ask(region=region))) != wanted:
            assert time.monotonic() < end, f"{region} answers {code}, not {wanted}"
            await asyncio.sleep(0.05)


async def _settled(client: Client, node: str) -> None:
    """All that is in the node's log by now is final."""
    size = (await client.status(node)).size
    await client.until(node, "final", lambda status: status.certified >= size)


async def elsewhere(cluster: Cluster, proof: Path, folder: Path) -> tuple[int, Any]:
    """`mesh fraud verify` where there are two files, no context, and no mesh to be reached."""
    folder.mkdir()
    shutil.copy(proof, folder / "proof.json")
    shutil.copy(cluster.files.roster, folder / "roster.json")
    arguments = ["-o", "json", "fraud", "verify", "proof.json", "--trust", "roster.json", "--pin", cluster.files.pin]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "mesh.cli", *arguments),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert out, err
    return process.returncode or 0, json.loads(out)[0]


async def test_a_revoker_that_tells_two_halves_two_histories_is_proven_to_have_and_all_of_it_denies(
    own_mesh: Cluster, tmp_path: Path
) -> None:
    client = await _connected(own_mesh)
    one, other = _history(own_mesh, BILLING.subject), _history(own_mesh, "spiffe://dev/agent/x", "spiffe://dev/agent/y")
    await asyncio.gather(*(_offer(client, name, half) for name, half in zip(own_mesh.files.nodes, (one, one, other, other), strict=True)))
    await _answers(client, own_mesh, "revoked")
    for name in own_mesh.files.nodes:
        await client.until(name, "aware of the fork", lambda status: status.conflicts == 1)

    stream = stream_of(one[0].claims.revoker)
    status, (row,), err = await command(own_mesh, "fraud", "ls")
    assert status == 0, err
    assert (row["kind"], row["stream"], row["signers"], row["state"]) == ("stream-conflict", stream, [one[0].claims.revoker], "open")
    assert row["held"] == "4 of 4"
    assert {item["id"] for item in row["statements"]} == {one[0].id, other[0].id}
    proof = tmp_path / "proof.json"
    status, _, err = await command(own_mesh, "fraud", "show", stream, "-o", str(proof))
    assert status == 0, err
    status, judged = await elsewhere(own_mesh, proof, tmp_path / "elsewhere")
    assert (status, judged["verdict"], judged["signers"]) == (0, "PROVED", [one[0].claims.revoker])
    assert "forked streams: 1, say " in (await command(own_mesh, "status"))[2]

    status, rows, err = await command(own_mesh, "revocations", "ls")
    assert (status, {row["id"] for row in rows}) == (0, {item.id for item in (*one, *other)}), err
    await _answers(client, own_mesh, "revoked")
    await client.bus.close()


async def test_a_policy_conflict_is_proven_elsewhere_found_by_an_auditor_and_listed_as_resolved_once_it_is(
    own_mesh: Cluster, tmp_path: Path
) -> None:
    client = await _connected(own_mesh)
    await _answers(client, own_mesh, "authorized")
    one, twin = _manifest(own_mesh, "one"), _manifest(own_mesh, "two")
    first, *_, last = own_mesh.files.nodes
    await asyncio.gather(_offer(client, first, [one]), _offer(client, last, [twin]))
    await _answers(client, own_mesh, "policy_conflict")

    proof, name = tmp_path / "proof.json", f"policy/{DOMAIN}"
    status, _, err = await command(own_mesh, "fraud", "show", name, "-o", str(proof))
    assert status == 0, err
    status, judged = await elsewhere(own_mesh, proof, tmp_path / "elsewhere")
    assert (status, judged["verdict"], judged["kind"], judged["numbers"]) == (0, "PROVED", "policy-conflict", [2, 2])
    assert judged["signers"] == sorted(one.signatures)

    for node in own_mesh.files.nodes:
        await _settled(client, node)
    _, audited, err = await command(own_mesh, "audit", "run", "--once")
    found = {item["detail"] for item in audited["findings"] if item["code"] == "policy_conflict"}
    assert found == {f"incident: {name} {' '.join(sorted((one.id, twin.id)))}"}, err

    key, other = _people(own_mesh, "root-1", "root-2")
    status, _, err = await command(own_mesh, "resolve", name, "--head", one.id, "--key", key, "--co-sign", other, "--watch")
    assert status == 0, err
    await _answers(client, own_mesh, "authorized")
    status, (row,), err = await command(own_mesh, "fraud", "ls")
    assert (status, row["state"], row["held"]) == (0, "resolved", "4 of 4"), err
    assert {(await client.status(node)).conflicts for node in own_mesh.files.nodes} == {0}
    assert (await elsewhere(own_mesh, proof, tmp_path / "again"))[0] == 0, "what was said stays said"
    await client.bus.close()
