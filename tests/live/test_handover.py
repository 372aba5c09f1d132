"""Real processes: signers are replaced while the mesh runs; the former ones say nothing that counts, and who was away learns all of it."""

import asyncio
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mesh.adapters import signer
from mesh.cli import client
from mesh.cli import roster_words as words
from mesh.core.bytes import envelope
from mesh.core.bytes.envelope import Statement
from mesh.core.law.reign import in_reign
from mesh.core.law.revocation import Revocation, Target, stream_of
from mesh.core.law.travel import Said as Statements
from mesh.core.law.travel import read_law
from mesh.core.messages import LawAsked, LawBatch, Offer, Offered
from mesh.deploy.devmesh import DevMeshFiles
from mesh.dev.cluster import Cluster
from tests.live.kit import POLICIES, Said, make_files

GONE = "sa-1"
"""A governor that is away while signers change."""
ANNA, BERT, CARL = (f"spiffe://dev/agent/{name}" for name in ("anna", "bert", "carl"))


def _until_acting(said: Said, epoch: int, names: set[str]) -> None:
    end = time.monotonic() + 25.0
    while True:
        status, rows, err = said("peer", "ls")
        acting = {row["node"] for row in rows or () if row["acts_under"] == epoch and row["state"] == "fresh"}
        if status == 0 and acting >= names:
            return
        assert time.monotonic() < end, (rows, err)
        time.sleep(0.2)


def _ask(tmp_path: Path, work: Callable[[client.MeshClient], Any]) -> Any:
    async def inner() -> Any:
        async with client.open_client(str(tmp_path / "mesh/context.toml")) as (mesh, _):
            return await work(mesh)

    return asyncio.run(inner())


def _by_the_former(files: DevMeshFiles, before: str) -> Statement[Statements]:
    key = signer.load(files.folder / "people" / "revoker.key").key
    claims = Revocation(
        mesh=words.read(files.roster).claims.mesh,
        revoker=key.public,
        sequence=2,
        previous=before,
        since="",
        target=Target(type="subject", value=CARL),
        spares=[],
        reason="stolen",
        issued_ms=1,
    )
    draft = envelope.draft(claims)
    return read_law(envelope.assemble(draft.payload_type, draft.payload, {key.public: key.sign(draft.message)}))


def test_who_was_let_go_neither_revokes_nor_makes_policy_and_who_was_away_learns_what_counts(tmp_path: Path, said: Said) -> None:
    files = make_files(tmp_path / "mesh")
    people, file = files.folder / "people", str(tmp_path / "roster-2.json")
    new_revoker, new_signer = tmp_path / "revoker.key", tmp_path / "policy.key"
    signer.generate(new_revoker, "revoker", secrets.token_bytes(32))
    signer.generate(new_signer, "policy", secrets.token_bytes(32))
    old_revoker, old_signer = people / "revoker.key", people / "policy-payments-1.key"
    with Cluster(files) as cluster:
        cluster.start_bus()
        asyncio.run(cluster.provision())
        cluster.start()
        _until_acting(said, 1, set(files.nodes))
        first = said("revoke", ANNA, "--key", str(old_revoker), "--watch")[1]
        assert first["acknowledged"]
        cluster.kill(GONE)
        changes = [f"revoker={new_revoker}", f"policy/payments={new_signer}"]
        drops = [f"{role}={signer.load(path).key.public}" for role, path in (("revoker", old_revoker), ("policy/payments", old_signer))]
        options = [part for key in changes for part in ("--add-key", key)] + [part for key in drops for part in ("--drop-key", key)]
        status, shown, err = said("roster", "set", *options, "--begins", "+14s", "--out", file)
        assert status == 0, err
        assert any("goes on behind number 1" in line for line in shown["changes"])
        keys = [str(people / f"root-{number}.key") for number in (1, 2)]
        assert said("roster", "sign", file, "--key", keys[0], "--co-sign", keys[1])[1]["complete"]
        status, shown, err = said("roster", "push", file, "--follow", "--wait", "20")
        assert (status, shown["acting"]) == (0, 3), err
        since, stream = shown["id"], stream_of(signer.load(old_revoker).key.public)

        stolen = _by_the_former(files, first["id"])
        offer = Offer(statements=[msgspec.Raw(stolen.envelope)])
        awake = sorted(set(files.nodes) - {GONE})
        answers = _ask(tmp_path, lambda mesh: mesh.everyone(offer, Offered))
        assert [answers[node].results for node in awake] == [{stolen.id: "handed_over"}] * 3
        assert said("revoke", BERT, "--key", str(old_revoker))[0] == 5
        status, shown, err = said("revoke", BERT, "--key", str(new_revoker), "--watch")
        assert (status, shown["acknowledged"], shown["sequence"]) == (0, True, 1), err

        sign = ["policy", "sign", str(POLICIES / "payments"), "--out", str(tmp_path / "manifest.json")]
        assert said(*sign, "--key", str(old_signer))[0] == 5
        status, shown, err = said(*sign, "--key", str(people / "policy-payments-2.key"), "--co-sign", str(new_signer))
        assert (status, shown["epoch"]) == (0, 2), err
        assert said("policy", "build", str(POLICIES / "payments"), "--out", str(tmp_path / "payments.bundle"))[0] == 0
        status, shown, err = said("policy", "push", str(tmp_path / "manifest.json"), str(tmp_path / "payments.bundle"), "--watch")
        assert status == 0, err

        cluster.start([GONE])
        _until_acting(said, 2, set(files.nodes))
        rows = said("revocations", "ls")[1]
        assert {row["target"]: row["held"] for row in rows} == {f"subject:{ANNA}": "4 of 4", f"subject:{BERT}": "4 of 4"}
        rows = said("streams", "ls")[1]
        state = {row["stream"]: (row["length"], row["held"], row["state"]) for row in rows}
        assert state[in_reign(stream, since)] == (1, "4 of 4", "one history")
        assert state[in_reign("policy/payments", since)] == (2, "4 of 4", "one history")
        batch = _ask(tmp_path, lambda mesh: mesh.ask(GONE, LawAsked(stream=stream, sequence=0, id=""), LawBatch))
        assert [read_law(bytes(raw)).id for raw in batch.statements] == [first["id"]], "what was handed over, and nothing behind it"
