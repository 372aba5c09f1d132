"""One governor over a real server: intent, record, authorization; and what it says no to."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import nats
import pytest

from mesh.adapters.bus import Bus
from mesh.adapters.bus_options import BusOptions
from mesh.adapters.bus_table import bus_options
from mesh.adapters.store import Store
from mesh.core import subjects
from mesh.core.bytes import envelope
from mesh.core.log.record import DecisionMade, read_record
from mesh.core.messages import Authorized, IntentRequest, LineageBatch, Pull, RefusedAnswer, pack, unpack
from mesh.core.run.authorization import Denial
from mesh.core.run.params import Opening, commit
from mesh.dev.cluster import Cluster
from mesh.errors import Unavailable
from mesh.limits import REQUEST_BYTES_MAX
from tests.live.kit import Client, authorization_in, code_of

pytestmark = pytest.mark.asyncio


async def test_an_allowed_intent_gets_an_authorization_bound_to_it_that_names_its_record(client: Client) -> None:
    intent = client.intent()
    identity, data = client.request(intent)
    answer = await client.send(data)
    assert isinstance(answer, Authorized), answer
    authorization = authorization_in(answer)
    issuer = client.governance.roster.member(authorization.claims.issuer)
    assert authorization.verify(issuer.decision_key).intent == identity
    status = await client.until(issuer.name, "recorded", lambda status: status.size > authorization.claims.index)
    assert (status.node, status.origin) == (issuer.name, authorization.claims.origin)


async def test_a_denial_is_signed_and_names_the_policies_that_decided(client: Client) -> None:
    answer = await client.ask(amount=900_000)
    assert code_of(answer) == "policy_denied"
    denial = envelope.read(Denial, bytes(answer.denial))  # type: ignore[union-attr]
    assert denial.signed_by(client.governance.roster.member(denial.claims.issuer).decision_key)


async def test_the_same_intent_again_gets_the_same_bytes(client: Client) -> None:
    _, data = client.request(client.intent())
    first, second = await client.send(data), await client.send(data)
    assert isinstance(first, Authorized)
    assert bytes(first.authorization) == bytes(second.authorization)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"action": "steal"}, "action_unknown"),
        ({"domain": "nowhere"}, "domain_unknown"),
        ({"params": {"to": "acct:acme-supplies"}}, "params_mismatch"),
        ({"params": {"to": "acct:acme-supplies", "amount_cents": "1"}}, "params_mismatch"),
        ({"committed": {"memo": "0" * 64}}, "opening_mismatch"),
        ({"created_ms": 1, "expires_ms": 2}, "intent_expired"),
        ({"created_ms": 1}, "intent_too_long"),
        ({"assurance_min": "final"}, "assurance_unavailable"),
    ],
)
async def test_every_unacceptable_intent_is_denied_by_its_own_code(client: Client, changes: dict[str, Any], code: str) -> None:
    assert code_of(await client.ask(**changes)) == code


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed"),
        (b"{" * 50_000, "malformed"),
        (b"\xff\xfe", "malformed"),
        (b"x" * (REQUEST_BYTES_MAX + 1), "too_large"),
        (b'{"approvals":[],"boxes":[],"enforcer":{},"identity":{},"intent":{},"openings":[],"parents":[]}', "malformed"),
        (b'{"boxes":[],"enforcer":{},"identity":{},"intent":{},"openings":[],"parents":[],"approvals":[],"x":1}', "malformed"),
        (b'{"approvals":[],"boxes":[],"enforcer":{},"identity":{},"intent":{}, "openings":[],"parents":[]}', "non_canonical"),
    ],
)
async def test_garbage_is_refused_unsigned_by_its_own_code_and_the_node_goes_on(client: Client, data: bytes, code: str) -> None:
    assert code_of(await client.send(data)) == code
    assert code_of(await client.ask()) == "authorized"


async def test_an_intent_changed_after_signing_is_not_authenticated(client: Client) -> None:
    _, data = client.request(client.intent())
    request = unpack(IntentRequest, data)
    statement = envelope.read(type(client.intent()), bytes(request.intent))
    forged = envelope.draft(client.intent(amount=9_999))
    signed = envelope.assemble(forged.payload_type, forged.payload, dict(statement.signatures))
    answer = await client.send(pack(msgspec.structs.replace(request, intent=msgspec.Raw(signed))))
    assert isinstance(answer, RefusedAnswer)
    assert answer.code == "unauthenticated"


async def test_a_forged_reply_subject_cannot_reach_the_mesh(client: Client, mesh: Cluster) -> None:
    """A workload names a subject of the mesh as its reply: the answer must not land there."""
    options = BusOptions(servers=(mesh.url,), name="provisioner", nkey_file=str(mesh.files.provisioner))
    heard: list[bytes] = []
    async with await Bus.connect(options) as inside:
        await inside.subscribe("mesh.v1.hb.*", lambda message: heard.append(message.data))
        context = client.context
        outside = await nats.connect(
            context.bus.servers, user=context.bus.user, password=context.path(context.bus.password_file).read_text()
        )
        subject = subjects.intent(context.region, context.tenant, subjects.short(client.document.claims.subject))
        _, data = client.request(client.intent())
        await outside.publish(subject, data, reply="mesh.v1.hb.eu-1")
        await outside.flush()
        await client.until("eu-1", "done", lambda status: status.certified == status.size)
        await asyncio.sleep(1.0)
        await outside.close()
    assert heard, "no heartbeat at all: the test heard nothing"
    assert all(envelope.identify(data)[0].endswith(".heartbeat.v1+json") for data in heard)


async def test_records_become_final_and_every_member_holds_them(client: Client, mesh: Cluster) -> None:
    answer = await client.ask()
    assert isinstance(answer, Authorized)
    index = authorization_in(answer).claims.index
    status = await client.until("eu-1", "final", lambda status: status.certified > index)
    for name in mesh.files.nodes[1:]:
        await client.until(
            name,
            "a mirror",
            lambda other: any(mirror.origin == status.origin and mirror.attested > index for mirror in other.mirrors),
        )


async def test_the_plain_client_gets_an_answer_to_every_one_of_a_thousand_intents(client: Client, mesh: Cluster) -> None:
    script = Path(__file__).parents[2] / "docs" / "examples" / "any_language.py"
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(script), str(mesh.files.context), "billing", "1000", "--ids"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert json.loads(run.stderr.splitlines()[-1]) == {"denied": 100, "authorized": 900}, run.stderr
    assert len(set(run.stdout.split())) == 1000
    size = (await client.status("eu-1")).size
    await client.until("eu-1", "final", lambda status: status.certified >= size)


async def test_what_was_answered_survives_kill_9_once_each(single: Cluster) -> None:
    client = await Client.connect(single.files.context)
    name = single.files.nodes[0]
    answered: dict[str, str] = {}

    async def ask() -> None:
        for _ in range(60):
            identity, data = client.request(client.intent())
            try:
                answer = await client.send(data, timeout_ms=500)
            except Unavailable:
                continue  # whatever a dead node causes, it was not an answer
            if isinstance(answer, Authorized):
                answered[identity] = authorization_in(answer).id

    asking = asyncio.gather(*(ask() for _ in range(8)))
    for _ in range(3):
        await asyncio.sleep(0.25)
        await asyncio.to_thread(single.kill, name)
        single.start([name])
    await asking
    await client.bus.close()
    single.stop([name])
    store = await Store.open(single.files.folder / "nodes" / name / "data" / "node.db", owner=name)
    origin = next(iter(await store.sizes()))
    size = (await store.sizes())[origin]
    seen: dict[str, list[str]] = {}
    for first in range(0, size, 100):
        for leaf in await store.records(origin, first, 100):
            record = read_record(leaf)
            if isinstance(record, DecisionMade) and record.authorization:
                seen.setdefault(record.intent, []).append(record.authorization)
    await store.close()
    assert len(answered) > 50
    assert {identity: seen.get(identity) for identity in answered} == {key: [value] for key, value in answered.items()}


async def test_a_killed_parent_leaves_no_process(tmp_path: Path) -> None:
    code = (
        "import sys, asyncio, time\n"
        "from pathlib import Path\n"
        "from mesh.dev.cluster import Cluster\n"
        "from tests.live.kit import make_files\n"
        "cluster = Cluster(make_files(Path(sys.argv[1]), nodes=1))\n"
        "cluster.start_bus(); asyncio.run(cluster.provision()); cluster.start()\n"
        "print(cluster.server.pid, *(process.pid for process in cluster.nodes.values()), flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).parents[2]
    parent = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-c", code, str(tmp_path / "mesh")],
        stdout=subprocess.PIPE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await asyncio.to_thread(parent.stdout.readline)).split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    end = time.monotonic() + 10
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < end, "a child outlived its parent"
        await asyncio.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_what_committed_parameters_hide_is_shown_to_auditors_and_not_to_tenants(client: Client, mesh: Cluster) -> None:
    opening = Opening(name="memo", salt="0" * 32, value="what the customer bought")
    intent = client.intent(committed={"memo": commit(opening)})
    _, data = client.request(intent, [opening])
    answer = await client.send(data)
    assert isinstance(answer, Authorized), answer
    index = authorization_in(answer).claims.index
    ask = pack(Pull(origin="dev/eu-1/e1", first=index, count=1))
    seen = unpack(LineageBatch, (await client.bus.request(subjects.sync("eu-1"), ask, timeout_ms=2_000)).data)
    assert seen.records
    assert seen.openings == []
    login = bus_options(client.context.auditor, name="auditor", base=client.context.path("."))
    async with await Bus.connect(login) as auditor:
        shown = unpack(LineageBatch, (await auditor.request(subjects.sync("eu-1"), ask, timeout_ms=2_000)).data)
    assert [item.openings for item in shown.openings] == [[opening]]


@pytest.mark.parametrize(
    "question",
    [
        b"", b"null", b'{"ask":"pull"}', b'{"ask":"steal"}', b'{"ask":"pull","count":-1,"first":0,"origin":"dev/eu-1/e1"}',
        b'{"ask":"find","count":1,"prefix":"xyz"}', b'{"ask":"sync","nonce":"00"}',
    ],
)  # fmt: skip
async def test_a_senseless_question_harms_nothing(client: Client, question: bytes) -> None:
    with pytest.raises(Unavailable):
        await client.bus.request(subjects.sync("eu-1"), question, timeout_ms=200)
    assert (await client.status("eu-1")).fresh


async def test_an_absurd_pull_gets_a_bounded_answer(client: Client) -> None:
    for first, count, origin in ((0, 2**53 - 1, "dev/eu-1/e1"), (2**53 - 1, 1, "dev/eu-1/e1"), (0, 1, "no/such/log")):
        ask = pack(Pull(origin=origin, first=first, count=count))
        answer = await client.bus.request(subjects.sync("eu-1"), ask, timeout_ms=2_000)
        assert len(unpack(LineageBatch, answer.data).records) <= 128
