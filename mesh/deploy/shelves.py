"""The shelf `nodes/`: one folder per role, rendered from the types that read these files and from their own words.

Placeholders fail closed: a pin of zeros trusts no roster, and a login is a variable that the server demands.

Not here: the pages (:mod:`mesh.deploy.readmes`), `compose/` (:mod:`mesh.deploy.compose`).
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from mesh.adapters.bus_table import BusTable
from mesh.adapters.trustfiles import Trust
from mesh.contracts.words import field_words
from mesh.deploy import readmes
from mesh.deploy.nats import GovernorUser, TenantUser, auditor_user, governor_user, tenant_account, tenant_exports
from mesh.deploy.toml import to_toml
from mesh.deploy.units import Unit, unit_text
from mesh.gate.context import Context, Holder
from mesh.policy.init import write_starter
from mesh.roles.config import NodeConfig, NodeTable
from mesh.roles.witness_config import MeshTable, WitnessConfig, WitnessNodeTable

__all__ = ["node_files"]

_MESH: Final = "example"
_SERVERS: Final = ["tls://nats-1.example.net:4222", "tls://nats-2.example.net:4222"]
_NO_PIN: Final = "0" * 64
_ETC: Final = "/etc/govmesh"
_CA: Final = f"{_ETC}/bus-ca.pem"
_MESH_COMMAND: Final = "/opt/govmesh/bin/mesh"
_KEYS: Final = tuple(f"keys/{use}.key" for use in ("log", "witness", "attest", "decision"))
_FILE: Final = "Paths are relative to this file. Unknown keys are refused, and all that is wrong is said at once."
_SAID: Final[Mapping[type[msgspec.Struct], Mapping[str, str]]] = {
    NodeConfig: {"": _FILE},
    Context: {"": _FILE},
    WitnessConfig: {"": _FILE},
    BusTable: {
        "servers": "At least two: losing any one server must stop nothing.",
        "user": "One of: user with password_file, nkey_file, creds_file.",
        "nkey_file": "One of: user with password_file, nkey_file, creds_file.",
        "tls_ca": "Given, a connection without TLS 1.3 is refused.",
    },
}
_GOVERNOR: Final = Unit(
    name="govmesh",
    description="govmesh governor",
    credentials=(*_KEYS, "bus.nk"),
    command=f"{_MESH_COMMAND} node run --config {_ETC}/node.toml",
)
_AUDITOR: Final = Unit(
    name="govmesh-auditor",
    description="govmesh auditor",
    credentials=("auditor.nk",),
    command=f"{_MESH_COMMAND} --context {_ETC}/context.toml audit run",
)
_WITNESS: Final = Unit(
    name="govmesh-witness",
    description="govmesh witness",
    credentials=("witness.key",),
    command=f"{_MESH_COMMAND} witness run --config {_ETC}/witness.toml",
)
_NO_LOG: Final = f"log.example+00000000+AQ{'A' * 42}"
"""Nobody's key: a witness that finds it does not start."""


def node_files() -> dict[str, bytes]:
    """Path below ``nodes/`` to content."""
    files = {
        "README.md": readmes.NODES,
        "governor/README.md": readmes.GOVERNOR,
        "governor/node.toml": _toml(_governor()),
        "governor/nats.conf": _mesh_account(
            governor_user(GovernorUser(name="eu-1", region="eu", nkey="$GOVERNOR_EU_1_NKEY")),
            "GOVERNOR_EU_1_NKEY is the public nkey that `bus.nk` belongs to; `eu-1` and `eu` are its name and region in the roster.",
        ),
        "governor/govmesh-governor.service": unit_text(_GOVERNOR),
        "enforcer/README.md": readmes.ENFORCER,
        "enforcer/context.toml": _toml(_context("/var/lib/govmesh-enforcer", _ETC)),
        "enforcer/nats.conf": _tenant(),
        "auditor/README.md": readmes.AUDITOR,
        "auditor/context.toml": _toml(_context("/var/lib/govmesh-auditor", "/run/govmesh-auditor")),
        "auditor/nats.conf": _mesh_account(
            auditor_user("$AUDITOR_NKEY", ["eu", "us"]),
            "AUDITOR_NKEY is the public nkey that `auditor.nk` belongs to. Each region has a stream of its own.",
        ),
        "auditor/govmesh-auditor.service": unit_text(_AUDITOR),
        "witness/README.md": readmes.WITNESS,
        "witness/witness.toml": _toml(_witness()),
        "witness/govmesh-witness.service": unit_text(_WITNESS),
    }
    return {name: text.encode() for name, text in files.items()} | _policy()


def _governor() -> NodeConfig:
    trust = _trust(bundles=[f"{_ETC}/policy/payments.bundle.json"])
    node = NodeTable(name="eu-1", data="/var/lib/govmesh", keys="/run/govmesh")
    return NodeConfig(node=node, bus=BusTable(servers=_SERVERS, nkey_file="/run/govmesh/bus.nk", tls_ca=_CA), trust=trust)


def _witness() -> WitnessConfig:
    return WitnessConfig(
        witness=WitnessNodeTable(
            name="witness.example/w1", key="/run/govmesh-witness/witness.key", data="/var/lib/govmesh-witness", listen="127.0.0.1:8081"
        ),
        logs=[_NO_LOG],
        policies=[f"{_ETC}/logs.policy"],
        meshes={_MESH: MeshTable(roster=f"{_ETC}/roster.json", pin=_NO_PIN)},
    )


def _context(state: str, login: str) -> Context:
    people = f"{_ETC}/identities"
    return Context(
        mesh=_MESH,
        region="eu",
        tenant="acme",
        bus=BusTable(servers=_SERVERS, user="acme", password_file=f"{_ETC}/bus.password", tls_ca=_CA),
        trust=_trust(bundles=[f"{_ETC}/policy/payments.bundle.json"]),
        spent=f"{state}/spent.db",
        enforcer=Holder(document=f"{people}/gate.json", key=f"{people}/gate.key"),
        identities={"billing": Holder(document=f"{people}/billing.json", key=f"{people}/billing.key")},
        auditor=BusTable(servers=_SERVERS, nkey_file=f"{login}/auditor.nk", tls_ca=_CA),
        audit=f"{state}/audit.db",
    )


def _trust(*, bundles: list[str]) -> Trust:
    manifests = [f"{_ETC}/policy/payments.manifest.json"]
    return Trust(roster=f"{_ETC}/roster.json", pin=_NO_PIN, policy=manifests, bundles=bundles)


def _toml(value: NodeConfig | Context | WitnessConfig) -> str:
    return to_toml(value, leave_out=frozenset({"base"}), words=_words)


def _words(kind: type[msgspec.Struct]) -> Mapping[str, str]:
    return {**field_words(kind), **_SAID.get(kind, {})}


def _mesh_account(user: str, about: str) -> str:
    return f"# For the account MESH of your NATS servers.\n# {about}\naccounts {{\n  MESH {{\n    users: [\n{user}\n    ]\n  }}\n}}\n"


def _tenant() -> str:
    tenant = TenantUser(tenant="acme", password="$TENANT_ACME_PASSWORD")  # noqa: S106 -- the name of a variable
    lines = [
        "# An account of its own for each tenant, to which the account MESH exports its services.",
        "# TENANT_ACME_PASSWORD is in the environment of the NATS servers.",
        "accounts {",
        "  MESH {",
        "    exports: [",
        *tenant_exports([tenant]),
        "    ]",
        "  }",
        *tenant_account(tenant),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _policy() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "payments"
        written = write_starter(path, mesh=_MESH)
        return {f"governor/policy/payments/{file.relative_to(path).as_posix()}": file.read_bytes() for file in written}
