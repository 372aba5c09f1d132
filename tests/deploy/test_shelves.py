"""What stands in `nodes/` is what the roles read, and a placeholder that was forgotten fails closed."""

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from mesh.adapters.configfile import parse_toml
from mesh.adapters.nkey import make_user
from mesh.contracts.words import about, field_words
from mesh.core.bytes import envelope
from mesh.core.law.roster import Roster, admit_roster
from mesh.deploy.nats import BusUsers, GovernorUser, TenantUser, nats_config
from mesh.deploy.shelves import node_files
from mesh.deploy.toml import to_toml
from mesh.gate.context import Context, load_context
from mesh.policy.build import check
from mesh.roles.config import NodeConfig, NodeTable, OutsideTable, load_config
from mesh.roles.witness_config import WitnessConfig, load_witness_config, watched
from tests.contracts.kit import vector
from tests.core.kit import refuses
from tests.deploy.mesh import accepted

NODES = Path(__file__).resolve().parents[2] / "nodes"
UNITS = sorted(path.relative_to(NODES).as_posix() for path in NODES.rglob("*.service"))


def test_every_role_has_a_page_and_only_processes_have_units() -> None:
    roles = {name.partition("/")[0] for name in node_files() if "/" in name}
    assert roles == {"governor", "enforcer", "auditor", "witness"}
    assert all((NODES / role / "README.md").is_file() for role in roles)
    assert UNITS == ["auditor/govmesh-auditor.service", "governor/govmesh-governor.service", "witness/govmesh-witness.service"]


def test_a_governor_reads_its_node_toml() -> None:
    config = load_config(NODES / "governor/node.toml")
    assert config.node.name == "eu-1"
    assert len(config.bus.servers) == 2


@pytest.mark.parametrize("role", ["enforcer", "auditor"])
def test_programs_and_auditors_read_their_context(role: str) -> None:
    context = load_context(str(NODES / role / "context.toml"))
    assert context.audit.startswith(f"/var/lib/govmesh-{role}/")


def test_a_witness_reads_its_witness_toml_and_does_not_start_with_what_was_never_filled_in(tmp_path: Path) -> None:
    config = load_witness_config(NODES / "witness/witness.toml")
    unit = (NODES / "witness/govmesh-witness.service").read_text()
    assert "RuntimeDirectory=govmesh-witness\n" in unit
    assert "LoadCredential=witness.key:" in unit
    assert (config.witness.key, config.witness.data) == ("/run/govmesh-witness/witness.key", "/var/lib/govmesh-witness")
    with refuses("config_invalid"):
        watched(config)
    (table,) = config.meshes.values()
    (tmp_path / "roster.json").write_text(vector("statement/roster.json")["envelope"])
    mesh = msgspec.structs.replace(table, roster=str(tmp_path / "roster.json"))
    with refuses("wrong_epoch"):
        watched(msgspec.structs.replace(config, logs=[], policies=[], meshes={"m": mesh}))


def test_a_governor_has_no_door_unless_somebody_writes_one() -> None:
    assert load_config(NODES / "governor/node.toml").outside == OutsideTable()
    (example,) = re.findall(r"```\n(\[outside\].*?)```", (NODES / "governor/README.md").read_text(), re.DOTALL)
    text = (NODES / "governor/node.toml").read_text() + "\n" + example
    assert parse_toml(NodeConfig, text, name="node.toml").outside.witnesses.keys() == {"w1"}


def test_the_pin_that_was_never_filled_in_trusts_no_roster() -> None:
    pin = load_config(NODES / "governor/node.toml").trust.pin
    with refuses("wrong_epoch"):
        admit_roster(envelope.read(Roster, vector("statement/roster.json")["envelope"].encode()), pin=pin)


def test_every_key_of_a_configuration_is_explained() -> None:
    for name in ("governor/node.toml", "auditor/context.toml", "witness/witness.toml"):
        lines = (NODES / name).read_text().splitlines()
        bare = [line for before, line in zip(["", *lines], lines, strict=False) if " = " in line and not before.startswith("#")]
        assert [line.partition(" ")[0] for line in bare if not re.match("(mesh|tenant|password_file) =", line)] == []


def test_the_starter_policy_passes_its_own_checks() -> None:
    assert check(NODES / "governor/policy/payments").enforcers == ["spiffe://example/enforcer/gate"]


# -------------------------------------------------------------------------------------------------------------- the bus


@pytest.mark.parametrize(
    ("role", "variables"), [("governor", ["GOVERNOR_EU_1_NKEY"]), ("auditor", ["AUDITOR_NKEY"]), ("enforcer", ["TENANT_ACME_PASSWORD"])]
)
def test_a_server_takes_the_login_of_a_role_and_demands_who_it_is(tmp_path: Path, role: str, variables: list[str]) -> None:
    config = NODES / role / "nats.conf"
    public = make_user(tmp_path / "some.nk", bytes(range(32)))
    assert accepted(config, **dict.fromkeys(variables, public)) == ""
    assert variables[0] in accepted(config)


def test_the_login_of_a_role_is_that_of_the_dev_mesh(tmp_path: Path) -> None:
    """One renderer: what is tried is what is shipped."""
    public = make_user(tmp_path / "some.nk", bytes(range(32)))
    users = BusUsers(
        governors=[GovernorUser(name="eu-1", region="eu", nkey=public), GovernorUser(name="us-1", region="us", nkey=public)],
        tenants=[TenantUser(tenant="acme", password="$TENANT_ACME_PASSWORD")],
        auditor="$AUDITOR_NKEY",
        provisioner=public,
    )
    whole = nats_config(users, name="some").replace(public, "$GOVERNOR_EU_1_NKEY").splitlines()
    for role in ("governor", "auditor", "enforcer"):
        lines = [line for line in (NODES / role / "nats.conf").read_text().splitlines() if "permissions" in line or "service:" in line]
        assert lines
        assert set(lines) <= set(whole)


# ---------------------------------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_holds_its_service_tight(name: str) -> None:
    lines = (NODES / name).read_text().splitlines()
    assert {"Type=simple", "DynamicUser=yes", "ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "UMask=0077"} <= set(
        lines
    )
    assert [line for line in lines if line and not re.fullmatch(r"\[\w+\]|# .*|[A-Z][A-Za-z]+=.*", line)] == []
    assert [line for line in lines if line.startswith("[")] == ["[Unit]", "[Service]", "[Install]"]


def test_a_governors_credentials_are_the_keys_its_configuration_names() -> None:
    config = load_config(NODES / "governor/node.toml")
    lines = (NODES / "governor/govmesh-governor.service").read_text().splitlines()
    loaded = {line.removeprefix("LoadCredential=").partition(":")[0] for line in lines if line.startswith("LoadCredential=")}
    (copied,) = [line.split() for line in lines if line.startswith("ExecStartPre=")]
    assert loaded == {"log.key", "witness.key", "attest.key", "decision.key", "bus.nk"}
    assert {f"${{CREDENTIALS_DIRECTORY}}/{name}" for name in loaded} == set(copied[3:-1])
    runtime = next(line.removeprefix("RuntimeDirectory=") for line in lines if line.startswith("RuntimeDirectory="))
    assert config.node.keys == f"/run/{runtime}"
    assert config.bus.nkey_file == f"/run/{runtime}/bus.nk"
    assert config.node.data == f"/var/lib/{runtime}"


def test_an_auditors_login_is_where_its_context_says() -> None:
    context = load_context(str(NODES / "auditor/context.toml"))
    text = (NODES / "auditor/govmesh-auditor.service").read_text()
    assert "RuntimeDirectory=govmesh-auditor\n" in text
    assert context.auditor.nkey_file == "/run/govmesh-auditor/auditor.nk"
    assert "LoadCredential=auditor.nk:" in text


# ----------------------------------------------------------------------------------------------------------------- toml


def test_what_is_written_is_what_is_read() -> None:
    kinds: dict[str, type[NodeConfig | Context | WitnessConfig]] = {
        "governor/node.toml": NodeConfig,
        "enforcer/context.toml": Context,
        "witness/witness.toml": WitnessConfig,
    }
    for name, kind in kinds.items():
        value = parse_toml(kind, (NODES / name).read_text(), name=name)
        assert parse_toml(kind, to_toml(value, leave_out=frozenset({"base"})), name=name) == value


def test_text_of_a_configuration_cannot_break_out_of_its_string() -> None:
    name = 'a"]\n[bus]\nservers = ["x'
    table = NodeTable(name=name, data="d", keys="ü\\")
    assert tomllib.loads(to_toml(table)) == {"name": name, "data": "d", "keys": "ü\\"}


def test_words_are_those_beside_the_fields() -> None:
    assert field_words(NodeTable)["keys"] == "Folder of `log.key`, `witness.key`, `attest.key` and `decision.key`."
    assert about(NodeTable) == "The `[node]` table."
