"""Governors that lie, and enforcers that keep something back, on a real mesh: `mesh audit run` finds them, and its exit status says so."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesh.adapters import launcher, signer
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.messages import Authorized, OutcomeAnswer, OutcomeRequest, pack, unpack
from mesh.core.run.outcome import CHECKS, Check, Event, Finished, Outcome, Started
from mesh.dev.cluster import Cluster
from mesh.testing.liar import AMOUNT
from tests.live.kit import Client, authorization_in, code_of, command

pytestmark = pytest.mark.asyncio
ROOT = Path(__file__).parents[2]
SOON = ("audit", "run", "--once", "--late", "1s")
STARTED = Started(checks=[Check(name=name, passed=True) for name in CHECKS], heartbeats=[f"{number:064x}" for number in range(3)], spend=1)
DONE = Finished(status=0, outputs=[], duration_ms=1)


class Enforcer:
    """The enforcer of the mesh, which says what a test wants, to whom it wants."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.key = signer.load(client.context.path(client.context.enforcer.key)).key
        self.number, self.previous = 0, ""

    def say(self, answer: Authorized, event: Event) -> bytes:
        claims = authorization_in(answer).claims
        now_ms = max(claims.not_before_ms, 1)
        said = Outcome(
            mesh=claims.mesh, enforcer=self.key.public, identity=self.client.enforcer.id, boot=self.client.boot, sequence=self.number,
            previous=self.previous, domain=claims.domain, intent=claims.intent, authorization=authorization_in(answer).id, at_ms=now_ms,
            event=event,
        )  # fmt: skip
        draft = envelope.draft(said)
        self.number, self.previous = self.number + 1, draft.id
        return envelope.assemble(draft.payload_type, draft.payload, {self.key.public: self.key.sign(draft.message)})

    async def send(self, region: str, outcomes: Sequence[bytes]) -> None:
        request = OutcomeRequest(identity=msgspec.Raw(self.client.enforcer.envelope), outcomes=[msgspec.Raw(said) for said in outcomes])
        subject = subjects.outcome(region, subjects.short(self.client.enforcer.claims.subject))
        answer = await self.client.bus.request(subject, pack(request), timeout_ms=5_000)
        assert len(unpack(OutcomeAnswer, answer.data).receipts) == len(outcomes), "whoever swallows gives receipts too"


@pytest.fixture
async def client(own_mesh: Cluster) -> AsyncIterator[Client]:
    connected = await Client.connect(own_mesh.files.context)
    for name in own_mesh.files.nodes:
        await connected.until(name, "fresh", lambda status: status.fresh)
    yield connected
    await connected.bus.close()


async def _replace(mesh: Cluster, client: Client, name: str, lie: str) -> None:
    """A liar in the place of that governor."""
    mesh.kill(name)
    argv = [sys.executable, "-m", "mesh.testing.liar", str(mesh.files.node(name))]
    with mesh.log(name).open("ab") as sink:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "MESH_LIE": lie}
        mesh.nodes[name] = launcher.spawn(argv, env=env, stdin=subprocess.DEVNULL, stdout=sink.fileno(), stderr=sink.fileno())
    await client.until_reachable(name)
    await client.until(name, "fresh", lambda status: status.fresh)


async def _settled(mesh: Cluster, client: Client, *names: str) -> None:
    for name in names or tuple(mesh.files.nodes):
        size = (await client.status(name)).size
        await client.until(name, "final", lambda status, size=size: status.certified >= size)  # type: ignore[misc]  # bound now


def _codes(value: Any) -> tuple[list[str], list[str]]:
    return sorted({one["code"] for one in value["findings"]}), sorted(one["code"] for one in value["alarms"])


async def _permitted(client: Client, **changes: Any) -> Authorized:
    answer = await client.ask(**changes)
    assert isinstance(answer, Authorized), code_of(answer)
    return answer


async def test_what_a_governor_swallows_an_enforcer_skips_or_is_decided_wrongly_is_found_and_what_comes_late_ends_the_alarm(
    own_mesh: Cluster, client: Client
) -> None:
    await _replace(own_mesh, client, "us-1", "swallows")
    enforcer = Enforcer(client)
    outcomes = [enforcer.say(answer, event) for answer in [await _permitted(client) for _ in range(3)] for event in (STARTED, DONE)]
    await enforcer.send("us", outcomes)
    enforcer.number += 1  # taken, and nobody gets the outcome
    await enforcer.send("eu", [enforcer.say(await _permitted(client), STARTED)])
    await _settled(own_mesh, client)
    await asyncio.sleep(2)
    status, value, err = await command(own_mesh, *SOON)
    assert (status, value["caught_up"], value["starts_match"], *_codes(value)) == (5, True, 4, [], ["outcome_missing"] * 3), err
    await enforcer.send("eu", outcomes[1::2])
    await _settled(own_mesh, client, "eu-1")
    status, value, err = await command(own_mesh, *SOON)
    assert (status, *_codes(value)) == (5, [], ["outcome_missing"]), err
    assert "outcome 6 of enforcer" in value["alarms"][0]["detail"]
    await _decided_wrongly(own_mesh, client)


async def _decided_wrongly(own_mesh: Cluster, client: Client) -> None:
    """One request of many, in a log that is perfect otherwise: no attester signs it, and the auditor finds it by itself."""
    await _replace(own_mesh, client, "eu-1", "permits")
    await client.flood([client.request(client.intent())[1] for _ in range(30)])
    place = authorization_in(await _permitted(client, amount=AMOUNT)).claims
    await client.flood([client.request(client.intent())[1] for _ in range(10)])
    others = [name for name in own_mesh.files.nodes if name != "eu-1"]
    for name in others:
        await client.until(name, "freezing it", lambda status: status.frozen == ["eu-1"])
    await _settled(own_mesh, client, *others)
    status, value, err = await command(own_mesh, "audit", "run", "--once")
    assert (status, _codes(value)[0], value["mismatch"]) == (5, ["member_frozen", "replay_mismatch"], 1), err
    assert {one["record"] for one in value["findings"] if one["code"] == "replay_mismatch"} == {f"eu-1/{place.index}"}
    status, (row,), err = await command(own_mesh, "fraud", "ls")
    assert (row["kind"], row["member"], row["numbers"], row["codes"]) == (
        "unlawful-decision",
        "eu-1",
        [place.index],
        ["replay_mismatch"],
    ), err
    own_mesh.kill("eu-1")


async def test_an_auditor_that_is_killed_goes_on_without_loss_or_double_counting_although_an_owner_is_gone(
    own_mesh: Cluster, client: Client
) -> None:
    enforcer = Enforcer(client)
    for _ in range(20):
        answer = await _permitted(client)
        await enforcer.send("us", [enforcer.say(answer, STARTED), enforcer.say(answer, DONE)])
    await _settled(own_mesh, client)
    own_mesh.kill("us-1")
    for _ in range(2):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mesh.cli", "--context", str(own_mesh.files.context), "audit", "run"),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await asyncio.sleep(1.5)  # somewhere in the middle
        process.send_signal(signal.SIGKILL)
        await process.wait()
    status, value, err = await command(own_mesh, *SOON)
    assert (status, value["match"], value["starts_match"], value["found"]) == (0, 20, 20, 0), err
    assert value["records"] == value["final"]
    status, value, err = await command(own_mesh, "audit", "run", "--once", "--still", "1s")
    assert (status, *_codes(value), value["alarms"][0]["record"].split("/")[0]) == (4, [], ["log_silent"], "us-1"), err
    filed = await command(own_mesh, "audit", "run", "--from", str(own_mesh.files.folder / "nodes" / "eu-1" / "data" / "node.db"))
    same = ("match", "mismatch", "unverifiable", "starts_match", "found", "final")
    assert (filed[0], {name: filed[1][name] for name in same}) == (0, {name: value[name] for name in same}), filed[2]
