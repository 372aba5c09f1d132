"""Evidence on a real mesh: what was asked over the wire is found, told, proved, verified elsewhere, and audited afterwards."""

import asyncio
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mesh.core.bytes import envelope
from mesh.core.messages import Authorized, DeniedAnswer
from mesh.core.run.authorization import Denial
from mesh.dev.cluster import Cluster
from tests.live.kit import Client, authorization_in, code_of

pytestmark = pytest.mark.asyncio
COUNT = 200


class Ended(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out, self.err
        return json.loads(self.out)


async def _mesh(cluster: Cluster, *arguments: str, cwd: Path | None = None) -> Ended:
    root = str(Path(__file__).parents[2])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "mesh.cli", "--context", str(cluster.files.context), "-o", "json", *arguments),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": root},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return Ended(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def asked(own_mesh: Cluster) -> AsyncIterator[tuple[Cluster, Client, list[str]]]:
    """A mesh that has answered: ids of the intents, most of them permitted, every seventh denied."""
    client = await Client.connect(own_mesh.files.context)
    await client.until("eu-1", "fresh", lambda status: status.fresh)
    pairs = [client.request(client.intent(amount=1_000 if number % 7 else 90_000_000)) for number in range(COUNT)]
    answers = await client.flood([data for _, data in pairs])
    assert {code_of(answer) for answer in answers} == {"authorized", "policy_denied"}
    size = (await client.status("eu-1")).size
    await client.until("eu-1", "final", lambda status: status.certified >= size)
    yield own_mesh, client, [name for name, _ in pairs]
    await client.bus.close()


async def test_an_auditor_started_afterwards_repeats_every_decision(asked: tuple[Cluster, Client, list[str]]) -> None:
    mesh, client, _ = asked
    first = await _mesh(mesh, "audit", "run", "--once")
    assert first.status == 0, first.err
    assert {name: first.json[name] for name in ("caught_up", "match", "mismatch", "unverifiable", "findings")} == {
        "caught_up": True,
        "match": COUNT,
        "mismatch": 0,
        "unverifiable": 0,
        "findings": [],
    }
    for _ in range(5):
        await client.ask()
    size = (await client.status("eu-1")).size
    await client.until("eu-1", "final", lambda status: status.certified >= size)
    again = await _mesh(mesh, "audit", "run", "--once")
    assert (again.status, again.json["match"], again.json["mismatch"]) == (0, COUNT + 5, 0), again.err


async def test_an_auditor_needs_neither_the_streams_nor_the_node_whose_log_it_is(asked: tuple[Cluster, Client, list[str]]) -> None:
    mesh, _, _ = asked
    mesh.kill_bus()
    stores = list(mesh.files.folder.rglob("jetstream"))
    assert stores
    for store in stores:
        shutil.rmtree(store)
    mesh.start_bus()
    mesh.kill("eu-1")
    other = await Client.connect(mesh.files.context)
    await other.until_reachable("us-1")
    ended = await _mesh(mesh, "audit", "run", "--once")
    assert (ended.status, ended.json["match"], ended.json["findings"]) == (0, COUNT, []), ended.err
    await other.bus.close()


async def test_what_is_proved_here_is_verified_elsewhere(asked: tuple[Cluster, Client, list[str]], tmp_path: Path) -> None:
    mesh, _, names = asked
    proof, elsewhere = tmp_path / "proof.json", tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in (names[0], names[1]):
        made = await _mesh(mesh, "prove", name[:20], "--out", str(proof))
        assert made.status == 0, made.err
        checked = await _mesh(mesh, "verify", str(proof), "--trust", str(mesh.files.roster), "--pin", mesh.files.pin, cwd=elsewhere)
        assert (checked.status, checked.json[0]["verdict"]) == (0, "VERIFIED")
        assert {check["name"]: check["result"] for check in checked.json[0]["checks"]}["replay"] == "passed"
    repeated = await _mesh(mesh, "replay", names[1])
    assert (repeated.status, repeated.json["result"]) == (0, "match"), repeated.err


async def test_an_execution_is_told_and_found(asked: tuple[Cluster, Client, list[str]]) -> None:
    mesh, client, names = asked
    told = await _mesh(mesh, "why", names[1])
    assert [stage["stage"] for stage in told.json["stages"]][:3] == ["intent", "decision", "authorization"]
    answer = await client.ask(amount=90_000_000)
    assert isinstance(answer, DeniedAnswer)
    record = envelope.read(Denial, bytes(answer.denial)).claims.record
    shown = await _mesh(mesh, "lineage", "show", f"eu-1/{record.index}")
    assert shown.json[0]["record"]["decision"]["effect"] == "deny"
    listed = await _mesh(mesh, "lineage", "ls", "--node", "eu-1", "-n", "3")
    assert f"eu-1/{record.index}" in {row["record"] for row in listed.json}
    status = await _mesh(mesh, "status")
    assert (status.status, [row["state"] for row in status.json]) == (0, ["fresh"] * 4)
    note = await _mesh(mesh, "log", "checkpoint", "eu-1")
    assert note.json["size"] >= COUNT
    allowed = await client.ask()
    assert isinstance(allowed, Authorized)
    assert authorization_in(allowed).claims.index > record.index


async def test_without_a_mesh_every_question_ends_with_4(own_mesh: Cluster) -> None:
    for name in own_mesh.files.nodes:
        own_mesh.kill(name)
    for arguments in (["status"], ["why", "ab"], ["audit", "run", "--once"]):
        ended = await _mesh(own_mesh, *arguments)
        assert ended.status == 4, (arguments, ended)
    own_mesh.kill_bus()
    ended = await _mesh(own_mesh, "status")
    assert ended.status == 4
    assert json.loads(ended.err.splitlines()[-1])["error"]["code"] == "unreachable"
