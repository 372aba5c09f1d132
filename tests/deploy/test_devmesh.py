"""A mesh that was rendered is one that runs: every file loads, the server takes its configuration, and permissions bite."""

import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from mesh.adapters.bus import Bus, BusOptions, Message
from mesh.adapters.bus_table import BusTable, bus_options
from mesh.adapters.natsserver import NatsServer
from mesh.adapters.signer import load
from mesh.adapters.streams import provision
from mesh.adapters.trustfiles import load_trust
from mesh.core.bytes import envelope
from mesh.core.run.identity import Identity, Role, check_identity, issued_by
from mesh.deploy.devmesh import DevMeshFiles, point_at
from mesh.errors import MeshError, Unavailable
from mesh.gate.context import Holder, load_context
from mesh.roles.config import load_config
from tests.core.kit import refuses
from tests.deploy.mesh import NOW_MS, accepted, dev_mesh


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> DevMeshFiles:
    return dev_mesh(tmp_path_factory.mktemp("dev") / "mesh")


@pytest.fixture(scope="module")
def server(files: DevMeshFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with NatsServer.start(tmp_path_factory.mktemp("nats"), config=files.bus_config) as running:
        yield running


@pytest.mark.parametrize("nodes", [1, 4, 7])
def test_every_configuration_loads_and_every_node_has_its_keys(tmp_path: Path, nodes: int) -> None:
    files = dev_mesh(tmp_path / "mesh", nodes=nodes)
    assert len(files.nodes) == nodes
    for name in files.nodes:
        config = load_config(files.node(name))
        governance = load_trust(config.trust, config.path("."))
        member = governance.roster.member(config.node.name)
        assert [load(config.path(config.node.keys) / f"{use}.key").key.public for use in ("log", "witness", "attest", "decision")] == [
            member.log_key,
            member.witness_key,
            member.attest_key,
            member.decision_key,
        ]
        assert all(law.bundle is not None for law in governance.laws["payments"])
        bus_options(config.bus, name=f"gov-{name}", base=config.path("."))
        assert 2 * governance.roster.k > nodes + governance.roster.f


def test_the_context_names_people_whom_the_issuer_knows(files: DevMeshFiles) -> None:
    context = load_context(str(files.context))
    governance = load_trust(context.trust, context.path("."))
    people: list[tuple[Holder, Role]] = [(context.enforcer, "enforcer"), (context.identities["billing"], "workload")]
    for holder, role in people:
        document = issued_by(envelope.read(Identity, context.path(holder.document).read_bytes()), governance.roster)
        check_identity(document, role=role, subject=None, key=load(context.path(holder.key)).key.public, now_ms=NOW_MS)


def test_no_secret_can_be_read_by_others(files: DevMeshFiles) -> None:
    secrets = [path for pattern in ("*.key", "*.nk", "*.password") for path in files.folder.rglob(pattern)]
    assert len(secrets) > 4 * 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_a_folder_that_is_in_use_is_not_written_over(files: DevMeshFiles) -> None:
    with refuses("key_exists"):
        dev_mesh(files.folder)


def test_the_bus_is_found_where_it_listens(tmp_path: Path) -> None:
    files = dev_mesh(tmp_path / "mesh")
    point_at(files, ["nats://127.0.0.1:4999"])
    point_at(files, ["nats://127.0.0.1:5000"], node="us-1")
    assert load_config(files.node("eu-1")).bus.servers == ["nats://127.0.0.1:4999"]
    assert load_config(files.node("us-1")).bus.servers == ["nats://127.0.0.1:5000"]
    context = load_context(str(files.context))
    assert context.bus.servers == context.auditor.servers == ["nats://127.0.0.1:4999"]


def test_the_server_accepts_the_configuration(files: DevMeshFiles) -> None:
    assert accepted(files.bus_config) == ""


# ----------------------------------------------------------------------------------------------------------- permissions


@asynccontextmanager
async def user(server: NatsServer, table: BusTable, name: str, base: Path) -> AsyncIterator[Bus]:
    options = bus_options(table, name=name, base=base)
    pointed = BusOptions(
        servers=(server.url,), name=name, user=options.user, password=options.password, nkey_file=options.nkey_file, watch_ms=100
    )
    async with await Bus.connect(pointed) as bus:
        yield bus


@asynccontextmanager
async def named(files: DevMeshFiles, server: NatsServer, who: str) -> AsyncIterator[Bus]:
    context = load_context(str(files.context))
    config = load_config(files.node("eu-1"))
    tables = {
        "gov-eu-1": (config.bus, config.path(".")),
        "workload": (context.bus, context.path(".")),
        "auditor": (context.auditor, context.path(".")),
        "provisioner": (BusTable(servers=[], nkey_file=str(files.provisioner)), Path()),
    }
    async with user(server, tables[who][0], who, tables[who][1]) as bus:
        yield bus


async def arrived(files: DevMeshFiles, server: NatsServer, who: str, subjects: list[str]) -> list[str]:
    """Which of these publications by ``who`` reach the account of the nodes."""
    seen: list[str] = []
    async with named(files, server, "provisioner") as listener, named(files, server, who) as bus:
        await listener.subscribe(">", lambda message: seen.append(message.subject))
        for subject in [*subjects, "mesh.v1.sync.us-1"]:  # everybody may ask: so this one comes last, and tells that all are through
            await bus.publish(subject, b"x")
        with anyio.fail_after(10):
            while "mesh.v1.sync.us-1" not in seen:  # noqa: ASYNC110 -- it comes from another process
                await anyio.sleep(0.01)
    return [subject for subject in seen if subject in subjects]


OWN = ["mesh.v1.hb.eu-1", "mesh.v1.law.revoker", "mesh.v1.eu.lineage.eu-1", "mesh.v1.eu.checkpoint.eu-1", "mesh.v1.us.cosig.us-1"]
NEVER_BY_A_GOVERNOR = [
    "mesh.v1.hb.us-1",
    "mesh.v1.us.lineage.us-1",
    "mesh.v1.eu.lineage.us-1",
    "mesh.v1.us.checkpoint.us-1",
    "mesh.v1.eu.intent.demo.billing",
    "mesh.v1.eu.outcome.gate",
    "mesh.v1.ctl.us-1.drain",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.DELETE.LINEAGE_eu",
    "anything",
]


async def test_a_governor_speaks_under_its_own_name_only(files: DevMeshFiles, server: NatsServer) -> None:
    assert await arrived(files, server, "gov-eu-1", [*OWN, *NEVER_BY_A_GOVERNOR]) == OWN


async def test_an_auditor_only_asks(files: DevMeshFiles, server: NatsServer) -> None:
    assert await arrived(files, server, "auditor", [*OWN, *NEVER_BY_A_GOVERNOR]) == []


async def test_a_tenant_reaches_three_services_and_nothing_else(files: DevMeshFiles, server: NatsServer) -> None:
    services = ["mesh.v1.eu.intent.demo.billing", "mesh.v1.eu.outcome.gate"]
    others = ["mesh.v1.eu.intent.other.billing", "mesh.v1.eu.intent.demo.a.b"]
    sent = [*services, *others, *[subject for subject in [*OWN, *NEVER_BY_A_GOVERNOR] if subject not in services]]
    assert await arrived(files, server, "workload", sent) == services


async def test_a_forged_reply_subject_of_a_tenant_reaches_no_node(files: DevMeshFiles, server: NatsServer) -> None:
    """Confused deputy: the governor may publish its heartbeat, the workload may not; an answer must not do it for it."""
    seen: list[str] = []
    asked: list[Message] = []
    async with (
        named(files, server, "provisioner") as listener,
        named(files, server, "gov-eu-1") as governor,
        named(files, server, "workload") as workload,
    ):
        await listener.subscribe("mesh.v1.hb.*", lambda message: seen.append(message.subject))
        await governor.subscribe("mesh.v1.eu.intent.*.*", asked.append, queue="gov-eu")
        await workload._client.publish("mesh.v1.eu.intent.demo.billing", b"{}", reply="mesh.v1.hb.eu-1")
        with anyio.fail_after(10):
            while not asked:  # noqa: ASYNC110 -- it comes from another process
                await anyio.sleep(0.01)
        assert asked[0].reply != "mesh.v1.hb.eu-1"
        await governor._client.publish(asked[0].reply, b"answer")
        await governor.publish("mesh.v1.hb.eu-1", b"its own")
        with anyio.fail_after(10):
            while not seen:  # noqa: ASYNC110 -- as above
                await anyio.sleep(0.01)
    assert seen == ["mesh.v1.hb.eu-1"]


async def test_a_tenant_is_answered_and_hears_heartbeats(files: DevMeshFiles, server: NatsServer) -> None:
    heard: list[bytes] = []
    async with named(files, server, "gov-eu-1") as governor, named(files, server, "workload") as workload:
        answers = anyio.create_memory_object_stream[Message](1)
        await governor.subscribe("mesh.v1.eu.intent.*.*", answers[0].send_nowait, queue="gov-eu")
        await workload.subscribe("mesh.v1.hb.*", lambda message: heard.append(message.data))

        async def answer() -> None:
            await (await answers[1].receive()).respond(b"no")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            assert (await workload.request("mesh.v1.eu.intent.demo.billing", b"{}", timeout_ms=5_000)).data == b"no"
        await governor.publish("mesh.v1.hb.eu-1", b"beat")
        with anyio.fail_after(10):
            while not heard:  # noqa: ASYNC110 -- it comes from another process
                await anyio.sleep(0.01)
        for stream in answers:
            stream.close()
    assert heard == [b"beat"]


async def test_only_the_provisioner_makes_streams(files: DevMeshFiles, server: NatsServer) -> None:
    async with named(files, server, "provisioner") as bus:
        await provision(bus, files.regions)
    for who in ("gov-eu-1", "auditor", "workload"):
        async with named(files, server, who) as bus:
            with pytest.raises(MeshError), anyio.fail_after(15):
                await bus.request("$JS.API.STREAM.CREATE.MINE", b'{"name":"MINE"}', timeout_ms=300)
    async with named(files, server, "gov-eu-1") as bus:
        stored = await bus.store("mesh.v1.eu.lineage.eu-1", b"x", message_id="1", timeout_ms=2_000)
    assert stored.sequence == 1


async def heard(files: DevMeshFiles, server: NatsServer, who: str, subscription: str, subject: str, *, queue: str = "") -> list[str]:
    """What ``who`` hears of a message of a workload on ``subject``, and of a heartbeat after it."""
    seen: list[str] = []
    async with (
        named(files, server, who) as listener,
        named(files, server, "workload") as workload,
        named(files, server, "gov-eu-1") as governor,
    ):
        await listener.subscribe(subscription, lambda message: seen.append(message.subject), queue=queue)
        await listener.subscribe("mesh.v1.hb.*", lambda message: seen.append(message.subject))
        await workload.publish(subject, b"{}")
        with pytest.raises(Unavailable):  # nobody answers, but what was sent before is through
            await workload.request(subject, b"{}", timeout_ms=200)
        await governor.publish("mesh.v1.hb.eu-1", b"beat")
        with anyio.fail_after(10):
            while "mesh.v1.hb.eu-1" not in seen:  # noqa: ASYNC110 -- it comes from another process
                await anyio.sleep(0.01)
    return [found for found in seen if found != "mesh.v1.hb.eu-1"]


@pytest.mark.parametrize("subject", ["mesh.v1.eu.intent.demo.billing", "mesh.v1.eu.outcome.gate", "mesh.v1.sync.us-1"])
async def test_workloads_of_a_tenant_do_not_hear_each_other_ask(files: DevMeshFiles, server: NatsServer, subject: str) -> None:
    assert await heard(files, server, "workload", subject, subject) == []
    assert await heard(files, server, "workload", "mesh.v1.>", subject) == []


@pytest.mark.parametrize("subject", ["mesh.v1.eu.intent.demo.billing", "mesh.v1.eu.outcome.gate", "mesh.v1.sync.us-1"])
async def test_an_auditor_swallows_no_request(files: DevMeshFiles, server: NatsServer, subject: str) -> None:
    assert await heard(files, server, "auditor", subject, subject, queue="gov-eu") == []
    assert await heard(files, server, "auditor", "mesh.v1.>", subject) == []


async def test_whoever_may_listen_would_hear_it(files: DevMeshFiles, server: NatsServer) -> None:
    subject = "mesh.v1.eu.intent.demo.billing"
    assert subject in await heard(files, server, "provisioner", "mesh.v1.>", subject)


def test_three_people_of_a_dev_mesh_approve(files: DevMeshFiles) -> None:
    context = load_context(str(files.context))
    (group,) = load_trust(context.trust, context.path(".")).roster.approvers.items()
    keys = [load(files.folder / "people" / f"security-{number}.key") for number in (1, 2, 3)]
    assert (group[0], group[1].threshold, group[1].keys) == ("security", 1, [key.key.public for key in keys])
    assert {key.use for key in keys} == {"approver"}
