"""On a real mesh a running enforcer confirms what it has heard, one that is stopped is shown as missing, and strangers can check it."""

import asyncio
import json
from pathlib import Path

import pytest

from mesh.core import subjects
from mesh.core.messages import HeardAsked, HeardGiven, pack, unpack
from mesh.dev.cluster import Cluster
from mesh.gate.connect import open_core
from mesh.gate.context import load_context
from tests.live.kit import GATE, Client, command

NAMED = (GATE.subject, "spiffe://dev/enforcer/run")
"""Enforcers that the policies name."""
SUBJECTS = [f"spiffe://dev/agent/{name}" for name in ("first", "second", "third")]


@pytest.mark.asyncio
async def test_an_enforcer_confirms_a_revocation_for_all_to_see(own_mesh: Cluster, tmp_path: Path) -> None:
    key = str(own_mesh.files.folder / "people" / "revoker.key")
    client = await Client.connect(own_mesh.files.context)
    for name in own_mesh.files.nodes:
        await client.until(name, "fresh", lambda status: status.fresh)
    status, shown, err = await command(own_mesh, "revoke", SUBJECTS[0], "--key", key, "--watch")
    assert status == 0, err
    assert {row["enforcer"]: (row["covers_ms"], row["key"]) for row in shown["enforcers"]} == dict.fromkeys(NAMED, (None, "")), "none runs"

    core = await open_core(load_context(str(own_mesh.files.context)), "billing")
    status, shown, err = await command(own_mesh, "revoke", SUBJECTS[1], "--key", key, "--watch", "--enforcers", "1", "--wait", "20")
    assert (status, shown["acknowledged"], shown["enforcers_confirmed"]) == (0, True, [GATE.subject]), err
    row = next(item for item in shown["enforcers"] if item["enforcer"] == GATE.subject)
    assert 0 <= row["covers_ms"] < 10_000
    assert row["key"] == client.enforcer.claims.key
    _, rows, _ = await command(own_mesh, "revocations", "ls")
    assert [(item["heard"], item["heard_by"]) for item in rows] == [("1 of 2", [GATE.subject])] * 2
    _, rows, _ = await command(own_mesh, "lineage", "ls", "-n", "100")
    assert GATE.subject in [item["what"] for item in rows if item["kind"] == "heard"]

    proof = tmp_path / "heard.json"
    for _ in range(100):  # until k have attested it
        status, _, err = await command(own_mesh, "prove", row["record"], "--out", str(proof))
        if status == 0:
            break
        await asyncio.sleep(0.1)
    assert status == 0, err
    status, verified, err = await command(own_mesh, "verify", str(proof), "--trust", str(client.context.path(client.context.trust.roster)))
    assert (status, [item["verdict"] for item in verified]) == (0, ["VERIFIED"]), err
    assert row["id"] in json.dumps(verified)

    await core.close(wait_ms=500)
    status, shown, err = await command(own_mesh, "revoke", SUBJECTS[2], "--key", key, "--watch", "--enforcers", "1", "--wait", "3")
    assert (status, shown["acknowledged"], shown["enforcers_confirmed"]) == (4, True, []), err
    assert "not_acknowledged" in err
    assert GATE.subject in err
    assert row["id"] in [item["id"] for item in shown["enforcers"]], "what it said last"

    own_mesh.kill("us-1")
    own_mesh.start(["us-1"])
    await client.until("us-1", "fresh", lambda item: item.fresh)
    answer = await client.bus.request(subjects.sync("us-1"), pack(HeardAsked(after="")), timeout_ms=5_000)
    assert len(unpack(HeardGiven, answer.data).words) == 1, "also after a restart"
    await client.bus.close()
