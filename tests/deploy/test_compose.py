"""`compose/` without containers: every file that a service needs is mounted, nothing else is, and what it runs is there."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.bus_table import bus_options
from mesh.adapters.natsserver import NatsServer
from mesh.adapters.signer import load
from mesh.adapters.trustfiles import load_trust
from mesh.deploy.container import NODES, SERVER, init, main
from mesh.gate.context import load_context
from mesh.roles.config import OutsideTable, load_config
from mesh.roles.outside import outsiders
from mesh.roles.witness import WitnessNode
from mesh.roles.witness_config import load_witness_config
from tests.contracts.yamltext import parse
from tests.core.kit import refuses
from tests.deploy.mesh import accepted

ROOT = Path(__file__).resolve().parents[2]
SERVICES: dict[str, Any] = parse((ROOT / "compose/compose.yaml").read_text())["services"]
GOVERNORS = [f"governor-{name}" for name in NODES]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compose") / "state"
    init(folder)
    return folder


def mounts(service: str) -> list[tuple[str, str, str]]:
    """(path below state/, path in the container, mode)"""
    split = [mount.split(":") for mount in SERVICES[service]["volumes"]]
    return [(source.removeprefix("./state").removeprefix("/"), target, mode) for source, target, mode in split]


def seen_by(service: str, state: Path, folder: Path) -> Path:
    """The files of ``state`` as that service sees them."""
    for source, target, _ in mounts(service):
        inside = folder / target.removeprefix("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (state / source).is_dir() else shutil.copy)(state / source, inside)
    return folder / "mesh"


def test_these_are_the_services() -> None:
    assert list(SERVICES) == ["init", "nats", "streams", *GOVERNORS, "witness", "auditor"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_held_tight(service: str) -> None:
    one = SERVICES[service]
    assert one["read_only"] is True
    assert one["cap_drop"] == ["ALL"]
    assert one["security_opt"] == ["no-new-privileges:true"]
    assert one["user"] == "${MESH_UID:-65532}:${MESH_GID:-65532}"
    assert not {"privileged", "network_mode", "pid", "ipc", "cap_add", "devices"} & one.keys()
    assert all(port.startswith("127.0.0.1:") for port in one.get("ports", []))


@pytest.mark.parametrize("service", [name for name in SERVICES if name != "init"])
def test_all_that_a_service_mounts_was_made(state: Path, service: str) -> None:
    for source, target, mode in mounts(service):
        assert (state / source).exists(), source
        assert target == f"/mesh/{source}"
        assert mode in {"ro", "rw"}


@pytest.mark.parametrize("service", [*GOVERNORS, "auditor", "witness", "nats", "streams"])
def test_a_service_sees_nobody_elses_keys(service: str) -> None:
    own = {f"nodes/{service.removeprefix('governor-')}"}
    seen = {source for source, _, _ in mounts(service)}
    assert not {source for source in seen if source.split("/")[0] in {"people", "identities", ""}}
    assert {source for source in seen if source.startswith("nodes")} <= own
    writable = {source for source, _, mode in mounts(service) if mode == "rw"}
    assert writable == {"nats": {"store"}, "streams": set(), "auditor": {"auditor"}, "witness": {"witness"}}.get(service, own)


@pytest.mark.parametrize("name", NODES)
def test_a_governor_finds_all_it_needs(state: Path, tmp_path: Path, name: str) -> None:
    inside = seen_by(f"governor-{name}", state, tmp_path)
    command = SERVICES[f"governor-{name}"]["command"]
    config = load_config(tmp_path / command[-1].removeprefix("/"))
    member = load_trust(config.trust, config.path(".")).roster.member(name)
    assert load(config.path(config.node.keys) / "decision.key").key.public == member.decision_key
    assert bus_options(config.bus, name=f"gov-{name}", base=config.path(".")).servers == (SERVER,)
    assert Path(bus_options(config.bus, name=f"gov-{name}", base=config.path(".")).nkey_file).is_file()
    assert config.path(config.node.data).resolve().is_relative_to(inside / "nodes" / name)


def test_the_auditor_finds_all_it_needs(state: Path, tmp_path: Path) -> None:
    seen_by("auditor", state, tmp_path)
    command = SERVICES["auditor"]["command"]
    context = load_context(str(tmp_path / command[command.index("--context") + 1].removeprefix("/")))
    assert context.auditor.servers == [SERVER]
    assert load_trust(context.trust, context.path(".")).roster.mesh == context.mesh
    assert context.path(context.auditor.nkey_file).is_file()
    assert context.path(context.audit).parent.is_dir()


def test_the_witness_finds_all_it_needs_and_the_governor_that_asks_it(state: Path, tmp_path: Path) -> None:
    inside = seen_by("witness", state, tmp_path / "witness")
    command = SERVICES["witness"]["command"]
    config = load_witness_config(tmp_path / "witness" / command[-1].removeprefix("/"))
    node = WitnessNode(config, lambda _name: None)
    assert set(node.logs) == {f"dev/{name}/e1" for name in NODES}
    assert config.path(config.witness.data).resolve().is_relative_to(inside / "witness")
    seen = seen_by(f"governor-{NODES[0]}", state, tmp_path / "governor")
    asks = load_config(seen / "nodes" / NODES[0] / "node.toml")
    roster = load_trust(asks.trust, asks.path(".")).roster
    assert [(one.verifier, one.url) for one in outsiders(asks.outside, roster).values()] == [(node.verifier, "http://witness:8081")]
    port = asks.outside.listen.partition(":")[2]
    assert SERVICES[f"governor-{NODES[0]}"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert config.witness.listen.endswith(":8081")
    assert [load_config(state / "nodes" / name / "node.toml").outside for name in NODES[1:]] == [OutsideTable()] * 3


def test_programs_on_the_host_find_the_bus_on_loopback(state: Path) -> None:
    context = load_context(str(state / "context.toml"))
    assert context.bus.servers == ["nats://127.0.0.1:4222"]
    assert "127.0.0.1:4222:4222" in SERVICES["nats"]["ports"]


def test_a_mesh_that_is_there_is_never_overwritten(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with refuses("key_exists"):
        init(state)
    assert main(["init", str(state)]) == 1
    assert "error[key_exists]" in capsys.readouterr().err


def test_whoever_asks_for_something_else_is_told_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["destroy"]) == 1
    assert "error[usage]" in capsys.readouterr().err


def test_the_server_takes_its_configuration_and_gets_its_streams(state: Path, tmp_path: Path) -> None:
    inside = seen_by("nats", state, tmp_path / "nats")
    command = SERVICES["nats"]["command"]
    config = tmp_path / "nats" / command[command.index("-c") + 1].removeprefix("/")
    assert config.is_file()
    assert inside == tmp_path / "nats" / "mesh"
    assert accepted(config) == ""
    with NatsServer.start(tmp_path / "server", config=config) as server:
        known = seen_by("streams", state, tmp_path / "streams")
        assert main(["streams", str(known), server.url]) == 0
        assert main(["streams", str(known), server.url]) == 0


def test_nothing_is_started_before_what_it_needs() -> None:
    assert SERVICES["streams"]["depends_on"] == {"nats": {"condition": "service_healthy"}}
    for name in GOVERNORS:
        assert SERVICES[name]["depends_on"] == {"streams": {"condition": "service_completed_successfully"}}
    assert set(SERVICES["auditor"]["depends_on"]) == set(GOVERNORS)


def test_the_image_is_made_of_what_is_here_and_pinned() -> None:
    lines = (ROOT / "compose/Dockerfile").read_text().splitlines()
    assert lines[0] == "FROM python:3.13-slim"
    copied = {path for line in lines if line.startswith("COPY") for path in line.split()[1:-1]}
    assert all((ROOT / path).exists() for path in copied)
    kept = {line.removeprefix("!") for line in (ROOT / "compose/Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert copied == kept
    assert any("--require-hashes" in line for line in lines)
    assert "--no-build-isolation" in "".join(lines)
    build = SERVICES["init"]["build"]
    assert (ROOT / "compose" / build["context"] / build["dockerfile"]).resolve() == ROOT / "compose/Dockerfile"
